// SPDX-License-Identifier: Apache-2.0
//
// What the API shows of snapshots. Pure.

import type { SnapshotView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import type { VolumeObject } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { copyIsUp } from '../reconcile/snapshot-copies.js';
import { copiesUp } from '../reconcile/snapshots.js';

/** Those that are not being deleted, oldest first. */
export function snapshotsOf(state: ClusterState, volumeId: string): SnapshotObject[] {
  return state
    .all('snapshots')
    .filter((snapshot) => snapshot.volumeId === volumeId && snapshot.phase !== 'deleting')
    .sort((a, b) => a.createdAtMs - b.createdAtMs || (a.name < b.name ? -1 : 1));
}

export function clonesOf(state: ClusterState, snapshotId: string): VolumeObject[] {
  return state.all('volumes').filter((volume) => volume.origin?.snapshotId === snapshotId);
}

export function snapshotView(state: ClusterState, volume: VolumeObject, snapshot: SnapshotObject): SnapshotView {
  const ready = snapshot.phase === 'ready';
  const legCount = volume.legs.length;
  const up = copiesUp(snapshot, legCount, (copy) => copyIsUp(state, copy));
  return {
    id: snapshot.id,
    name: snapshot.name,
    volume: volume.name,
    state: ready ? 'ready' : snapshot.phase === 'failed' ? 'failed' : 'pending',
    createdAtMs: snapshot.createdAtMs,
    cutAtMs: ready ? (snapshot.cutAtMs ?? null) : null,
    heldUs: ready ? (snapshot.heldUs ?? null) : null,
    sizeBytes: ready ? (snapshot.shape?.sizeBytes ?? null) : null,
    copiesWanted: volume.erasure === undefined ? volume.copies : volume.erasure.data + volume.erasure.parity,
    copies: ready ? Math.min(...up.map((copies) => copies.length)) : 0,
    legs: copiesUp(snapshot, legCount, () => true).map((copies) =>
      copies.map((copy) => ({
        node: copy.node,
        disk: copy.disk,
        state: copyIsUp(state, copy) ? ('up' as const) : ('down' as const),
      })),
    ),
    clones: clonesOf(state, snapshot.id).map(({ name }) => name),
    group: snapshot.group?.name ?? null,
    problem: waitsFor(state, volume, snapshot) ?? snapshot.problem ?? null,
  };
}

/** What keeps it from being tried now. */
function waitsFor(state: ClusterState, volume: VolumeObject, snapshot: SnapshotObject): string | null {
  if (snapshot.phase !== 'wanted' && snapshot.phase !== 'cutting') return null;
  const holder = state.get('leaderships', volume.id)?.controller ?? null;
  if (holder === null) return 'no controller serves the volume';
  if (state.get('lives', holder) === null) return `controller ${holder} is not up`;
  const active = state.get('observedVolumes', `${volume.id}/${holder}`);
  if (active?.resyncing === true) return 'regions are made equal after a failover';
  return state.get('leaderships', volume.id)?.size?.growing === true ? 'the volume is growing' : null;
}
