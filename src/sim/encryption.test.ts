// SPDX-License-Identifier: Apache-2.0
//
// Goal: what hosts write to an encrypted volume is in clear on no disk, whatever its redundancy is and whatever failed; and
// the search would find it. Method: simulated clusters that run the same twice, in clear and encrypted, and runs with a disk
// that is lost for good, snapshots, and damage on a disk and its repair; every disk is read in the end.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { type RunResult, run } from './run.js';

const mix = { writers: 2, readers: 1, readChance: 0.4, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 20, blocksOwn: 16 };
const small = { controllers: 2, hosts: 2, legs: 2, rebuildAfterMs: 300 };
const shapes = {
  '2+1': { ...small, erasure: { data: 2, parity: 1 }, disks: 4 },
  'copies of several active controllers': { ...small, copies: 2, disks: 3, active: 2 },
} as const satisfies Record<string, Partial<ClusterShape>>;

function count(result: RunResult, name: string): number {
  return result.rareEvents.find((event) => event.name === name)?.count ?? 0;
}

describe('an encrypted volume of a simulated cluster', { timeout: 300_000 }, () => {
  for (const [name, shape] of Object.entries(shapes)) {
    it(`of ${name} is in clear on no disk, when a disk is lost and the cluster key changes too`, async () => {
      const changes = ['make a snapshot', 'change the cluster key', 'clone a snapshot'] as const;
      const faults = ['kill', 'kill the active', 'pause'] as const;
      const result = await run({
        seed: 5n,
        shape: { ...shape, encrypted: true },
        mix,
        faults,
        changes,
        loss: !('active' in shape),
      });
      expect(result, result.explanation).toMatchObject({ failure: 'none' });
      expect(result.summary).toContain(', encrypted');
      for (const event of ['cluster_key_changed', 'snapshot_made', 'clone_written'])
        expect(count(result, event), event).toBeGreaterThan(0);
    });
  }

  it.each([{}, { erasure: { data: 2, parity: 1 }, disks: 3 }])('is told from one in clear (%j)', async (redundancy) => {
    for (const encrypted of [false, true]) {
      const cluster = new ClusterSim(9n, { ...plainShape, ...redundancy, encrypted });
      await cluster.start();
      cluster.startWorkload(mix);
      await cluster.runFor(500);
      cluster.stopWorkload();
      expect(await cluster.runUntil(() => cluster.history.pending === 0, 5_000)).toBe(true);
      if (encrypted) expect(cluster.readable).toBeNull();
      else expect(cluster.readable).toMatch(/in clear on the disk of d\d at \d+/);
      // Whoever has the key finds what is where: damage of encrypted volumes is that of these.
      expect(cluster.damageDisk(new SeededRandom(3n), { share: 1 }).blocks).toBeGreaterThan(4);
      cluster.close();
    }
  });
});
