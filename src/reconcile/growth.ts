// SPDX-License-Identifier: Apache-2.0
//
// Growing a volume, as pure functions from what the store holds to what it holds next. The wish and how far it came are
// part of the leadership object: a takeover learns both by the swap that gives it the right to drive the volume.
//
//   asked:    wanted > served            replicas are made larger
//   growing:  pinned by the controller   once all members have the room; legs are lengthened, one after the other
//   served:   served = wanted            once every leg is long enough; the slot grows, then the volume's own object
//
// Invariants:  - the served size never shrinks, and grows only when every leg is long enough
//              - while `growing`, the wanted size stays: what legs were lengthened to is known to every later controller

import type { GrowingSize, Leadership, VolumeObject } from '../model/objects.js';
import { replicaBytesAt } from '../placement/leg-size.js';
import { growRoute, routeSizeBytes } from '../placement/route.js';

export function volumeSize(volume: VolumeObject, leadership: Leadership | null): GrowingSize {
  const { sizeBytes } = volume;
  return leadership?.size ?? { servedBytes: sizeBytes, wantedBytes: sizeBytes, growing: false };
}

/** What each of its replicas takes, or will. */
export function replicaBytes(volume: VolumeObject, leadership: Leadership | null): number {
  return replicaBytesAt(volume, volumeSize(volume, leadership).wantedBytes);
}

export type GrowthStep =
  | { readonly do: 'nothing' }
  /** Members must have room for `wantedBytes`; then `planGrowing` is swapped in. */
  | { readonly do: 'pin'; readonly wantedBytes: number }
  /** Legs are lengthened for `wantedBytes`; then `planServed` is swapped in. */
  | { readonly do: 'lengthen'; readonly wantedBytes: number }
  /** The slot is as large as `servedBytes`; then `planGrown` is put into the store. */
  | { readonly do: 'publish'; readonly servedBytes: number };

export function planGrowth(volume: VolumeObject, leadership: Leadership): GrowthStep {
  const { servedBytes, wantedBytes, growing } = volumeSize(volume, leadership);
  if (growing) return { do: 'lengthen', wantedBytes };
  if (volume.sizeBytes < servedBytes) return { do: 'publish', servedBytes };
  return wantedBytes > servedBytes ? { do: 'pin', wantedBytes } : { do: 'nothing' };
}

/** Null: what was to be pinned is no longer what is wanted, or is pinned already. */
export function planGrowing(present: Leadership, wantedBytes: number): Leadership | null {
  const { size } = present;
  if (size === undefined || size.growing || size.wantedBytes !== wantedBytes) return null;
  return { ...present, size: { ...size, growing: true } };
}

export function planServed(present: Leadership): Leadership | null {
  const { size } = present;
  if (size === undefined || !size.growing) return null;
  return { ...present, size: { servedBytes: size.wantedBytes, wantedBytes: size.wantedBytes, growing: false } };
}

/** Null: it says so already. */
export function planGrown(volume: VolumeObject, servedBytes: number): VolumeObject | null {
  if (volume.sizeBytes >= servedBytes) return null;
  const { route } = volume;
  const longer =
    route === undefined || routeSizeBytes(route) >= servedBytes
      ? {}
      : { route: growRoute(route, { by: 'lengthening', sizeBytes: servedBytes }) };
  return { ...volume, ...longer, sizeBytes: servedBytes, legSizeBytes: replicaBytesAt(volume, servedBytes) };
}
