// SPDX-License-Identifier: Apache-2.0
//
// Goal: a disk node plans what changed, and the same as if it had looked at everything. Method: a pretend engine that
// carries plans out, looked at whole and by memory.

import { describe, expect, it } from 'vitest';
import { type DesiredReplica, type DiskAction, type ObservedDiskNode, planDiskNode } from '../reconcile/disk-node.js';
import { ReplicaMemory } from './replica-memory.js';

const count = 1_000;
const empty: ObservedDiskNode = { lvols: new Map(), subsystems: [] };

function replica(index: number, with_: Partial<DesiredReplica> = {}): DesiredReplica {
  return {
    replica: `r${index}`,
    volumeId: `v${index}`,
    leg: 0,
    lvstore: 'store',
    disk: 'd',
    sizeBytes: 2 ** 20,
    epoch: 0,
    hosts: ['c1', 'c2'],
    deleteEpoch: null,
    reported: null,
    reportedBytes: 2 ** 20,
    reportedProblem: null,
    ...with_,
  };
}

const reported = { reported: 'ready' as const };

function carryOut(memory: ReplicaMemory, actions: readonly DiskAction[]): void {
  for (const action of actions) memory.note(action);
}

/** All of them are made, exported and reported. */
function settled(): { memory: ReplicaMemory; desired: DesiredReplica[] } {
  const memory = new ReplicaMemory(empty);
  carryOut(
    memory,
    planDiskNode(
      Array.from({ length: count }, (_, index) => replica(index)),
      empty,
    ),
  );
  const desired = Array.from({ length: count }, (_, index) => replica(index, reported));
  memory.planned(desired);
  return { memory, desired };
}

function actionsFor(memory: ReplicaMemory, desired: readonly DesiredReplica[]): DiskAction[] {
  const look = memory.changes(desired);
  if (look === null) throw new Error('the engine would have to be asked for everything');
  return planDiskNode(look.desired, look.observed);
}

describe('the memory of a disk node', () => {
  it('has one replica planned when one is made among a thousand', () => {
    const { memory, desired } = settled();
    const look = memory.changes([...desired, replica(count)]);
    expect(look?.desired.map((each) => each.replica)).toEqual([`r${count}`]);
    expect(look?.observed.subsystems).toHaveLength(0);
    const actions = planDiskNode(look?.desired ?? [], look?.observed ?? empty);
    expect(actions).toEqual(planDiskNode([replica(count)], empty));
  });

  it('has nothing planned when nothing changed, nor for another epoch', () => {
    const { memory, desired } = settled();
    expect(memory.changes(desired)?.desired).toEqual([]);
    expect(memory.changes(desired.map((each) => ({ ...each, epoch: 7 })))?.desired).toEqual([]);
  });

  it('knows what was made: once it is reported, nothing is left to do', () => {
    const { memory, desired } = settled();
    const made = [...desired, replica(count)];
    carryOut(memory, actionsFor(memory, made));
    memory.planned(made);
    expect(actionsFor(memory, [...desired, replica(count, reported)])).toEqual([]);
  });

  it('follows hosts that come and go, and replicas that grow', () => {
    const { memory, desired } = settled();
    const [first, second, ...rest] = desired;
    const changed = [
      { ...(first as DesiredReplica), hosts: ['c2', 'c3'] },
      { ...(second as DesiredReplica), sizeBytes: 2 ** 21 },
      ...rest,
    ];
    const actions = actionsFor(memory, changed);
    expect(actions.map((action) => action.do)).toEqual(['add-host', 'remove-host', 'grow-lvol', 'report']);
    carryOut(memory, actions);
    memory.planned(changed);
    const told = changed.map((each) => ({ ...each, reportedBytes: each.sizeBytes }));
    expect(actionsFor(memory, told)).toEqual([]);
  });

  it.each([
    ['is deleted', (desired: DesiredReplica[]) => [replica(0, { ...reported, deleteEpoch: 3 }), ...desired.slice(1)]],
    ['is wanted no more', (desired: DesiredReplica[]) => desired.slice(1)],
    ['makes room for another', (desired: DesiredReplica[]) => [replica(count), ...desired.slice(1)]],
    ['begins as a clone', (desired: DesiredReplica[]) => [...desired, replica(count, { source: 's' })]],
  ])('has the engine asked for everything when a replica %s', (_, change) => {
    const { memory, desired } = settled();
    expect(memory.changes(change(desired))).toBeNull();
  });

  it('begins without plans: everything is looked at', () => {
    const memory = new ReplicaMemory({ lvols: new Map([['store/r0', 2 ** 20]]), subsystems: [] });
    const actions = actionsFor(memory, [replica(0)]);
    expect(actions.map((action) => action.do)).not.toContain('create-lvol');
  });
});
