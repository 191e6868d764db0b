// SPDX-License-Identifier: Apache-2.0
//
// Goal: random runs see what they are for. Method: each known bug is planted, and one of a bounded number of runs must
// fail, while the same run without the bug passes. Shapes are small and faults few in kind, so that the runs are short.

import { describe, expect, it } from 'vitest';
import type { PlantedBugs } from './planted-bugs.js';
import { type RunOptions, type RunResult, run } from './run.js';

const small = { disks: 2, copies: 2, controllers: 2, hosts: 2, legs: 1 };
const busy = { writers: 2, readers: 0, readChance: 0.5, flushChance: 0, blocksMax: 1, blocksOwn: 2, thinkMaxMs: 5 };
const readers = { ...busy, readers: 6, readChance: 0, blocksOwn: 64 };
const seedsMax = 150;

interface Planted {
  readonly bug: keyof PlantedBugs;
  readonly options: Omit<RunOptions, 'seed' | 'bugs'>;
}

const planted: readonly Planted[] = [
  {
    bug: 'skipFence',
    options: { faults: ['parked writes'], mix: { ...busy, readChance: 0.2, blocksOwn: 1 }, shape: small },
  },
  { bug: 'promoteBeforeTakeover', options: { faults: ['failover with a disk away'], mix: busy, shape: small } },
  { bug: 'shrinkWithoutConsent', options: { faults: ['even split'], mix: busy, shape: small } },
  {
    bug: 'ignoreLeftoverLease',
    options: {
      faults: ['even split'],
      mix: readers,
      shape: { ...small, leaseMs: 1000, timing: { attachTimeoutMs: 100, attachRetryMs: 50, graceMs: 1_500 } },
    },
  },
  { bug: 'ignoreReadLease', options: { faults: ['even split'], mix: readers, shape: small } },
  {
    bug: 'forgetEpoch',
    options: { faults: ['kill the active', 'restart under an intruder'], mix: busy, shape: small },
  },
];

async function firstFailure({ bug, options }: Planted): Promise<{ seed: bigint; result: RunResult } | null> {
  for (let seed = 1n; seed <= seedsMax; seed++) {
    const result = await run({ ...options, seed, bugs: { [bug]: true } });
    if (result.failure !== 'none') return { seed, result };
  }
  return null;
}

describe('a planted bug is caught by a random run', () => {
  for (const each of planted) {
    it(each.bug, { timeout: 600_000 }, async () => {
      const found = await firstFailure(each);
      expect(found, `no run of ${seedsMax} saw it`).not.toBeNull();
      if (found === null) return;
      expect(found.result.failure).not.toBe('crash');
      const honest = await run({ ...each.options, seed: found.seed });
      expect(honest, honest.explanation).toMatchObject({ failure: 'none' });
    });
  }
});
