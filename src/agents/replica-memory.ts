// SPDX-License-Identifier: Apache-2.0
//
// What a disk node remembers of its engine and of its last plan, so that a change of one volume costs what that volume
// costs: with thousands of replicas, asking the engine for all of them at each change is most of what the node does.
//
// Invariants:  - what is remembered of the engine is what it answered, and what this process had it do since
//              - whatever is more than new replicas, and replicas whose report or hosts changed, calls for a whole look
//              - nothing is remembered beyond a failure

import type { DesiredReplica, DiskAction, ObservedDiskNode, ObservedSubsystem } from '../reconcile/disk-node.js';
import { lvolPath } from '../reconcile/disk-node.js';

/** What there is to plan. */
export interface Look {
  readonly desired: readonly DesiredReplica[];
  readonly observed: ObservedDiskNode;
}

export class ReplicaMemory {
  readonly #lvols: Map<string, number>;
  readonly #subsystems: Map<string, ObservedSubsystem>;
  /** By replica, as it was wanted when it was planned last. */
  #planned = new Map<string, DesiredReplica>();

  /** As the engine answered. */
  constructor(observed: ObservedDiskNode) {
    this.#lvols = new Map(observed.lvols);
    this.#subsystems = new Map(observed.subsystems.map((subsystem) => [subsystem.replica, subsystem]));
  }

  /** Only what changed since it was planned; null: the engine has to be asked. */
  changes(desired: readonly DesiredReplica[]): Look | null {
    const changed: DesiredReplica[] = [];
    let known = 0;
    for (const replica of desired) {
      const before = this.#planned.get(replica.replica);
      if (before !== undefined) known += 1;
      if (before !== undefined && isSame(before, replica)) continue;
      if (replica.source !== undefined || replica.deleteEpoch !== null) return null;
      changed.push(replica);
    }
    // One of them is wanted no more.
    if (known < this.#planned.size) return null;
    const subsystems = changed.flatMap(({ replica }) => this.#subsystems.get(replica) ?? []);
    return { desired: changed, observed: { lvols: this.#lvols, subsystems } };
  }

  planned(desired: readonly DesiredReplica[]): void {
    this.#planned = new Map(desired.map((replica) => [replica.replica, replica]));
  }

  /** It was carried out. */
  note(action: DiskAction): void {
    switch (action.do) {
      case 'create-lvol':
      case 'clone-lvol':
      case 'grow-lvol':
        this.#lvols.set(lvolPath(action.replica), action.replica.sizeBytes);
        return;
      case 'delete-lvol':
        this.#lvols.delete(lvolPath(action.replica));
        return;
      case 'create-subsystem':
        this.#change(action.replica.replica, {});
        return;
      case 'add-namespace':
        this.#change(action.replica.replica, { hasNamespace: true });
        return;
      case 'add-listener':
        this.#change(action.replica.replica, { hasListener: true });
        return;
      case 'add-host':
        this.#change(action.replica, { hosts: [...this.#subsystem(action.replica).hosts, action.host] });
        return;
      case 'remove-host': {
        const hosts = this.#subsystem(action.replica).hosts.filter((host) => host !== action.host);
        this.#change(action.replica, { hosts });
        return;
      }
      case 'delete-subsystem':
        this.#subsystems.delete(action.replica);
        return;
      case 'report':
      case 'forget':
        return;
    }
  }

  #subsystem(replica: string): ObservedSubsystem {
    return this.#subsystems.get(replica) ?? { replica, hosts: [], hasNamespace: false, hasListener: false };
  }

  #change(replica: string, to: Partial<ObservedSubsystem>): void {
    this.#subsystems.set(replica, { ...this.#subsystem(replica), ...to });
  }
}

/** But for the epoch, which no plan depends on: it only says under what changes are made. */
function isSame(a: DesiredReplica, b: DesiredReplica): boolean {
  if (a === b) return true;
  return (
    a.source === b.source &&
    a.counted === b.counted &&
    a.lvstore === b.lvstore &&
    a.sizeBytes === b.sizeBytes &&
    a.deleteEpoch === b.deleteEpoch &&
    a.reported === b.reported &&
    a.reportedBytes === b.reportedBytes &&
    a.reportedProblem === b.reportedProblem &&
    a.hosts.length === b.hosts.length &&
    a.hosts.every((host, index) => host === b.hosts[index])
  );
}
