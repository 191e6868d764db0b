// SPDX-License-Identifier: Apache-2.0
//
// Goal: a controller that reaches the store and its peers, and no replica, does not keep a volume from hosts that one of its
// standbys could serve. Method: agents on native engines in virtual time; it is cut off from the disk nodes, one way or
// both, under hosts whose histories are judged.

import { describe, expect, it } from 'vitest';
import { ClusterSim, plainShape } from './cluster-sim.js';

const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.1, blocksMax: 2, thinkMaxMs: 20, blocksOwn: 16 };
const seedText = process.env['BASALT_SEED'];
const seeds = seedText === undefined ? [1n, 2n] : [BigInt(seedText)];

/** Off from the disk nodes: what it sends, what they send, or both. */
function cut(cluster: ClusterSim, name: string, ways: 'out' | 'in' | 'both'): void {
  for (const disk of cluster.diskNodes) {
    if (ways !== 'in') cluster.world.partition(name, disk.name);
    if (ways !== 'out') cluster.world.partition(disk.name, name);
  }
}

const cases = seeds.flatMap((seed) => (['out', 'in', 'both'] as const).map((ways) => [seed, ways] as const));

describe('a controller that reaches the store and no replica', { timeout: 300_000 }, () => {
  it.each(cases)('leaves the volume to one that does, and that one keeps it (seed %s, %s)', async (seed, ways) => {
    const cluster = new ClusterSim(seed, { ...plainShape, controllers: 3, legs: 2, hosts: 2 });
    await cluster.start();
    cluster.startWorkload(mix);
    await cluster.runFor(1_000);
    const before = cluster.view.controller ?? '';
    cut(cluster, before, ways);
    const isElsewhere = (): boolean => cluster.view.controller !== before && cluster.view.health === 'redundant';
    expect(await cluster.runUntil(isElsewhere, 15_000), JSON.stringify(cluster.view)).toBe(true);
    const { controller, epoch } = cluster.view;
    const { operations } = cluster.history;
    expect(await cluster.runUntil(() => cluster.history.operations > operations + 100, 20_000)).toBe(true);
    await cluster.runFor(20_000);
    expect(cluster.view).toMatchObject({ controller, epoch });
    cluster.stopWorkload();
    cluster.heal();
    const rests = (): boolean => cluster.history.pending === 0 && cluster.redundant;
    expect(await cluster.runUntil(rests, 60_000), JSON.stringify(cluster.view)).toBe(true);
    expect(cluster.violation).toBeNull();
    cluster.close();
  });
});
