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

interface SizedVolume {
  readonly sizeBytes: number;
  readonly stripeSizeBytes: number;
  readonly legSizeBytes: number;
  readonly legs: { readonly length: number };
}

/** What each leg of the volume holds of it when the volume has that size. A longer leg holds what a shorter one does. */
export function legDataBytesAt(volume: SizedVolume, sizeBytes: number): number {
  return legDataBytes({ sizeBytes, stripeSizeBytes: volume.stripeSizeBytes, legs: volume.legs.length });
}

/** Whether its replicas have room for tails. */
export function hasTails(volume: SizedVolume): boolean {
  return volume.legSizeBytes >= legDataBytesAt(volume, volume.sizeBytes) + legTailBytes;
}

/** Of each replica, when the volume has that size. */
export function replicaBytesAt(volume: SizedVolume, sizeBytes: number): number {
  const bytes = legDataBytesAt(volume, sizeBytes) + (hasTails(volume) ? legTailBytes : 0);
  return Math.max(bytes, volume.legSizeBytes);
}

/** Size of each replica; whole MiB, as lvols are sized. */
export function legSizeBytes(shape: LegShape): number {
  return legDataBytes(shape) + legTailBytes;
}
