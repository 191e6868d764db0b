// SPDX-License-Identifier: Apache-2.0
//
// Goal: a controller that fails soon after the last failure is missed as soon as any other one, not when its lease runs out.
// Method: virtual time; leases of nodes that are far longer than anything may take.

import { describe, expect, it } from 'vitest';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';

const shape: ClusterShape = { ...plainShape, leaseTtlSeconds: 60 };
const mix = { writers: 2, readers: 0, readChance: 0.3, flushChance: 0, blocksMax: 1, thinkMaxMs: 20, blocksOwn: 16 };

class PeersRun {
  readonly cluster: ClusterSim;

  constructor(seed: bigint) {
    this.cluster = new ClusterSim(seed, shape);
  }

  async start(): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload(mix);
    // The controllers meet.
    await this.cluster.runFor(500);
  }

  get holder(): string {
    return this.cluster.view.controller ?? '';
  }

  /** From everybody, the store included. */
  cutOff(name: string): () => void {
    const { cluster } = this;
    const others = [...cluster.processes.keys(), ...cluster.hosts.map((host) => host.name)].filter(
      (one) => one !== name,
    );
    for (const other of others) {
      cluster.world.partition(name, other);
      cluster.world.partition(other, name);
    }
    cluster.server.cutTo.add(name);
    cluster.server.cutFrom.add(name);
    return () => {
      for (const other of others) cluster.world.heal(name, other);
      cluster.server.healClient(name);
    };
  }

  async heldBy(name: string, limitMs: number): Promise<boolean> {
    return this.cluster.runUntil(
      () =>
        this.cluster.view.paths.some((path) => path.node === name && path.state === 'active') && this.holder === name,
      limitMs,
    );
  }

  async end(): Promise<void> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    expect(await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 120_000)).toBe(true);
    expect(cluster.violation).toBeNull();
    cluster.close();
  }
}

describe('a controller', { timeout: 300_000 }, () => {
  it('that is cut off is replaced in time, again and again', async () => {
    const run = new PeersRun(21n);
    await run.start();
    for (let round = 0; round < 6; round++) {
      const before = run.holder;
      const next = before === 'c1' ? 'c2' : 'c1';
      const heal = run.cutOff(before);
      expect(await run.heldBy(next, 2_000), `round ${round}`).toBe(true);
      await run.cluster.runFor(1_000 * (round % 3));
      heal();
      // One of the two stands by and is the one that has to find out. After a short cut it may be either: who was cut off
      // may miss the other one when it has heard already that it was followed.
      const standsBy = (): boolean => {
        const states = run.cluster.view.paths.map((path) => path.state).sort();
        return states.join(' ') === 'active standby';
      };
      expect(await run.cluster.runUntil(standsBy, 30_000), `round ${round}`).toBe(true);
      await run.cluster.runFor(300);
    }
    await run.end();
  });

  it('that dies right after it took a volume is replaced before its lease runs out', async () => {
    const run = new PeersRun(22n);
    await run.start();
    const first = run.holder;
    const second = first === 'c1' ? 'c2' : 'c1';
    // They lose each other, and nothing else: the second one takes the volume.
    run.cluster.world.partition(first, second);
    run.cluster.world.partition(second, first);
    expect(await run.heldBy(second, 10_000)).toBe(true);
    await run.cluster.runFor(100);
    run.cluster.process(second).kill();
    run.cluster.world.heal(first, second);
    expect(await run.heldBy(first, 3_000)).toBe(true);
    run.cluster.process(second).start();
    await run.end();
  });

  it('that cannot be reached, but drives the volume, is left alone', async () => {
    const run = new PeersRun(23n);
    await run.start();
    const first = run.holder;
    const second = first === 'c1' ? 'c2' : 'c1';
    run.cluster.world.partition(first, second);
    run.cluster.world.partition(second, first);
    expect(await run.heldBy(second, 10_000)).toBe(true);
    // It goes to and fro until each has used up what counts: one of them missed the other, and three refusals on either side.
    await run.cluster.runFor(1_000);
    const { epoch } = run.cluster.view;
    expect(epoch).toBeLessThanOrEqual(1 + 1 + 2 * 3);
    await run.cluster.runFor(24_000);
    expect(run.cluster.view.epoch).toBe(epoch);
    await run.end();
  });
});
