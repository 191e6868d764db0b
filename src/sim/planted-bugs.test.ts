// SPDX-License-Identifier: Apache-2.0
//
// Goal: random runs see what they are for. Method: each known bug is planted, and one of a bounded number of runs must
// fail, while the same run without the bug passes. Shapes are small and faults few in kind, so that the runs are short.

import { describe, expect, it } from 'vitest';
import type { PlantedBugs } from './planted-bugs.js';
import { multiActiveRecipe, recipes } from './recipes.js';
import { type RunOptions, type RunResult, run } from './run.js';

const seedsMax = 150;

interface Planted {
  /** A seed that showed it; when runs have changed and it does not any more, the next ones are tried. */
  readonly first: bigint;
  readonly bug: keyof PlantedBugs;
  readonly options: Omit<RunOptions, 'seed' | 'bugs'>;
}

const planted: readonly Planted[] = [
  { bug: 'skipFence', first: 1n, options: recipes.parkedWrites },
  { bug: 'promoteBeforeTakeover', first: 1n, options: recipes.diskAway },
  { bug: 'shrinkWithoutConsent', first: 1n, options: recipes.split },
  { bug: 'ignoreLeftoverLease', first: 18n, options: recipes.splitLongLease },
  { bug: 'ignoreReadLease', first: 18n, options: recipes.splitReaders },
  { bug: 'forgetEpoch', first: 1n, options: recipes.intruders },
  { bug: 'skipExportFence', first: 1n, options: multiActiveRecipe },
  { bug: 'resyncHeadOnly', first: 2n, options: recipes.returning },
];

async function firstFailure({ bug, options, first }: Planted): Promise<{ seed: bigint; result: RunResult } | null> {
  for (let seed = first; seed < first + BigInt(seedsMax); seed++) {
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

// A run with a bug is one of the recipes, whichever its seed draws: the same ones that a share of all honest seeds draws.
describe('a planted bug is caught without choosing what goes wrong', () => {
  // The first seeds of each were run before, and see nothing.
  const firstSeeds = {
    promoteBeforeTakeover: 5n,
    shrinkWithoutConsent: 4n,
    forgetEpoch: 3n,
    skipFence: 11n,
    resyncHeadOnly: 26n,
    ignoreLeftoverLease: 159n,
    ignoreReadLease: 198n,
  } as const satisfies Partial<Record<keyof PlantedBugs, bigint>>;
  for (const [bug, first] of Object.entries(firstSeeds)) {
    it(bug, { timeout: 600_000 }, async () => {
      let failure = 'none';
      for (let seed = first; seed < first + BigInt(seedsMax) && failure === 'none'; seed++)
        ({ failure } = await run({ seed, bugs: { [bug]: true } }));
      expect(failure, `no run of ${seedsMax} saw it`).toBe('correctness');
    });
  }
});
