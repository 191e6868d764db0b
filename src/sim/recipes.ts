// SPDX-License-Identifier: Apache-2.0
//
// Runs in which one kind of trouble comes again and again to a small cluster with few blocks and many clients: what needs
// a rare moment is found there, and hardly ever where everything happens. A share of all seeds is one of these.

import { SeededRandom } from '../env/seeded-random.js';
import type { ChangeName } from './cluster-changes.js';
import type { ClusterShape } from './cluster-sim.js';
import type { FaultName } from './nemesis.js';
import type { PlantedBugs } from './planted-bugs.js';
import type { WorkloadMix } from './sim-host.js';

export interface Recipe {
  readonly faults: readonly FaultName[];
  readonly mix: WorkloadMix;
  readonly shape: Partial<ClusterShape>;
  readonly changes?: readonly ChangeName[];
}

/** Not drawn: plans in test/sim remain what they were when they were found. */
export const multiActiveRecipe: Recipe = {
  faults: ['parked fronts'],
  mix: { writers: 2, readers: 0, readChance: 0.2, flushChance: 0, blocksMax: 1, blocksOwn: 1, thinkMaxMs: 5 },
  shape: { disks: 2, copies: 2, controllers: 3, hosts: 2, legs: 2, active: 2 },
};

const small = { disks: 2, copies: 2, controllers: 2, hosts: 2, legs: 1 };
const busy = { writers: 2, readers: 0, readChance: 0.5, flushChance: 0, blocksMax: 1, blocksOwn: 2, thinkMaxMs: 5 };
const readers = { ...busy, readers: 6, readChance: 0, blocksOwn: 64 };

export const recipes = {
  parkedWrites: { faults: ['parked writes'], mix: { ...busy, readChance: 0.2, blocksOwn: 1 }, shape: small },
  diskAway: { faults: ['failover with a disk away'], mix: busy, shape: small },
  split: { faults: ['even split'], mix: busy, shape: small },
  splitReaders: { faults: ['even split'], mix: readers, shape: small },
  splitLongLease: {
    faults: ['even split'],
    mix: { ...readers, blocksOwn: 16 },
    shape: { ...small, leaseMs: 1000, timing: { attachTimeoutMs: 100, attachRetryMs: 50, graceMs: 1_500 } },
  },
  intruders: { faults: ['kill the active', 'restart under an intruder'], mix: busy, shape: small },
  // Most blocks that a node missed are not written again before a snapshot is made.
  returning: {
    faults: ['date jump'],
    mix: { ...busy, readChance: 0, blocksOwn: 64, thinkMaxMs: 40 },
    shape: small,
    changes: ['snapshots while a disk node returns', 'clone a snapshot'],
  },
  // What is drained finds no room until somebody lifts the cordons; nobody does while things go wrong.
  crowded: {
    faults: ['kill', 'pause', 'store cut', 'store down'],
    mix: { ...busy, blocksOwn: 16, thinkMaxMs: 40 },
    shape: { ...small, disks: 3 },
    changes: ['drain a disk among cordons', 'make a snapshot'],
  },
  wavering: {
    faults: ['kill', 'slow disk', 'store cut'],
    mix: { ...busy, blocksOwn: 16, thinkMaxMs: 40 },
    shape: { ...small, disks: 3 },
    changes: [
      'change the pool and call that off',
      'move a replica and call that off',
      'move a replica to where it cannot be',
      'drain a disk and end that early',
    ],
  },
} as const satisfies Readonly<Record<string, Recipe>>;

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const stream = 0x1e7n;
const share = 0.3;
const laterStream = 0x1e8n;
const laterShare = 0.2;
const lastStream = 0x1f5n;
const lastShare = 0.12;

/** The seed's, if it is one of these; a run with a bug always is. Which one does not depend on the bug. */
export function drawRecipe(seed: bigint, bugs: PlantedBugs): Recipe | null {
  const random = new SeededRandom(seed ^ stream);
  const hasBug = Object.values(bugs).includes(true);
  const { returning, crowded, wavering, ...others } = recipes;
  const last = new SeededRandom(seed ^ lastStream);
  // No planted bug needs them.
  if (!hasBug && last.chance(lastShare)) return last.chance(0.5) ? crowded : wavering;
  const chosen = random.chance(share) || hasBug;
  if (!chosen) return null;
  const recipe = random.pick(Object.values(others));
  return new SeededRandom(seed ^ laterStream).chance(laterShare) ? returning : recipe;
}
