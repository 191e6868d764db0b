// SPDX-License-Identifier: Apache-2.0
//
// Goal: drains of a simulated cluster end with nothing left behind, hosts see nothing of them, and what is not so is seen.

import { describe, expect, it } from 'vitest';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { restOf } from '../reconcile/drain.js';
import { ClusterSim, plainShape } from './cluster-sim.js';
import { run } from './run.js';

const mix = { writers: 2, readers: 0, readChance: 0.4, flushChance: 0, blocksMax: 1, thinkMaxMs: 10, blocksOwn: 16 };

async function started(seed: bigint, disks: number): Promise<ClusterSim> {
  const cluster = new ClusterSim(seed, { ...plainShape, disks });
  await cluster.start();
  return cluster;
}

describe('the drainer', { timeout: 120_000 }, () => {
  it.each(['d1', 'c1'])('empties node %s while a host writes', async (name) => {
    const cluster = await started(1n, 3);
    cluster.startWorkload(mix);
    cluster.drainer.drain({ kind: 'node', name });
    expect(await cluster.runUntil(() => cluster.drainer.unrest(cluster.state) === null, 30_000)).toBe(true);
    expect(cluster.rareEvents.count('node_drained')).toBe(1);
    expect(restOf(cluster.state, { kind: 'node', name })).toMatchObject({ replicas: 0, controllers: 0, maps: 0 });
    expect(await cluster.runUntil(() => cluster.redundant, 30_000)).toBe(true);
    cluster.stopWorkload();
    expect(await cluster.runUntil(() => cluster.history.pending === 0, 10_000)).toBe(true);
    expect(cluster.violation).toBeNull();
    cluster.close();
  });

  it('is refused where there is no other place, and has changed nothing', async () => {
    const cluster = await started(2n, 2);
    cluster.drainer.drain({ kind: 'node', name: 'd1' });
    expect(cluster.drainer.unrest(cluster.state)).toBe('no answer about the drain of d1');
    expect(await cluster.runUntil(() => cluster.drainer.unrest(cluster.state) === null, 30_000)).toBe(true);
    expect(cluster.rareEvents.count('drain_refused')).toBe(1);
    expect([cluster.state.all('jobs'), cluster.state.all('cordons')]).toEqual([[], []]);
    cluster.close();
  });

  it('ends a drain that waited for a cordon once that is lifted, and lifts none without need', async () => {
    const cluster = await started(4n, 3);
    const { drainer } = cluster;
    const done = (): boolean => !drainer.isBusy;
    drainer.drain({ kind: 'node', name: 'd1' });
    expect(await cluster.runUntil(done, 30_000)).toBe(true);
    for (const name of ['d2', 'd3']) {
      drainer.cordon({ kind: 'node', name });
      expect(await cluster.runUntil(done, 30_000)).toBe(true);
    }
    expect(await cluster.runUntil(() => drainer.unrest(cluster.state) === null, 30_000)).toBe(false);
    expect(drainer.unrest(cluster.state)).toMatch(
      /^node.drain d1 has not ended: .* 2 of the other disks are cordoned$/,
    );
    expect(drainer.giveRoom(cluster.state)).toBe(true);
    expect(await cluster.runUntil(() => drainer.unrest(cluster.state) === null, 30_000)).toBe(true);
    expect(cluster.state.all('cordons')).toMatchObject([{ name: 'd1', mode: 'drain' }]);
    expect(drainer.giveRoom(cluster.state)).toBe(false);
    cluster.close();
  });

  it('sees a node that was drained and holds something', async () => {
    const cluster = await started(3n, 2);
    const cordon = { format: 1, kind: 'node', name: 'd1', mode: 'drain', sinceMs: 0 } as const;
    cluster.server.apply([{ kind: 'put', key: keys.cordon('node', 'd1'), value: codecs.cordon.encode(cordon) }]);
    expect(cluster.drainer.unrest(cluster.state)).toMatch(/^node d1 was drained: 1 replicas/);
    cluster.close();
  });
});

describe('a run in which operators take snapshots and drain', () => {
  it('reaches both, and passes', { timeout: 240_000 }, async () => {
    const changes = ['make a snapshot', 'clone a snapshot', 'delete a snapshot', 'drain a node', 'uncordon'] as const;
    const result = await run({ seed: 11n, changes });
    expect(result, result.explanation).toMatchObject({ failure: 'none' });
    const count = (name: string): number => result.rareEvents.find((event) => event.name === name)?.count ?? 0;
    for (const name of ['snapshot_made', 'snapshot_cloned', 'node_drained'])
      expect(count(name), `${name}: ${result.summary}`).toBeGreaterThan(0);
  });
});
