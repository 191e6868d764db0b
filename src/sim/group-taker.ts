// SPDX-License-Identifier: Apache-2.0
//
// Somebody who makes snapshots of two volumes of one instant while everything else goes wrong, and reads them afterwards,
// each through a volume that is made of it.
//
// Rules:  - a group is one instant over both volumes between its asking and its being made (judgeCut)
//         - never is one of its snapshots there while another is not
//         - requests are held for a bounded time

import { createGroup } from '../api/snapshot-groups.js';
import { cloneSnapshot } from '../api/snapshots.js';
import { attachVolume } from '../api/volumes.js';
import type { ClusterState } from '../model/cluster-state.js';
import { membersOf } from '../reconcile/snapshot-groups.js';
import { longHoldMs } from '../reconcile/snapshots.js';
import { askUntilAnswered } from './asking.js';
import type { ClusterSim } from './cluster-sim.js';
import { type History, judgeCut } from './history.js';
import { SimHost } from './sim-host.js';
import type { BlockValue } from './stamp.js';

const pollMs = 20;

interface Taken {
  readonly name: string;
  readonly askedNs: number;
  madeNs: number;
}

export class GroupTaker {
  readonly #cluster: ClusterSim;
  readonly #taken: Taken[] = [];
  #pending = 0;
  #violation: string | null = null;

  constructor(cluster: ClusterSim) {
    this.#cluster = cluster;
  }

  /** Asks for one. */
  make(): string {
    const cluster = this.#cluster;
    const taken = { name: `g${this.#taken.length + 1}`, askedNs: cluster.nowNs, madeNs: Number.POSITIVE_INFINITY };
    this.#taken.push(taken);
    this.#pending++;
    const request = { name: taken.name, volumes: this.#volumes().map(({ volume }) => volume) };
    void askUntilAnswered(cluster.server.clock, {}, async () => {
      await createGroup(cluster.admin, cluster.server.clock, request);
    }).then(() => {
      this.#pending--;
    });
    return taken.name;
  }

  /** What was seen to be wrong until now. To be asked often. */
  violation(state: ClusterState): string | null {
    for (const group of state.all('snapshotGroups')) {
      const members = membersOf(state, group);
      const ready = members.filter(({ value }) => value.phase === 'ready');
      const isThere = group.phase === 'ready';
      if (ready.length > 0 && (!isThere || ready.length < group.members.length))
        this.#violation ??= `group ${group.name} is ${group.phase}, and ${ready.length} of its snapshots are there`;
      const heldUs = Math.max(0, ...ready.map(({ value }) => value.heldUs ?? 0));
      // The engine's clock goes on while it lets go.
      if (heldUs > (longHoldMs + 5) * 1000) this.#violation ??= `group ${group.name} held requests for ${heldUs} us`;
      const taken = this.#taken.find(({ name }) => name === group.name);
      if (isThere && taken !== undefined && taken.madeNs === Number.POSITIVE_INFINITY)
        taken.madeNs = this.#cluster.nowNs;
    }
    return this.#violation;
  }

  /** Every group that was asked for is made, or has failed. */
  isOver(state: ClusterState): boolean {
    const groups = state.all('snapshotGroups');
    return this.#pending === 0 && groups.every(({ phase }) => phase === 'ready' || phase === 'failed');
  }

  /** What is wrong with one of them, or null: makes volumes of them, and reads those. */
  async judge(): Promise<string | null> {
    for (const taken of this.#taken) {
      if (taken.madeNs === Number.POSITIVE_INFINITY) continue;
      const read = await Promise.all(
        this.#volumes().map(async ({ volume, history }) => ({ history, passes: await this.#read(volume, taken.name) })),
      );
      const passes = Math.min(...read.map((each) => each.passes.length));
      for (let pass = 0; pass < passes; pass++) {
        const problem = judgeCut(
          taken,
          read.map((each) => ({ history: each.history, values: each.passes[pass] ?? [] })),
        );
        if (problem !== null) return `group ${taken.name}: ${problem}`;
      }
    }
    return null;
  }

  #volumes(): { volume: string; history: History }[] {
    const { volumeName, history, twin } = this.#cluster;
    if (twin === null) throw new Error('the cluster has one volume');
    return [{ volume: volumeName, history }, twin];
  }

  async #read(volume: string, snapshot: string): Promise<BlockValue[][]> {
    const cluster = this.#cluster;
    const { clock } = cluster.server;
    const name = `${volume}-${snapshot}`;
    const controllers = cluster.state.volumeByName(volume)?.controllers ?? [];
    const done = (act: () => Promise<unknown>): Promise<unknown> =>
      askUntilAnswered(clock, {}, async () => {
        await act();
      });
    await done(() => cloneSnapshot(cluster.admin, { volume, snapshot, request: { name, controllers } }));
    await done(() => attachVolume(cluster.admin, name, { host: SimHost.nqn(cluster.hosts[0]?.name ?? '') }));
    const isServed = (): boolean => {
      const { state } = cluster;
      return state.get('leaderships', state.volumeByName(name)?.id ?? '')?.controller != null;
    };
    while (!isServed()) await clock.sleep(pollMs);
    const made = cluster.state.volumeByName(name);
    if (made === null) throw new Error(`volume ${name} is gone`);
    return cluster.readVolume(made, cluster.shape.copies + 1);
  }
}
