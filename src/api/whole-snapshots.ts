// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of volumes with several active controllers (decision 020): of each part one, cut as a group of one instant
// (decision 014) that belongs to the volume alone, or that users made. The first part's stands for all of them.
//
// Invariants:  - either every part has a snapshot of that name and instant, or none has
//              - a volume that is made of one has as many parts, each of which begins as one of those snapshots

import type { CloneRequest } from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import { asPart, firstFrontLeadership } from '../reconcile/parts.js';
import { groupOf, membersOf } from '../reconcile/snapshot-groups.js';
import type { Txn } from '../store/store.js';
import { assertCuttable, drawGroup, groupAgain, groupDeletion, partsOf, type SnapshotDeps } from './snapshot-drafts.js';

/** The snapshots of which this one is the first, in the order of the parts. */
export function wholeMembers(
  state: ClusterState,
  volume: VolumeObject,
  first: SnapshotObject,
): Stored<SnapshotObject>[] {
  const group = groupOf(state, first);
  const members = group === null ? [] : membersOf(state, group.value);
  return (volume.parts ?? []).flatMap((part) => members.filter(({ value }) => value.volumeId === part));
}

export function createWholeSnapshot(
  deps: SnapshotDeps,
  state: ClusterState,
  at: { stored: Stored<VolumeObject>; existing: Stored<SnapshotObject> | null; name: string; atMs: number },
): { txn: Txn; result: { made: boolean; id: string } } {
  const { stored, existing, name, atMs } = at;
  const volumes = partsOf(state, stored.value);
  for (const { value } of volumes) assertCuttable(state, value);
  if (existing !== null) {
    const txn = groupAgain(state, ownGroup(state, stored.value, existing.value));
    return { txn, result: { made: true, id: existing.value.id } };
  }
  const { txn, ids } = drawGroup(deps, state, { name, of: stored.value.id, volumes, atMs });
  const conditions = [...txn.conditions, { key: stored.key, modRevision: stored.revision }];
  return { txn: { ...txn, conditions }, result: { made: true, id: ids[0] ?? '' } };
}

export function deleteWholeSnapshot(
  state: ClusterState,
  at: { volume: VolumeObject; first: SnapshotObject; placementRevision: number },
): Txn {
  const { volume, first, placementRevision } = at;
  const name = `${volume.name}@${first.name}`;
  return groupDeletion(state, { stored: ownGroup(state, volume, first), placementRevision, name });
}

/** @throws BUSY when it was made with others: it is made again and deleted with them */
function ownGroup(state: ClusterState, volume: VolumeObject, first: SnapshotObject): Stored<SnapshotGroupObject> {
  const group = groupOf(state, first);
  if (group?.value.of === volume.id) return group;
  const detail = `it belongs to the group of snapshots ${first.group?.name}`;
  throw new BasaltError('BUSY', { kind: 'snapshot', name: `${volume.name}@${first.name}`, detail });
}

/** A volume that begins as one snapshot, in a cluster that looks like this, and what its first controller takes over. */
export type DrawClone = (
  state: ClusterState,
  of: { volume: VolumeObject; snapshot: SnapshotObject },
) => { volume: VolumeObject; leadership: Leadership };

export interface DrawnWhole {
  readonly volume: VolumeObject;
  readonly parts: readonly { volume: VolumeObject; leadership: Leadership }[];
  readonly fronts: readonly Leadership[];
}

/** @throws INVALID_ARGUMENT when there are too few controllers */
export function drawWholeClone(
  deps: SnapshotDeps,
  state: ClusterState,
  of: { volume: VolumeObject; first: SnapshotObject; request: CloneRequest; leaseMs: number; draw: DrawClone },
): DrawnWhole {
  const { volume: source, first, request, draw } = of;
  const members = wholeMembers(state, source, first);
  const origin = { snapshotId: first.id, volume: source.name, snapshot: first.name };
  const id = deps.random.uuid();
  // What one part was promised, the next one does not get.
  const scratch = state.copy();
  const parts = members.map(({ value: snapshot }, index) => {
    const cut = state.get('volumes', snapshot.volumeId);
    if (cut === null) throw new BasaltError('NOT_FOUND', { kind: 'volume', name: snapshot.volumeId });
    const drawn = draw(scratch, { volume: cut, snapshot });
    const named = { ...drawn.volume, origin: { ...origin, snapshotId: snapshot.id } };
    const part = asPart(named, { volumeId: id, name: request.name, index });
    scratch.apply(keys.volume(part.id), codecs.volume.encode(part), 0);
    return { volume: part, leadership: drawn.leadership };
  });
  const ids = parts.map(({ volume }) => volume.id);
  const [drawn] = parts;
  if (drawn === undefined || ids.length !== source.parts?.length)
    throw new BasaltError('NOT_FOUND', { kind: 'snapshot', name: `${source.name}@${first.name}` });
  const controllers = drawn.volume.controllers;
  if (controllers.length < ids.length) {
    const problem = `are ${controllers.length}, and a volume with ${ids.length} active ones needs as many`;
    throw new BasaltError('INVALID_ARGUMENT', { field: 'controllers', problem });
  }
  // One whose cut was taken by an older version, or is not made yet.
  const sizeBytes = wholeBytes(members.map(({ value }) => value));
  if (sizeBytes === null) {
    const detail = 'its size is not known: not all of its parts said so when they were cut';
    throw new BasaltError('BUSY', { kind: 'snapshot', name: `${source.name}@${first.name}`, detail });
  }
  const fronts = ids.map(() => deps.random.uuid());
  const { pool: _, route: __, partOf: ___, ...plain } = drawn.volume;
  const { encryption } = source;
  const volume: VolumeObject = {
    ...plain,
    id,
    name: request.name,
    sizeBytes,
    legs: [],
    ...(encryption === undefined ? {} : { encryption: { ...encryption, drawnFor: encryption.drawnFor ?? source.id } }),
    origin,
    parts: ids,
    fronts,
  };
  return {
    volume,
    parts,
    fronts: fronts.map((front) => firstFrontLeadership(front, { parts: ids, leaseMs: of.leaseMs })),
  };
}

/** How large the volume was: nobody who voted knew more than all parts could hold. Null: they are not made yet. */
export function wholeBytes(members: readonly SnapshotObject[]): number | null {
  const seen = members.flatMap(({ shape }) => shape?.wholeBytes ?? []);
  return seen.length === 0 || seen.length < members.length ? null : Math.min(...seen);
}
