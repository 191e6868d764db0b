// SPDX-License-Identifier: Apache-2.0
//
// Goal: scrubs of a simulated cluster find nothing where nothing is wrong, what is wrong is seen and mended, and random
// runs reach all of it.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { hasEnded } from '../model/jobs.js';
import { type ClusterShape, ClusterSim, type ClusterSimOptions, plainShape } from './cluster-sim.js';
import { run } from './run.js';
import { calmStore } from './sim-store.js';
import type { TraceListener } from './trace.js';

const mix = { writers: 2, readers: 0, readChance: 0.4, flushChance: 0, blocksMax: 1, thinkMaxMs: 10, blocksOwn: 64 };

/** Whose host has written for a while. */
async function written(
  seed: bigint,
  shape: Partial<ClusterShape> = {},
  options: ClusterSimOptions = {},
): Promise<ClusterSim> {
  const cluster = new ClusterSim(seed, { ...plainShape, ...shape }, options);
  await cluster.start();
  cluster.startWorkload(mix);
  await cluster.runFor(1_500);
  return cluster;
}

async function rest(cluster: ClusterSim): Promise<void> {
  cluster.stopWorkload();
  const isOver = (): boolean => cluster.history.pending === 0 && cluster.redundant && cluster.unrest === null;
  expect(await cluster.runUntil(isOver, 30_000), `${cluster.unrest}`).toBe(true);
}

const ended = (cluster: ClusterSim): boolean => !cluster.scrubber.isBusy && cluster.state.all('jobs').every(hasEnded);

describe('the scrubber', { timeout: 120_000 }, () => {
  it('finds nothing while hosts write and the controller that scrubs is killed', async () => {
    const cluster = await written(1n);
    cluster.scrubber.scrub({ bytesPerS: 256 * 1024 });
    await cluster.runFor(1_000);
    cluster.process(cluster.view.controller ?? '').kill();
    expect(await cluster.runUntil(() => ended(cluster), 60_000)).toBe(true);
    expect(cluster.state.all('jobs')).toMatchObject([{ kind: 'volume.scrub', state: 'done' }]);
    expect(cluster.rareEvents.count('volume_scrubbed')).toBe(1);
    expect(cluster.violation).toBeNull();
    cluster.close();
  });

  it('compares each leg once, however late the store tells of what was written down', async () => {
    const started: string[] = [];
    const store = { ...calmStore, latencyMinMs: 0.2, latencyMaxMs: 400 };
    const tell: TraceListener = ({ what, text }) => {
      if (what === 'basalt_leg_scrub_start') started.push(text);
    };
    const cluster = await written(6n, { legs: 2, store }, { tell });
    for (let scrub = 1; scrub <= 4; scrub++) {
      cluster.scrubber.scrub({});
      expect(await cluster.runUntil(() => cluster.rareEvents.count('volume_scrubbed') === scrub, 60_000)).toBe(true);
      await cluster.runFor(2_000);
      expect(started.splice(0)).toHaveLength(2);
    }
    cluster.close();
  });

  it('calls a scrub off', async () => {
    const cluster = await written(2n);
    cluster.scrubber.scrub({ bytesPerS: 64 * 1024 });
    await cluster.runFor(1_000);
    cluster.scrubber.callOff(cluster.state.all('jobs')[0]?.id ?? '');
    expect(await cluster.runUntil(() => ended(cluster), 5_000)).toBe(true);
    expect(cluster.rareEvents.count('scrub_called_off')).toBe(1);
    cluster.close();
  });

  it.each([
    { name: 'two copies', shape: {} },
    { name: 'three copies', shape: { copies: 3, disks: 3 } },
    { name: 'two copies with checksums', shape: { checksums: true } },
    { name: '2+1', shape: { erasure: { data: 2, parity: 1 }, disks: 3 } },
    { name: '2+2 with checksums', shape: { erasure: { data: 2, parity: 2 }, disks: 4, checksums: true } },
  ])('has damage on a disk mended: $name', async ({ shape }) => {
    const cluster = await written(3n, shape);
    await rest(cluster);
    expect(await cluster.wait(cluster.judgeMembers(new SeededRandom(7n)))).toBeNull();
    expect(cluster.rareEvents.count('scrub_mended')).toBe(1);
    expect(cluster.violation).toBeNull();
    cluster.close();
  });

  it('sees damage that nobody told it of', async () => {
    const cluster = await written(4n, { copies: 3, disks: 3 });
    await rest(cluster);
    cluster.damageDisk(new SeededRandom(7n));
    const found = await cluster.wait(cluster.judgeMembers(null));
    expect(found).toMatch(
      /^scrub: job .* found \d+ blocks that differ and \d+ that cannot be read, and rewrote 0, and no disk/,
    );
    expect(cluster.violation).toBe(found);
    cluster.close();
  });
});

describe('a run in which the volume is scrubbed', () => {
  it('reaches its end, and passes', { timeout: 240_000 }, async () => {
    const result = await run({ seed: 5n, changes: ['scrub the volume', 'call a scrub off'] });
    expect(result, result.explanation).toMatchObject({ failure: 'none' });
    const count = (name: string): number => result.rareEvents.find((event) => event.name === name)?.count ?? 0;
    for (const name of ['volume_scrubbed', 'scrub_called_off'])
      expect(count(name), `${name}: ${result.summary}`).toBeGreaterThan(0);
  });
});
