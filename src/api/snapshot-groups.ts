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
import { keys } from '../model/keys.js';
import { refuseMultiActive } from '../model/multi-active.js';
import { codecs, formatVersion, type VolumeObject } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import { unmadeOf } from '../reconcile/clone-source.js';
import { membersOf, planGroupDeletion } from '../reconcile/snapshot-groups.js';
import type { StoreStep } from '../reconcile/store-step.js';
import type { Change, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { readState } from './read-state.js';
import { snapshotView } from './snapshot-views.js';
import { assertRoomForSnapshot, type SnapshotDeps } from './snapshots.js';
import { requireVolume } from './volumes.js';

export function requireGroup(state: ClusterState, name: string): Stored<SnapshotGroupObject> {
  const stored = state.stored('snapshotGroups', name);
  if (stored === null) throw new BasaltError('NOT_FOUND', { kind: 'group of snapshots', name });
  return stored;
}

/** True: asked for now. False: it was there already. One that failed is tried again. */
export function createGroup(
  deps: SnapshotDeps,
  clock: Pick<Clock, 'wallMs'>,
  request: SnapshotGroupCreateRequest,
): Promise<boolean> {
  return attempt<boolean>(deps.store, async ({ state }) => {
    const volumes = request.volumes.map((name) => requireVolume(state, name));
    if (new Set(volumes.map(({ value }) => value.id)).size < volumes.length)
      throw new BasaltError('INVALID_ARGUMENT', { field: 'volumes', problem: 'one of them is named twice' });
    const existing = state.stored('snapshotGroups', request.name);
    if (existing !== null) assertSame(existing.value, request.name, volumes);
    if (existing !== null && existing.value.phase !== 'failed') return { txn: null, result: false };
    for (const { value } of volumes) refuseMultiActive(value, 'a snapshot');
    for (const { value } of volumes) assertCuttable(state, value);
    if (existing !== null) return { txn: again(state, existing), result: true };
    return { txn: draw(deps, state, { name: request.name, volumes, atMs: Math.floor(clock.wallMs()) }), result: true };
  });
}

function assertSame(group: SnapshotGroupObject, name: string, volumes: readonly Stored<VolumeObject>[]): void {
  const ids = (of: readonly string[]): string => [...of].sort().join();
  const same = ids(group.members.map(({ volumeId }) => volumeId)) === ids(volumes.map(({ value }) => value.id));
  if (!same) throw new BasaltError('ALREADY_EXISTS', { kind: 'group of snapshots', name, field: 'name' });
}

function assertCuttable(state: ClusterState, volume: VolumeObject): void {
  if (state.get('leaderships', volume.id)?.controller != null) return;
  const detail = 'no controller serves it: a snapshot is cut by whoever does';
  throw new BasaltError('VOLUME_UNAVAILABLE', { name: volume.name, detail });
}

function draw(
  deps: SnapshotDeps,
  state: ClusterState,
  of: { name: string; volumes: readonly Stored<VolumeObject>[]; atMs: number },
): Txn {
  const { name, volumes, atMs } = of;
  const id = deps.random.uuid();
  const changes: Change[] = [];
  const conditions: { key: string; modRevision: number }[] = [];
  const members = volumes.map(({ key, revision, value: volume }) => {
    if (state.get('snapshotNames', `${volume.id}/${name}`) !== null)
      throw new BasaltError('ALREADY_EXISTS', { kind: 'snapshot', name: `${volume.name}@${name}`, field: 'name' });
    assertRoomForSnapshot(state, volume);
    const snapshotId = deps.random.uuid();
    const snapshot: SnapshotObject = {
      format: formatVersion,
      id: snapshotId,
      name,
      volumeId: volume.id,
      phase: 'wanted',
      createdAtMs: atMs,
      failedCount: 0,
      leftovers: [],
      group: { id, name },
    };
    const nameKey = keys.snapshotName(volume.id, name);
    const nameText = codecs.snapshotName.encode({ format: formatVersion, snapshotId });
    conditions.push({ key, modRevision: revision }, { key: nameKey, modRevision: 0 });
    changes.push(
      { kind: 'put', key: keys.snapshot(snapshotId), value: codecs.snapshot.encode(snapshot) },
      { kind: 'put', key: nameKey, value: nameText },
      // Unchanged, but for its revision: who is about to delete the volume looks again.
      { kind: 'put', key, value: codecs.volume.encode(volume) },
    );
    return { volumeId: volume.id, snapshotId };
  });
  const group: SnapshotGroupObject = {
    format: formatVersion,
    id,
    name,
    phase: 'wanted',
    createdAtMs: atMs,
    failedCount: 0,
    members,
  };
  const key = keys.snapshotGroup(name);
  conditions.push({ key, modRevision: 0 });
  changes.push({ kind: 'put', key, value: codecs.snapshotGroup.encode(group) });
  return { conditions, changes };
}

function again(state: ClusterState, existing: Stored<SnapshotGroupObject>): Txn {
  const { problem: _, ...group } = existing.value;
  const members = membersOf(state, group).map(({ key, revision, value }) => {
    const { problem: __, ...snapshot } = value;
    return { key, revision, text: codecs.snapshot.encode({ ...snapshot, phase: 'wanted', failedCount: 0 }) };
  });
  const text = codecs.snapshotGroup.encode({ ...group, phase: 'wanted', failedCount: 0 });
  const all = [{ key: existing.key, revision: existing.revision, text }, ...members];
  return {
    conditions: all.map(({ key, revision }) => ({ key, modRevision: revision })),
    changes: all.map(({ key, text: value }) => ({ kind: 'put', key, value })),
  };
}

/** Its names are free at once. Volumes that began as one of its snapshots are not affected. */
export function deleteGroup(deps: SnapshotDeps, name: string): Promise<void> {
  return attempt<void>(deps.store, async ({ state, placementRevision }) => {
    const stored = requireGroup(state, name);
    const unmade = stored.value.members.flatMap(({ snapshotId }) => unmadeOf(state, snapshotId));
    if (unmade.length > 0) {
      const detail = `volume ${[...new Set(unmade.map(({ volume }) => volume.name))].join(', ')} is being made of it`;
      throw new BasaltError('BUSY', { kind: 'group of snapshots', name, detail });
    }
    const txn = txnOf(planGroupDeletion(state, stored));
    // Clones change it: none has begun since.
    const placement = { key: keys.placement, modRevision: placementRevision };
    return { txn: { ...txn, conditions: [...txn.conditions, placement] }, result: undefined };
  });
}

function txnOf({ expect, put, remove }: StoreStep): Txn {
  return {
    conditions: expect.map(({ key, revision }) => ({ key, modRevision: revision ?? 0 })),
    changes: [
      ...put.map(({ key, text }): Change => ({ kind: 'put', key, value: text })),
      ...remove.map((key): Change => ({ kind: 'delete', key })),
    ],
  };
}

export async function showGroup(deps: Pick<SnapshotDeps, 'store'>, name: string): Promise<SnapshotGroupView> {
  const { state } = await readState(deps.store);
  return groupView(state, requireGroup(state, name).value);
}

export async function listGroups(deps: Pick<SnapshotDeps, 'store'>): Promise<SnapshotGroupView[]> {
  const { state } = await readState(deps.store);
  return state.all('snapshotGroups').map((group) => groupView(state, group));
}

function groupView(state: ClusterState, group: SnapshotGroupObject): SnapshotGroupView {
  const { id, name, phase, createdAtMs, members } = group;
  const snapshots = members.flatMap(({ snapshotId, volumeId }) => {
    const volume = state.get('volumes', volumeId);
    const snapshot = state.get('snapshots', snapshotId);
    return volume === null || snapshot === null ? [] : [snapshotView(state, volume, snapshot)];
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
