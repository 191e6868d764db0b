// SPDX-License-Identifier: Apache-2.0
//
// How large the replicas of a leg are: the leg's share of the volume, and behind it the tail in which the leg keeps its
// superblock and its write-intent marks. Replicas from before there were tails have no room for one.

const mib = 1024 * 1024;

/** Behind the data of each replica; the engine's leg asks for exactly this much. */
export const legTailBytes = mib;

interface LegShape {
  readonly sizeBytes: number;
  readonly legs: number;
  readonly stripeSizeBytes: number;
}

/** Bytes of the volume that each leg must hold so that striping over all of them gives `sizeBytes`; whole MiB. */
export function legDataBytes(shape: LegShape): number {
  const stripes = Math.ceil(shape.sizeBytes / shape.stripeSizeBytes);
  const perLeg = Math.ceil(stripes / shape.legs) * shape.stripeSizeBytes;
  return Math.ceil(perLeg / mib) * mib;
}

/** Size of each replica; whole MiB, as lvols are sized. */
export function legSizeBytes(shape: LegShape): number {
  return legDataBytes(shape) + legTailBytes;
}
