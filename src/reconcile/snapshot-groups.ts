// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of several volumes of one instant, as pure functions from what the store holds to what it holds next.
//
//   every member is prepared (wanted → cutting) → a round is drawn → each volume holds its requests, cuts, and lets go when
//   it knows that all are held → each controller records that (a vote) → all votes are there: ready, all at once
//
// Invariants:  - a vote says: cut while requests were held, and all others of the round had been held before they went on.
//                So all holds of a round with all votes have one instant in common, and every cut shows that instant
//              - a volume is to be cut in one round at a time
//              - the round, the end of a round, and being ready are one transaction over the group and all its members
//              - who dies, or is late, leaves a round without all votes: it is given up, and nothing of it can become ready

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import { type FailedTry, planDeletion, planReady, planTryFailed, snapshotTriesMax } from './snapshots.js';
import { both, noStep, replace, type StoreStep } from './store-step.js';

/** Null: it is in none, or its group is gone. */
export function groupOf(state: ClusterState, snapshot: SnapshotObject): Stored<SnapshotGroupObject> | null {
  const { group } = snapshot;
  const stored = group === undefined ? null : state.stored('snapshotGroups', group.name);
  return stored?.value.id === group?.id ? stored : null;
}

export function membersOf(state: ClusterState, group: SnapshotGroupObject): Stored<SnapshotObject>[] {
  return group.members.flatMap(({ snapshotId }) => state.stored('snapshots', snapshotId) ?? []);
}

/** Null: not every member is prepared, or a volume is to be cut in another round first: it holds its requests for one at a time. */
export function planRound(state: ClusterState, stored: Stored<SnapshotGroupObject>, round: string): StoreStep | null {
  const { value: group } = stored;
  const members = membersOf(state, group);
  const isWhole = members.length === group.members.length;
  if (group.phase !== 'wanted' || !isWhole || members.some(({ value }) => value.phase !== 'cutting')) return null;
  const others = besideOf(state, group);
  if (others.some(({ value }) => isAwaited(state, { round: value, volumes: group.members }))) return null;
  const { problem: _, ...rest } = group;
  // Of two rounds that are drawn at the same moment one is.
  return both(replaceGroup(stored, { ...rest, phase: 'cutting', round }), unchanged([...members, ...others]));
}

/** One of the volumes has not been cut in that round yet. */
function isAwaited(
  state: ClusterState,
  of: { round: SnapshotGroupObject; volumes: readonly { readonly volumeId: string }[] },
): boolean {
  if (of.round.phase !== 'cutting') return false;
  const ids = new Set(of.volumes.map(({ volumeId }) => volumeId));
  return membersOf(state, of.round).some(({ value }) => ids.has(value.volumeId) && !hasVoted(of.round, value));
}

/** Other groups with one of its volumes. */
function besideOf(state: ClusterState, group: SnapshotGroupObject): Stored<SnapshotGroupObject>[] {
  const mine = new Set(group.members.map(({ volumeId }) => volumeId));
  return state
    .all('snapshotGroups')
    .filter(({ id, phase, members }) => {
      const isOpen = phase === 'wanted' || phase === 'cutting';
      return id !== group.id && isOpen && members.some(({ volumeId }) => mine.has(volumeId));
    })
    .sort((one, other) => Number(other.phase === 'cutting') - Number(one.phase === 'cutting'))
    .slice(0, besideMax)
    .flatMap(({ name }) => state.stored('snapshotGroups', name) ?? []);
}

/** With the members they are what one transaction expects. Rounds that meet nevertheless fail, and are tried again. */
const besideMax = 64;

/** Of one member, in a round: it was cut as the group wants it. */
export function planVote(
  snapshot: SnapshotObject,
  volume: VolumeObject,
  at: { round: string; cutAtMs: number; heldUs: number; wholeBytes?: number },
): SnapshotObject {
  return { ...planReady(snapshot, volume, at), phase: 'cutting', voted: at.round };
}

/** Every volume of the group is held in this round, or was. */
export function allHeld(state: ClusterState, group: SnapshotGroupObject): boolean {
  return group.members.every(
    ({ volumeId }) => state.get('snapshotHolds', `${group.id}/${volumeId}`)?.round === group.round,
  );
}

export function hasVoted(group: SnapshotGroupObject, member: SnapshotObject): boolean {
  return member.phase === 'cutting' && member.voted !== undefined && member.voted === group.round;
}

