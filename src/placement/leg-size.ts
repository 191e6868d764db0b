// SPDX-License-Identifier: Apache-2.0

const mib = 1024 * 1024;

/** Bytes that each leg must hold so that striping over all of them gives `sizeBytes`; whole MiB, as lvols are sized. */
export function legSizeBytes(shape: { sizeBytes: number; legs: number; stripeSizeBytes: number }): number {
  const stripes = Math.ceil(shape.sizeBytes / shape.stripeSizeBytes);
  const perLeg = Math.ceil(stripes / shape.legs) * shape.stripeSizeBytes;
  return Math.ceil(perLeg / mib) * mib;
}
