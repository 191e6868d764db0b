// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DesiredReplica, type DiskAction, lvolPath, type ObservedDiskNode, planDiskNode } from './disk-node.js';

/** A disk node that does exactly what it is told. */
class Model {
  lvols = new Set<string>();
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
        expect(action.replica.reported).toBeNull();
        this.lvols.add(lvolPath(action.replica));
        return;
      case 'report':
        this.#desired.set(replica, { ...action.replica, reported: action.state });
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
  sizeBytes: fc.constant(2 ** 20),
  hosts: fc.uniqueArray(fc.constantFrom('h1', 'h2', 'h3')),
  deleteEpoch: fc.constantFrom(null, null, 7),
  reported: fc.constantFrom<DesiredReplica['reported'][]>(null, 'ready'),
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
        model.lvols = new Set(from.lvols);
        for (const replica of from.subsystems) {
          model.subsystems.set(replica, { hosts: [...from.hosts], hasNamespace: true, hasListener: true });
        }
        for (const action of planDiskNode(model.desired, model.observed)) model.apply(action);
        expect(planDiskNode(model.desired, model.observed)).toEqual([]);
        for (const replica of model.desired.filter((entry) => entry.reported === 'ready')) {
          expect(model.subsystems.get(replica.replica)).toMatchObject({ hasNamespace: true, hasListener: true });
          expect([...(model.subsystems.get(replica.replica)?.hosts ?? [])].sort()).toEqual([...replica.hosts].sort());
        }
      }),
    );
  });

  it('reports a replica whose lvol is gone, instead of making an empty one', () => {
    const replica: DesiredReplica = {
      replica: 'r1',
      volumeId: 'v',
      leg: 0,
      lvstore: 's1',
      disk: 'd',
      sizeBytes: 2 ** 20,
      hosts: [],
      deleteEpoch: null,
      reported: 'ready',
    };
    const plan = planDiskNode([replica], { lvols: new Set(), subsystems: [] });
    expect(plan).toEqual([{ do: 'report', replica, state: 'missing' }]);
    expect(planDiskNode([{ ...replica, reported: 'missing' }], { lvols: new Set(), subsystems: [] })).toEqual([]);
  });

  it('leaves lvols alone that belong to nothing it knows', () => {
    expect(planDiskNode([], { lvols: new Set(['s1/unknown']), subsystems: [] })).toEqual([]);
  });
});
