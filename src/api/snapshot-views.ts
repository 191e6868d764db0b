// SPDX-License-Identifier: Apache-2.0
//
// What the API shows of snapshots. Pure.

import type { SnapshotView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import type { VolumeObject } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { copyIsUp, nodeOfCopy } from '../reconcile/snapshot-copies.js';
import { groupOf } from '../reconcile/snapshot-groups.js';
import { copiesUp } from '../reconcile/snapshots.js';
import { wholeBytes, wholeMembers } from './whole-snapshots.js';

/** Those that are not being deleted, oldest first. */
export function snapshotsOf(state: ClusterState, volume: VolumeObject): SnapshotObject[] {
  return state
    .all('snapshots')
    .filter((snapshot) => snapshot.volumeId === cutId(volume) && snapshot.phase !== 'deleting')
    .sort((a, b) => a.createdAtMs - b.createdAtMs || (a.name < b.name ? -1 : 1));
}

export function clonesOf(state: ClusterState, snapshotId: string): VolumeObject[] {
  // Parts go with what they are parts of.
  return state.all('volumes').filter(({ origin, partOf }) => origin?.snapshotId === snapshotId && partOf === undefined);
}

/** Of a volume with several active controllers the snapshots of its first part stand for those of all. */
export function cutId(volume: VolumeObject): string {
  return volume.parts?.[0] ?? volume.id;
}

export function snapshotView(state: ClusterState, volume: VolumeObject, snapshot: SnapshotObject): SnapshotView {
  return volume.parts === undefined
    ? plainSnapshotView(state, volume, snapshot)
    : wholeSnapshotView(state, volume, snapshot);
}

/** Parts have the legs in turns, as their volume has. */
function wholeSnapshotView(state: ClusterState, volume: VolumeObject, first: SnapshotObject): SnapshotView {
  const members = wholeMembers(state, volume, first).map(({ value }) => value);
  const views = members.flatMap((member) => {
    const part = state.get('volumes', member.volumeId);
    return part === null ? [] : [plainSnapshotView(state, part, member)];
  });
  const [shown] = views;
  if (shown === undefined) return plainSnapshotView(state, volume, first);
  const legsEach = Math.max(0, ...views.map(({ legs }) => legs.length));
  const ready = views.every((view) => view.state === 'ready');
  const isOwn = groupOf(state, first)?.value.of === volume.id;
  return {
    ...shown,
    volume: volume.name,
    cutAtMs: ready ? Math.max(...views.map((view) => view.cutAtMs ?? 0)) : null,
    heldUs: ready ? Math.max(...views.map((view) => view.heldUs ?? 0)) : null,
    sizeBytes: ready ? wholeBytes(members) : null,
    copies: Math.min(...views.map(({ copies }) => copies)),
    legs: Array.from({ length: legsEach }, (_, leg) => views.flatMap(({ legs }) => legs.slice(leg, leg + 1))).flat(),
    group: isOwn ? null : shown.group,
    problem: views.find(({ problem }) => problem !== null)?.problem ?? null,
  };
}

function plainSnapshotView(state: ClusterState, volume: VolumeObject, snapshot: SnapshotObject): SnapshotView {
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
        node: nodeOfCopy(state, copy),
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
