// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DesiredReplica, type DiskAction, lvolPath, type ObservedDiskNode, planDiskNode } from './disk-node.js';

/** A disk node that does exactly what it is told. */
class Model {
  lvols = new Map<string, number>();
  subsystems = new Map<string, { hosts: string[]; hasNamespace: boolean; hasListener: boolean }>();
  readonly #desired: Map<string, DesiredReplica>;

  constructor(desired: readonly DesiredReplica[]) {
    this.#desired = new Map(desired.map((entry) => [entry.replica, entry]));
  }

  get desired(): DesiredReplica[] {
    return [...this.#desired.values()];
  }

  get observed(): ObservedDiskNode {
    return { lvols: this.lvols, subsystems: [...this.subsystems].map(([replica, entry]) => ({ replica, ...entry })) };
  }

  apply(action: DiskAction): void {
    const replica = typeof action.replica === 'string' ? action.replica : action.replica.replica;
    const subsystem = this.subsystems.get(replica);
    const need = (): NonNullable<typeof subsystem> => {
      if (subsystem === undefined) throw new Error(`${action.do} without a subsystem`);
      return subsystem;
    };
    switch (action.do) {
      case 'create-lvol':
      case 'clone-lvol':
        expect(action.replica.reported).toBeNull();
        this.lvols.set(lvolPath(action.replica), action.replica.sizeBytes);
        return;
      case 'grow-lvol':
        expect(this.lvols.get(lvolPath(action.replica))).toBeLessThan(action.replica.sizeBytes);
        this.lvols.set(lvolPath(action.replica), action.replica.sizeBytes);
        return;
      case 'report':
        this.#desired.set(replica, {
          ...action.replica,
          reported: action.state,
          reportedBytes: action.replica.sizeBytes,
          reportedProblem: null,
        });
        return;
      case 'create-subsystem':
        expect(subsystem).toBeUndefined();
        this.subsystems.set(replica, { hosts: [], hasNamespace: false, hasListener: false });
        return;
      case 'add-namespace':
        expect(this.lvols.has(lvolPath(action.replica))).toBe(true);
        need().hasNamespace = true;
        return;
      case 'add-listener':
        expect(need().hasNamespace).toBe(true);
        need().hasListener = true;
        return;
      case 'add-host':
        need().hosts.push(action.host);
        return;
      case 'remove-host':
        need().hosts = need().hosts.filter((host) => host !== action.host);
        return;
      case 'delete-subsystem':
        this.subsystems.delete(replica);
        return;
      case 'delete-lvol':
        expect(this.subsystems.has(replica)).toBe(false);
        this.lvols.delete(lvolPath(action.replica));
        return;
      case 'forget':
        this.#desired.delete(replica);
        return;
    }
  }
}

const desiredReplica = fc.record({
  replica: fc.constantFrom('r1', 'r2', 'r3', 'r4'),
  volumeId: fc.constant('v'),
  leg: fc.constant(0),
  lvstore: fc.constantFrom('s1', 's2'),
  disk: fc.constant('d'),
  sizeBytes: fc.constantFrom(2 ** 20, 2 ** 21),
  epoch: fc.constant(3),
  hosts: fc.uniqueArray(fc.constantFrom('h1', 'h2', 'h3')),
  deleteEpoch: fc.constantFrom(null, null, 7),
  reported: fc.constantFrom<DesiredReplica['reported'][]>(null, 'ready'),
  reportedBytes: fc.constantFrom(2 ** 20, 2 ** 21),
  reportedProblem: fc.constantFrom(null, null, 'no space'),
});
const desired = fc.uniqueArray(desiredReplica, { selector: (entry) => entry.replica });

describe('plan of a disk node', () => {
  it('reaches what is wanted from any beginning, in order, and then has nothing to do', () => {
    const beginning = fc.record({
      lvols: fc.subarray(['s1/r1', 's1/r2', 's2/r3', 's2/r4']),
      subsystems: fc.subarray(['r1', 'r2', 'r3', 'r9']),
      hosts: fc.subarray(['h1', 'h4']),
    });
    fc.assert(
      fc.property(desired, beginning, (wanted, from) => {
        const model = new Model(wanted);
        model.lvols = new Map(from.lvols.map((path) => [path, 2 ** 20]));
        for (const replica of from.subsystems) {
          model.subsystems.set(replica, { hosts: [...from.hosts], hasNamespace: true, hasListener: true });
        }
        for (const action of planDiskNode(model.desired, model.observed)) model.apply(action);
        expect(planDiskNode(model.desired, model.observed)).toEqual([]);
        for (const replica of model.desired.filter((entry) => entry.reported === 'ready')) {
          expect(model.subsystems.get(replica.replica)).toMatchObject({ hasNamespace: true, hasListener: true });
          expect(model.lvols.get(lvolPath(replica))).toBeGreaterThanOrEqual(replica.sizeBytes);
          expect([...(model.subsystems.get(replica.replica)?.hosts ?? [])].sort()).toEqual([...replica.hosts].sort());
        }
      }),
    );
  });

  const small: DesiredReplica = {
    replica: 'r1',
    volumeId: 'v',
    leg: 0,
    lvstore: 's1',
    disk: 'd',
    sizeBytes: 2 ** 21,
    epoch: 3,
    hosts: [],
    deleteEpoch: null,
    reported: 'ready',
    reportedBytes: 2 ** 20,
    reportedProblem: null,
  };

  it('grows an lvol that is smaller than its volume calls for, and never makes one smaller', () => {
    const subsystems = [{ replica: 'r1', hosts: [], hasNamespace: true, hasListener: true }];
    const at = (bytes: number): DiskAction['do'][] =>
      planDiskNode([small], { lvols: new Map([['s1/r1', bytes]]), subsystems }).map((action) => action.do);
    expect(at(2 ** 20)).toEqual(['grow-lvol', 'report']);
    expect(at(2 ** 21)).toEqual(['report']);
    expect(at(2 ** 22)).toEqual(['report']);
    const told = { ...small, reportedBytes: 2 ** 21 };
    expect(planDiskNode([told], { lvols: new Map([['s1/r1', 2 ** 22]]), subsystems })).toEqual([]);
    const complaining = { ...told, reportedProblem: 'no space' };
    expect(planDiskNode([complaining], { lvols: new Map([['s1/r1', 2 ** 22]]), subsystems })).toHaveLength(1);
  });

  it('reports a replica whose lvol is gone, instead of making an empty one', () => {
    const replica = small;
    const plan = planDiskNode([replica], { lvols: new Map(), subsystems: [] });
    expect(plan).toEqual([{ do: 'report', replica, state: 'missing' }]);
    expect(planDiskNode([{ ...replica, reported: 'missing' }], { lvols: new Map(), subsystems: [] })).toEqual([]);
  });

  it('leaves lvols alone that belong to nothing it knows', () => {
    expect(planDiskNode([], { lvols: new Map([['s1/unknown', 2 ** 20]]), subsystems: [] })).toEqual([]);
  });
});
