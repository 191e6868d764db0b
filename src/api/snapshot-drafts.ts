// SPDX-License-Identifier: Apache-2.0
//
// What is put into the store for snapshots of one instant: of several volumes, and of the parts of one that has several
// active controllers (decision 020).
//
// Invariant:  - a group comes into the store with all its members, and goes with all of them

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type VolumeObject } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import { unmadeOf } from '../reconcile/clone-source.js';
import { membersOf, planGroupDeletion } from '../reconcile/snapshot-groups.js';
import type { StoreStep } from '../reconcile/store-step.js';
import type { Change, Txn } from '../store/store.js';
import type { VolumeDeps } from './volumes.js';

/** Of one volume: so many layers an lvol may have below it. */
const snapshotsMax = 64;

export type SnapshotDeps = Pick<VolumeDeps, 'store' | 'random'>;

export interface GroupWish {
  /** Of each snapshot. */
  readonly name: string;
  /** Absent: it is called as its id, and users do not see it. */
  readonly groupName?: string;
  /** The volume with several active controllers that it is one snapshot of. */
  readonly of?: string;
  readonly volumes: readonly Stored<VolumeObject>[];
  readonly atMs: number;
}

/** Of a volume with several active controllers, in their order. */
export function partsOf(state: ClusterState, volume: VolumeObject): Stored<VolumeObject>[] {
  return (volume.parts ?? []).flatMap((id) => state.stored('volumes', id) ?? []);
}

export function assertRoomForSnapshot(state: ClusterState, volume: VolumeObject): void {
  const kept = state.all('snapshots').filter((entry) => entry.volumeId === volume.id && entry.phase !== 'deleting');
  if (kept.length < snapshotsMax) return;
  throw new BasaltError('INVALID_ARGUMENT', {
    field: 'name',
    problem: `${volume.name} has ${snapshotsMax} snapshots, the most there may be`,
  });
}

export function assertCuttable(state: ClusterState, volume: VolumeObject): void {
  if (state.get('leaderships', volume.id)?.controller != null) return;
  const detail = 'no controller serves it: a snapshot is cut by whoever does';
  throw new BasaltError('VOLUME_UNAVAILABLE', { name: volume.name, detail });
}

/** Nobody has begun it yet. */
export function wantedSnapshot(of: { id: string; name: string; volumeId: string; atMs: number }): SnapshotObject {
  const { id, name, volumeId, atMs } = of;
  return {
    format: formatVersion,
    id,
    name,
    volumeId,
    phase: 'wanted',
    createdAtMs: atMs,
    failedCount: 0,
    leftovers: [],
  };
}

export function drawGroup(deps: SnapshotDeps, state: ClusterState, wish: GroupWish): { txn: Txn; ids: string[] } {
  const { name, volumes, atMs } = wish;
  const id = deps.random.uuid();
  const groupName = wish.groupName ?? id;
  const changes: Change[] = [];
  const conditions: { key: string; modRevision: number }[] = [];
  const members = volumes.map(({ key, revision, value: volume }) => {
    if (state.get('snapshotNames', `${volume.id}/${name}`) !== null)
      throw new BasaltError('ALREADY_EXISTS', { kind: 'snapshot', name: `${volume.name}@${name}`, field: 'name' });
    assertRoomForSnapshot(state, volume);
    const snapshotId = deps.random.uuid();
    const alone = wantedSnapshot({ id: snapshotId, name, volumeId: volume.id, atMs });
    const snapshot: SnapshotObject = { ...alone, group: { id, name: groupName } };
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
    name: groupName,
    phase: 'wanted',
    createdAtMs: atMs,
    failedCount: 0,
    members,
    ...(wish.of === undefined ? {} : { of: wish.of }),
  };
  const key = keys.snapshotGroup(groupName);
  conditions.push({ key, modRevision: 0 });
  changes.push({ kind: 'put', key, value: codecs.snapshotGroup.encode(group) });
  return { txn: { conditions, changes }, ids: members.map(({ snapshotId }) => snapshotId) };
}

export function groupAgain(state: ClusterState, existing: Stored<SnapshotGroupObject>): Txn {
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

/** `name`: what users call it. @throws BUSY while a volume that begins as one of its snapshots is still being made */
export function groupDeletion(
  state: ClusterState,
  at: { stored: Stored<SnapshotGroupObject>; placementRevision: number; name: string },
): Txn {
  const { stored, placementRevision, name } = at;
  const unmade = stored.value.members.flatMap(({ snapshotId }) => unmadeOf(state, snapshotId));
  if (unmade.length > 0) {
    const detail = `volume ${[...new Set(unmade.map(({ volume }) => volume.name))].join(', ')} is being made of it`;
    const kind = stored.value.of === undefined ? 'group of snapshots' : 'snapshot';
    throw new BasaltError('BUSY', { kind, name, detail });
  }
  const txn = txnOf(planGroupDeletion(state, stored));
  // Clones change it: none has begun since.
  const placement = { key: keys.placement, modRevision: placementRevision };
  return { ...txn, conditions: [...txn.conditions, placement] };
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