/** Null: votes are missing. */
export function planGroupReady(state: ClusterState, stored: Stored<SnapshotGroupObject>): StoreStep | null {
  const { value: group } = stored;
  const members = membersOf(state, group);
  const isWhole = members.length === group.members.length;
  if (group.phase !== 'cutting' || !isWhole || !members.every(({ value }) => hasVoted(group, value))) return null;
  const { round: _, problem: __, ...rest } = group;
  const steps = members.map((member) => {
    const { voted: ___, ...ready } = member.value;
    return replaceMember(member, { ...ready, phase: 'ready' });
  });
  return all([replaceGroup(stored, { ...rest, phase: 'ready' }), ...steps, freed(group)]);
}

/** The round is over, for all members; what is hopeless needs none. Null: it is ready, or has failed before. */
export function planGroupFailed(
  state: ClusterState,
  stored: Stored<SnapshotGroupObject>,
  failed: Pick<FailedTry, 'problem' | 'early' | 'hopeless'>,
): StoreStep | null {
  const { value: group } = stored;
  const isBefore = group.phase === 'wanted' && failed.hopeless === true;
  if (group.phase !== 'cutting' && !isBefore) return null;
  const members = membersOf(state, group);
  const failedCount = group.failedCount + (failed.early === true ? 0 : 1);
  const isOver = failed.hopeless === true || failedCount >= snapshotTriesMax || members.length < group.members.length;
  const phase = isOver ? ('failed' as const) : ('wanted' as const);
  const { round: _, ...rest } = group;
  const steps = members.map((member) => {
    const { problem } = failed;
    const unasked = isBefore ? { unasked: true } : {};
    const next = planTryFailed(unvoted(member.value), { problem, early: true, ...unasked });
    return replaceMember(member, { ...next, phase, failedCount });
  });
  const next = { ...rest, phase, failedCount, problem: failed.problem };
  return all([replaceGroup(stored, next), ...steps, freed(group)]);
}

/** Of a member whose group has no round: no disk was asked for it, unless a round was drawn since. It is prepared anew. */
export function planUnprepared(group: Stored<SnapshotGroupObject>, member: Stored<SnapshotObject>): StoreStep {
  const { cut: _, ...rest } = unvoted(member.value);
  return both(unchanged([group]), replaceMember(member, { ...rest, phase: 'wanted' }));
}

/** All of it goes; disk nodes remove what lies on their disks. */
export function planGroupDeletion(state: ClusterState, stored: Stored<SnapshotGroupObject>): StoreStep {
  const { value: group } = stored;
  const gone = { expect: [{ key: stored.key, revision: stored.revision }], put: [], remove: [stored.key] };
  const steps = membersOf(state, group).map((member): StoreStep => {
    const { key, revision, value } = member;
    const next = planDeletion(unvoted(value));
    const name = keys.snapshotName(value.volumeId, value.name);
    const expect = [{ key, revision }];
    if (next === null) return { expect, put: [], remove: [key, name] };
    return { expect, put: [{ key, text: codecs.snapshot.encode(next) }], remove: [name] };
  });
  return all([gone, ...steps, freed(group)]);
}

function unvoted(snapshot: SnapshotObject): SnapshotObject {
  if (snapshot.voted === undefined) return snapshot;
  const { voted: _, shape: __, cutAtMs: ___, heldUs: ____, ...rest } = snapshot;
  return rest;
}

function replaceGroup(stored: Stored<SnapshotGroupObject>, next: SnapshotGroupObject): StoreStep {
  return replace(stored, codecs.snapshotGroup.encode(next));
}

function replaceMember(stored: Stored<SnapshotObject>, next: SnapshotObject): StoreStep {
  return replace(stored, codecs.snapshot.encode(next));
}

function unchanged(members: readonly Stored<unknown>[]): StoreStep {
  return { ...noStep, expect: members.map(({ key, revision }) => ({ key, revision })) };
}

/** What was announced in its rounds, also by those whose word has not come here yet: nobody would remove it later. */
function freed(group: SnapshotGroupObject): StoreStep {
  return { ...noStep, remove: group.members.map(({ volumeId }) => keys.snapshotHold(group.id, volumeId)) };
}

function all(steps: readonly StoreStep[]): StoreStep {
  return steps.reduce(both, noStep);
}
