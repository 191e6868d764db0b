// SPDX-License-Identifier: Apache-2.0
//
// What somebody changes in a cluster while it is in use: disk nodes are added, are away until their places are given to
// others; pools come and go, and volumes in them.

import { SeededRandom } from '../env/seeded-random.js';
import type { ClusterSim } from './cluster-sim.js';

interface Change {
  readonly weight: number;
  readonly begin: (cluster: ClusterSim, random: SeededRandom) => string | null;
}

/** Who waits longer than this for a node is not tried. */
const waitedOutMsMax = 5_000;

const changes = {
  'add a disk node': {
    weight: 1,
    begin: (cluster) => {
      const name = cluster.addDiskNode();
      return name === null ? null : `add disk node ${name}`;
    },
  },
  'away for long': {
    weight: 2,
    begin: (cluster, random) => {
      const { rebuildAfterMs } = cluster.shape;
      const process = random.pick(cluster.diskNodes);
      if (rebuildAfterMs > waitedOutMsMax || !process.isRunning) return null;
      // Its session has to end first.
      const downMs = rebuildAfterMs + random.between(2_500, 8_000);
      process.kill();
      cluster.after(downMs, () => process.start());
      return `kill ${process.name} for ${downMs} ms`;
    },
  },
  'make a pool': {
    weight: 2,
    begin: (cluster, random) => {
      const name = cluster.operator.freePool;
      if (name === null) return null;
      const pgCount = random.pick([1, 4, 16]);
      cluster.operator.makePool(name, { copies: random.between(1, cluster.shape.copies), pgCount });
      return `make pool ${name} of ${pgCount} groups`;
    },
  },
  'make a volume in a pool': {
    weight: 4,
    begin: (cluster, random) => {
      const { freeName: name, madePools } = cluster.operator;
      if (name === null || madePools.length === 0) return null;
      const pool = random.pick(madePools);
      cluster.operator.makeIn(name, pool);
      return `make volume ${name} in pool ${pool}`;
    },
  },
  'delete a pool': {
    weight: 1,
    begin: (cluster, random) => {
      const { madePools } = cluster.operator;
      if (madePools.length === 0) return null;
      const name = random.pick(madePools);
      cluster.operator.deletePool(name);
      return `delete pool ${name}`;
    },
  },
} satisfies Readonly<Record<string, Change>>;

export type ChangeName = keyof typeof changes;

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const stream = 0xc6n;
const share = 0.5;

/** Of one run: which kinds of changes; none: nobody changes anything. */
export function drawChanges(seed: bigint): readonly ChangeName[] {
  const random = new SeededRandom(seed ^ stream);
  if (!random.chance(share)) return [];
  return (Object.keys(changes) as ChangeName[]).filter(() => random.chance(0.8));
}

const stepMix = 0xbf58476d1ce4e5b9n;
const stepShare = 0.6;

export class ClusterChanges {
  readonly #cluster: ClusterSim;
  readonly #seed: bigint;
  readonly #kinds: readonly ChangeName[];
  readonly #counts = new Map<ChangeName, number>();

  constructor(cluster: ClusterSim, seed: bigint, kinds: readonly ChangeName[]) {
    this.#cluster = cluster;
    this.#seed = seed;
    this.#kinds = kinds;
  }

  /** With a step of the nemesis, and out of a stream of its own. */
  step(index: number): void {
    const random = new SeededRandom(this.#seed ^ (BigInt(index + 1) * stepMix));
    if (this.#kinds.length === 0 || !random.chance(stepShare)) return;
    const name = random.pick(this.#kinds.flatMap((kind) => Array<ChangeName>(changes[kind].weight).fill(kind)));
    const done = (changes[name] as Change).begin(this.#cluster, random);
    if (done === null) return;
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    this.#cluster.note(done);
  }

  get summary(): string {
    return [...this.#counts].map(([name, count]) => `; ${count} ${name}`).join('');
  }
}
