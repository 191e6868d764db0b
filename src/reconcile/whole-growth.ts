// SPDX-License-Identifier: Apache-2.0
//
// Growing a volume with several active controllers (decision 020), as pure functions. The wish is put into the leadership of
// every part and of every front at once; each grows by itself as a volume does (growth.ts). A front begins when the exports
// that it stands on are long enough, so parts come first.
//
// Invariants:  - the volume's object says a size when every front serves it
//              - a wish is changed only while nobody has begun with it, or when everybody has ended

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type GrowingSize, type Leadership, type VolumeObject } from '../model/objects.js';
import { volumeSize } from './growth.js';
import { partSizeBytes } from './parts.js';

type Put = { readonly key: string; readonly revision: number; readonly text: string };

/** Of each part, so that striping over all of them holds so much; whole MiB. */
export function partBytesAt(volume: VolumeObject, sizeBytes: number): number {
  return partSizeBytes({ ...volume, sizeBytes });
}

/** What hosts are shown by all fronts, and what is wanted. `growing`: some have begun with what is wanted, and not all have ended. */
export function wholeSize(state: ClusterState, volume: VolumeObject): GrowingSize {
  const fronts = (volume.fronts ?? []).map((id) => volumeSize(volume, state.get('leaderships', id)));
  const parts = (volume.parts ?? []).flatMap((id) => {
    const part = state.get('volumes', id);
    return part === null ? [] : [volumeSize(part, state.get('leaderships', id))];
  });
  const { sizeBytes } = volume;
  const wantedBytes = Math.max(sizeBytes, ...fronts.map((size) => size.wantedBytes));
  const all = [...parts, ...fronts];
  const ended = fronts.every((size) => size.servedBytes >= wantedBytes);
  const begun =
    fronts.some((size) => size.servedBytes > sizeBytes) ||
    parts.some((size) => size.servedBytes > partBytesAt(volume, sizeBytes)) ||
    all.some((size) => size.growing);
  return { servedBytes: sizeBytes, wantedBytes, growing: begun && !ended };
}

/** So large the volume is for some host: what was written there may be asked for. */
export function servedToSome(state: ClusterState, volume: VolumeObject): number {
  const served = (volume.fronts ?? []).map((id) => volumeSize(volume, state.get('leaderships', id)).servedBytes);
  return Math.max(volume.sizeBytes, ...served);
}

/** The leaderships with the wish; null: one of them is not there. */
export function planWholeWish(state: ClusterState, volume: VolumeObject, wantedBytes: number): Put[] | null {
  const { parts = [], fronts = [] } = volume;
  const partBytes = partBytesAt(volume, wantedBytes);
  const wishes = [
    ...parts.map((id) => ({ of: state.get('volumes', id), id, bytes: partBytes })),
    ...fronts.map((id) => ({ of: volume, id, bytes: wantedBytes })),
  ];
  const puts = wishes.flatMap(({ of, id, bytes }): Put[] => {
    const led: Stored<Leadership> | null = state.stored('leaderships', id);
    if (led === null || of === null) return [];
    const size = { ...volumeSize(of, led.value), wantedBytes: bytes };
    return [
      { key: keys.leadership(id), revision: led.revision, text: codecs.leadership.encode({ ...led.value, size }) },
    ];
  });
  return puts.length === wishes.length ? puts : null;
}

/** What keeps the volume's object from saying that size; null: nothing. */
export function whyNotGrown(state: ClusterState, volume: VolumeObject, servedBytes: number): string | null {
  const fronts = (volume.fronts ?? []).map((id) => volumeSize(volume, state.get('leaderships', id)).servedBytes);
  const behind = fronts.findIndex((bytes) => bytes < servedBytes);
  return behind < 0 ? null : `front ${behind} serves ${fronts[behind]} of ${servedBytes} bytes`;
}

export function planWholeGrown(state: ClusterState, volume: VolumeObject, servedBytes: number): VolumeObject {
  const first = state.get('volumes', volume.parts?.[0] ?? '');
  return { ...volume, sizeBytes: servedBytes, legSizeBytes: first?.legSizeBytes ?? volume.legSizeBytes };
}
