// SPDX-License-Identifier: Apache-2.0
//
// Goal: whole clusters - real agents, native engines - come through random faults, and a seed names a run exactly.
// Method: a few random runs, each twice; scripts/sim.sh and dist/src/sim/main.js run more of them.

import { describe, expect, it } from 'vitest';
import { ClusterSim, plainShape } from './cluster-sim.js';
import { run } from './run.js';

describe('a random run', () => {
  for (const seed of [1n, 2n, 5n, 11n]) {
    it(`of seed ${seed} passes, twice with the same trace`, { timeout: 120_000 }, async () => {
      const first = await run({ seed });
      expect(first, first.explanation).toMatchObject({ failure: 'none' });
      const second = await run({ seed });
      expect(second.trace).toBe(first.trace);
      expect(second.history).toBe(first.history);
    });
  }
});

describe('a simulated cluster', () => {
  it('fails over to the standby when the active controller is killed, and loses no acknowledged write', async () => {
    const cluster = new ClusterSim(1n, plainShape);
    await cluster.start();
    cluster.startWorkload({
      writers: 2,
      readers: 0,
      readChance: 0.5,
      flushChance: 0,
      blocksMax: 2,
      thinkMaxMs: 5,
      blocksOwn: 64,
    });
    await cluster.runFor(300);
    expect(cluster.view.controller).toBe('c1');
    cluster.process('c1').kill();
    expect(await cluster.runUntil(() => cluster.view.controller === 'c2' && cluster.redundant, 5_000)).toBe(true);
    const before = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(before + 20);
    cluster.process('c1').start();
    cluster.stopWorkload();
    expect(await cluster.runUntil(() => cluster.history.pending === 0, 5_000)).toBe(true);
    expect(cluster.history.violation).toBeNull();
    expect(cluster.monitor.violation).toBeNull();
    cluster.close();
  });

  it('goes on writing while the store is away, and shrinks only when it is back', async () => {
    const cluster = new ClusterSim(2n, { ...plainShape, disks: 3, copies: 3 });
    await cluster.start();
    cluster.startWorkload({
      writers: 2,
      readers: 0,
      readChance: 0.3,
      flushChance: 0,
      blocksMax: 1,
      thinkMaxMs: 5,
      blocksOwn: 64,
    });
    cluster.server.down = true;
    await cluster.runFor(4_000);
    const before = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(before + 20);
    cluster.process('d2').kill();
    await cluster.runFor(3_000);
    const parked = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBe(parked);
    expect(cluster.monitor.shrinks).toBe(0);
    cluster.server.rise();
    expect(await cluster.runUntil(() => cluster.monitor.shrinks === 1, 5_000)).toBe(true);
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(parked);
    expect(cluster.history.violation).toBeNull();
    cluster.close();
  });
});
