// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of several volumes of one instant: asking for them, showing and deleting them. The volumes' controllers make
// them (src/agents/group-cutter.ts).
//
// Invariants:  - a group comes into the store with all its members, and goes with all of them
//              - the same request twice has the effect of one

import type { Clock } from '../env/clock.js';
import type { SnapshotGroupCreateRequest, SnapshotGroupView } from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { refuseMultiActive } from '../model/multi-active.js';
import type { VolumeObject } from '../model/objects.js';
import { groupMembersMax, type SnapshotGroupObject } from '../model/snapshots.js';
import { attempt } from './attempt.js';
import { readState } from './read-state.js';
import { assertCuttable, drawGroup, groupAgain, groupDeletion, partsOf, type SnapshotDeps } from './snapshot-drafts.js';
import { snapshotView } from './snapshot-views.js';
import { requireVolume } from './volumes.js';

export function requireGroup(state: ClusterState, name: string): Stored<SnapshotGroupObject> {
  const stored = state.stored('snapshotGroups', name);
  if (stored === null || stored.value.of !== undefined)
    throw new BasaltError('NOT_FOUND', { kind: 'group of snapshots', name });
  return stored;
}

/** True: asked for now. False: it was there already. One that failed is tried again. */
export function createGroup(
  deps: SnapshotDeps,
  clock: Pick<Clock, 'wallMs'>,
  request: SnapshotGroupCreateRequest,
): Promise<boolean> {
  return attempt<boolean>(deps.store, async ({ state }) => {
    const volumes = withParts(
      state,
      request.volumes.map((name) => requireVolume(state, name)),
    );
    if (new Set(volumes.map(({ value }) => value.id)).size < volumes.length)
      throw new BasaltError('INVALID_ARGUMENT', { field: 'volumes', problem: 'one of them is named twice' });
    const existing = state.stored('snapshotGroups', request.name);
    if (existing !== null) assertSame(existing.value, request.name, volumes);
    if (existing !== null && existing.value.phase !== 'failed') return { txn: null, result: false };
    for (const { value } of volumes) assertCuttable(state, value);
    if (existing !== null) return { txn: groupAgain(state, existing), result: true };
    const wish = { name: request.name, groupName: request.name, volumes, atMs: Math.floor(clock.wallMs()) };
    return { txn: drawGroup(deps, state, wish).txn, result: true };
  });
}

/** Volumes with several active controllers are cut part by part, all of them under the same holds. */
function withParts(state: ClusterState, volumes: readonly Stored<VolumeObject>[]): Stored<VolumeObject>[] {
  const all = volumes.flatMap((stored) => {
    if (stored.value.partOf !== undefined) refuseMultiActive(stored.value, 'a snapshot of one of its parts');
    return stored.value.parts === undefined ? [stored] : partsOf(state, stored.value);
  });
  if (all.length <= groupMembersMax) return all;
  const problem = `with the parts of those that have several active controllers they are ${all.length}, and the most is ${groupMembersMax}`;
  throw new BasaltError('INVALID_ARGUMENT', { field: 'volumes', problem });
}

function assertSame(group: SnapshotGroupObject, name: string, volumes: readonly Stored<VolumeObject>[]): void {
  const ids = (of: readonly string[]): string => [...of].sort().join();
  const same = ids(group.members.map(({ volumeId }) => volumeId)) === ids(volumes.map(({ value }) => value.id));
  if (!same) throw new BasaltError('ALREADY_EXISTS', { kind: 'group of snapshots', name, field: 'name' });
}

/** Its names are free at once. Volumes that began as one of its snapshots are not affected. */
export function deleteGroup(deps: SnapshotDeps, name: string): Promise<void> {
  return attempt<void>(deps.store, async ({ state, placementRevision }) => {
    const stored = requireGroup(state, name);
    return { txn: groupDeletion(state, { stored, placementRevision, name }), result: undefined };
  });
}

export async function showGroup(deps: Pick<SnapshotDeps, 'store'>, name: string): Promise<SnapshotGroupView> {
  const { state } = await readState(deps.store);
  return groupView(state, requireGroup(state, name).value);
}

export async function listGroups(deps: Pick<SnapshotDeps, 'store'>): Promise<SnapshotGroupView[]> {
  const { state } = await readState(deps.store);
  const groups = state.all('snapshotGroups').filter((group) => group.of === undefined);
  return groups.map((group) => groupView(state, group));
}

function groupView(state: ClusterState, group: SnapshotGroupObject): SnapshotGroupView {
  const { id, name, phase, createdAtMs, members } = group;
  const snapshots = members.flatMap(({ snapshotId, volumeId }) => {
    const cut = state.get('volumes', volumeId);
    const snapshot = state.get('snapshots', snapshotId);
    const volume = cut?.partOf === undefined ? cut : state.get('volumes', cut.partOf);
    // Of a volume with parts once, by the first of them.
    if (volume === null || snapshot === null || (volume.parts !== undefined && volume.parts[0] !== volumeId)) return [];
    return [snapshotView(state, volume, snapshot)];
  });
  const held = snapshots.flatMap(({ heldUs }) => heldUs ?? []);
  const waits = snapshots.find(({ state: now, problem }) => now === 'pending' && problem !== null);
  const waiting = waits === undefined ? null : `${waits.volume}: ${waits.problem}`;
  return {
    id,
    name,
    state: phase === 'ready' || phase === 'failed' ? phase : 'pending',
    createdAtMs,
    heldUs: held.length === 0 ? null : Math.max(...held),
    problem: group.problem ?? waiting,
    snapshots,
  };
}
