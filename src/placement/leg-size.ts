// SPDX-License-Identifier: Apache-2.0
//
// How large the replicas of a leg are: the leg's share of the volume, and behind it the tail in which the leg keeps its
// superblock and its write-intent marks. Replicas from before there were tails have no room for one.
//
// Of a leg of k data and m parity members each replica holds a k-th of the share, behind superblocks and the log of
// partial stripes (docs/on-disk/raid.md); the engine's leg asks for exactly as much (native/bdev/raid/parity_leg.h).

import type { Erasure } from '../model/pools.js';

const mib = 1024 * 1024;

/** Behind the data of each replica; the engine's leg asks for exactly this much. */
export const legTailBytes = mib;

const page = 4096;
const stripBytes = 16 * 1024;
const logFirstPage = 64;
const logSlots = 64;
/** What the engine's leg works on at once, over all members. */
const bandBytes = 256 * 1024;

interface LegShape {
  readonly sizeBytes: number;
  readonly legs: number;
  readonly stripeSizeBytes: number;
  /** Absent: each replica holds all of the leg. */
  readonly erasure?: Erasure | undefined;
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
  readonly erasure?: Erasure | undefined;
}

/** What each leg of the volume holds of it when the volume has that size. A longer leg holds what a shorter one does. */
export function legDataBytesAt(volume: SizedVolume, sizeBytes: number): number {
  return legDataBytes({ sizeBytes, stripeSizeBytes: volume.stripeSizeBytes, legs: volume.legs.length });
}

/** Whether its replicas have room for tails. */
export function hasTails(volume: SizedVolume): boolean {
  return volume.erasure === undefined && volume.legSizeBytes >= legDataBytesAt(volume, volume.sizeBytes) + legTailBytes;
}

/** Of each replica, when the volume has that size. */
export function replicaBytesAt(volume: SizedVolume, sizeBytes: number): number {
  const data = legDataBytesAt(volume, sizeBytes);
  const { erasure } = volume;
  const bytes = erasure === undefined ? data + (hasTails(volume) ? legTailBytes : 0) : codedBytes(data, erasure);
  return Math.max(bytes, volume.legSizeBytes);
}

/** Size of each replica; whole MiB, as lvols are sized. */
export function legSizeBytes(shape: LegShape): number {
  const data = legDataBytes(shape);
  return shape.erasure === undefined ? data + legTailBytes : codedBytes(data, shape.erasure);
}

/** Of each member of a leg that holds so much, rounded up to whole MiB. */
function codedBytes(legBytes: number, { data, parity }: Erasure): number {
  const columns = Math.min(Math.floor(bandBytes / (data + parity) / page) * page, stripBytes);
  const slotPages = 1 + (data * columns) / page;
  const firstStrip = Math.ceil(((logFirstPage + logSlots * slotPages) * page) / stripBytes);
  const strips = Math.ceil(legBytes / (data * stripBytes));
  return Math.ceil(((firstStrip + strips) * stripBytes) / mib) * mib;
}
