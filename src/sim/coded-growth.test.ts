// SPDX-License-Identifier: Apache-2.0
//
// Goal: a volume with erasure coding grows while hosts write, whoever dies in the middle, and loses nothing. Method: a
// simulated cluster with native engines; its active controller and a disk node are killed while legs are lengthened.

import { describe, expect, it } from 'vitest';
import { resizeVolume } from '../api/volumes.js';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterSim, plainShape } from './cluster-sim.js';

const MiB = 2 ** 20;
const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 5, blocksOwn: 16 };

describe('a volume with erasure coding', { timeout: 900_000 }, () => {
  it.each([1n, 2n, 3n, 4n])('grows while nodes die, and keeps every byte (seed %s)', async (seed) => {
    const random = new SeededRandom(seed);
    const erasure = { data: 2, parity: 1 };
    const cluster = new ClusterSim(seed, { ...plainShape, erasure, disks: 4, legs: 2, diskDelayMaxMs: 1 });
    await cluster.start();
    cluster.startWorkload(mix);
    await cluster.runFor(100);
    const old = cluster.processes.get(cluster.view.controller ?? '');
    for (const mebibytes of [3, 6]) {
      const sizeBytes = mebibytes * MiB;
      await cluster.wait(resizeVolume(cluster.admin, cluster.volumeName, { sizeBytes }));
      await cluster.runFor(random.between(1, 150));
      const victim = random.chance(0.7) ? old : random.pick(cluster.diskNodes);
      victim?.kill();
      cluster.after(300, () => victim?.start());
      const isGrown = (): boolean => cluster.view.sizeBytes === sizeBytes && cluster.view.growth === null;
      expect(await cluster.runUntil(isGrown, 60_000), JSON.stringify(cluster.view)).toBe(true);
    }
    cluster.stopWorkload();
    const rested = (): boolean => cluster.history.pending === 0 && cluster.redundant;
    expect(await cluster.runUntil(rested, 60_000)).toBe(true);
    await cluster.wait(cluster.hosts[0]?.readEverything(0) ?? Promise.resolve());
    expect(cluster.violation).toBeNull();
    cluster.close();
  });
});
