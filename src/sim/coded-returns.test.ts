// SPDX-License-Identifier: Apache-2.0
//
// Goal: a member of a volume with erasure coding that comes back is given what it missed and no more, and nothing is
// lost whoever goes and comes meanwhile. Method: simulated clusters with native engines, whose events say how much was
// copied; a bug that is planted must be found.

import { describe, expect, it } from 'vitest';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { type RunOptions, run } from './run.js';
import type { TraceLine } from './trace.js';

const MiB = 2 ** 20;
const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 5, blocksOwn: 16 };
const shape: ClusterShape = { ...plainShape, erasure: { data: 2, parity: 1 }, disks: 3, diskDelayMaxMs: 1 };

interface Copied {
  readonly resync: string;
  readonly copied_blocks: number;
}

describe('a volume with erasure coding', { timeout: 900_000 }, () => {
  it('gives a member that comes back what it missed, and no more', async () => {
    const copied: Copied[] = [];
    const tell = ({ what, text }: TraceLine): void => {
      const event = what === 'event' ? JSON.parse(text) : null;
      if (event?.method === 'leg_member_copied') copied.push(event.params);
    };
    const sizeBytes = 16 * MiB;
    const cluster = new ClusterSim(1n, { ...shape, sizeBytes, legs: 1 }, { tell });
    await cluster.start();
    cluster.startWorkload(mix);
    for (const node of cluster.diskNodes) {
      copied.length = 0;
      await cluster.runFor(200);
      // What it had not flushed is lost, too.
      node.powerCut();
      expect(await cluster.runUntil(() => !cluster.redundant, 10_000)).toBe(true);
      await cluster.runFor(300);
      node.start();
      expect(await cluster.runUntil(() => cluster.redundant, 30_000)).toBe(true);
      expect(copied.map(({ resync }) => resync)).toEqual(['delta']);
      // What hosts write to lies in a few places.
      expect(copied[0]?.copied_blocks).toBeGreaterThan(0);
      expect((copied[0]?.copied_blocks ?? 0) * 4096).toBeLessThan(sizeBytes / 8);
    }
    cluster.stopWorkload();
    expect(await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 30_000)).toBe(true);
    await cluster.wait(cluster.hosts[0]?.readEverything(0) ?? Promise.resolve());
    expect(cluster.violation).toBeNull();
    cluster.close();
  });

  it('keeps every byte while two of its members may be away', async () => {
    let byMarks = 0;
    for (const seed of [1n, 2n, 3n]) {
      const result = await run({
        seed,
        shape: { ...shape, erasure: { data: 2, parity: 2 }, disks: 4, legs: 2, rebuildAfterMs: 60_000 },
        mix,
        faults: ['kill', 'kill the active', 'pause', 'slow disk', 'partition'],
      });
      expect(result, result.explanation).toMatchObject({ failure: 'none' });
      byMarks += result.rareEvents.find(({ name }) => name === 'member_copied_by_marks')?.count ?? 0;
    }
    expect(byMarks).toBeGreaterThan(0);
  });
});

const seedsMax = 60n;

describe('a member that comes back to a leg which did not mark what it missed', () => {
  it('is found', { timeout: 900_000 }, async () => {
    const options: Omit<RunOptions, 'seed'> = {
      shape: { ...shape, legs: 1, rebuildAfterMs: 60_000 },
      mix,
      faults: ['kill'],
    };
    for (let seed = 1n; seed <= seedsMax; seed++) {
      const { failure } = await run({ ...options, seed, bugs: { forgetAbsent: true } });
      if (failure === 'none') continue;
      expect(failure).toBe('correctness');
      const honest = await run({ ...options, seed });
      expect(honest, honest.explanation).toMatchObject({ failure: 'none' });
      return;
    }
    expect.fail(`no run of ${seedsMax} saw it`);
  });
});
