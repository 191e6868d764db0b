// SPDX-License-Identifier: Apache-2.0
//
// Goal: a volume with several active controllers grows while hosts write by all of its fronts, whoever dies in the middle,
// and loses nothing. Method: a simulated cluster with native engines; controllers and disk nodes are killed while parts and
// fronts grow; what hosts write behind the old end is read by every front.

import { describe, expect, it } from 'vitest';
import { slotName } from '../agents/assembly.js';
import { resizeVolume } from '../api/volumes.js';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterSim, plainShape } from './cluster-sim.js';

const MiB = 2 ** 20;
const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 5, blocksOwn: 16 };
const seedText = process.env['BASALT_SEED'];
const seeds = seedText === undefined ? [1n, 2n, 3n, 4n] : [BigInt(seedText)];

describe('a volume with several active controllers', { timeout: 900_000 }, () => {
  it.each(seeds)('grows while nodes die, and keeps every byte (seed %s)', async (seed) => {
    const random = new SeededRandom(seed);
    const shape = { active: 2, legs: 4, disks: 3, controllers: 3, hosts: 2, diskDelayMaxMs: 1 };
    const cluster = new ClusterSim(seed, { ...plainShape, ...shape });
    await cluster.start();
    cluster.startWorkload(mix);
    await cluster.runFor(100);
    // The second one is not a multiple of what parts are rounded to: the fronts alone grow for it.
    for (const sizeBytes of [5 * MiB, 5 * MiB + 64 * 1024, 12 * MiB]) {
      await cluster.wait(resizeVolume(cluster.admin, cluster.volumeName, { sizeBytes }));
      await cluster.runFor(random.between(1, 150));
      const { fronts = [], parts = [] } = cluster.view;
      const driver = random.pick([...fronts, ...parts]).controller;
      const victim = random.chance(0.7) ? cluster.processes.get(driver ?? '') : random.pick(cluster.diskNodes);
      victim?.kill();
      cluster.after(300, () => victim?.start());
      const isGrown = (): boolean => cluster.view.sizeBytes === sizeBytes && cluster.view.growth === null;
      expect(await cluster.runUntil(isGrown, 60_000), JSON.stringify(cluster.view)).toBe(true);
    }
    cluster.stopWorkload();
    const rested = (): boolean => cluster.history.pending === 0 && cluster.redundant;
    expect(await cluster.runUntil(rested, 60_000), JSON.stringify(cluster.view)).toBe(true);
    for (const host of cluster.hosts) await cluster.wait(host.readEverything(0));
    expect(cluster.violation).toBeNull();
    await writtenByEach(cluster, 12 * MiB);
    cluster.close();
  });
});

/** Each front's controller writes a stripe behind the old end, and the other one reads it. */
async function writtenByEach(cluster: ClusterSim, sizeBytes: number): Promise<void> {
  const { fronts = [] } = cluster.view;
  const handles = await cluster.wait(
    Promise.all(
      fronts.map(({ nqn, controller }) => {
        const { engine } = cluster.process(controller ?? '');
        if (engine === null) throw new Error(`${controller} does not run`);
        return engine.openBdev(slotName(nqn.split(':').at(-1) ?? ''));
      }),
    ),
  );
  for (const [index, handle] of handles.entries()) {
    expect(handle.info.sizeBytes).toBe(sizeBytes);
    const at = sizeBytes - (index + 1) * 65536;
    await cluster.wait(handle.write(at, Buffer.alloc(4096, index + 1)));
    for (const other of handles) {
      const seen = Buffer.alloc(4096);
      await cluster.wait(other.read(at, seen));
      expect(seen.every((byte) => byte === index + 1)).toBe(true);
    }
  }
  await cluster.wait(Promise.all(handles.map((handle) => handle.close())));
}
