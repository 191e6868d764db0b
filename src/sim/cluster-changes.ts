// SPDX-License-Identifier: Apache-2.0
//
// What somebody changes in a cluster while it is in use: disk nodes are added, are away until their places are given to
// others; pools come and go, and volumes in them; and what operators do (cluster-operations.ts).

import { SeededRandom } from '../env/seeded-random.js';
import { moves } from './cluster-moves.js';
import { operations } from './cluster-operations.js';
import { pools } from './cluster-pools.js';
import { scrubs } from './cluster-scrubs.js';
import type { ClusterSim } from './cluster-sim.js';

export interface Change {
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
      const redundancy = { kind: 'copies' as const, copies: random.between(1, cluster.shape.copies) };
      cluster.operator.makePool(name, { redundancy, pgCount });
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

/** Of a cluster with encrypted volumes. */
const keyChanges = {
  'change the cluster key': {
    weight: 1,
    begin: (cluster) => {
      const { keys, admin, server, rareEvents } = cluster;
      if (keys === null || keys.isChanging) return null;
      keys.change(admin, server.clock, rareEvents);
      return 'change the cluster key';
    },
  },
} satisfies Readonly<Record<string, Change>>;

/** What one has begun, somebody thinks better of soon: some tries, of which one is in time. */
function begunAndCalledOff(begin: Change['begin'], callOff: Change['begin']): Change['begin'] {
  return (cluster, random) => {
    const begun = begin(cluster, random);
    if (begun === null) return null;
    for (const delayMs of [20, 60, 180, 540]) cluster.after(delayMs, () => void callOff(cluster, random));
    return `${begun}, and think better of it`;
  };
}

/** Asked for by name only. */
const corners = {
  'change the pool and call that off': {
    weight: 2,
    begin: begunAndCalledOff(
      (cluster, random) =>
        pools['change the pool'].begin(cluster, random) ?? pools['make a pool like the volume'].begin(cluster, random),
      pools['call a change of pools off'].begin,
    ),
  },
  'move a replica and call that off': {
    weight: 1,
    begin: begunAndCalledOff(moves['move a replica'].begin, moves['call a move off'].begin),
  },
  'move a replica to where it cannot be': {
    weight: 1,
    begin: (cluster, random) => {
      const volume = cluster.state.volumeByName(cluster.volumeName);
      const leg = random.between(0, (volume?.legs.length ?? 1) - 1);
      const present = (volume?.legs[leg]?.replicas ?? []).map(({ disk }) => disk);
      if (volume === null || present.length < 2 || cluster.isMoving) return null;
      const from = random.pick(present);
      const to = random.pick(present.filter((disk) => disk !== from));
      cluster.drainer.move(volume.name, { leg, from, to });
      return `move leg ${leg} from ${from} to ${to}, which has it too`;
    },
  },
  'drain a disk and end that early': {
    weight: 1,
    begin: begunAndCalledOff(operations['drain a disk'].begin, operations.uncordon.begin),
  },
  'drain a disk among cordons': {
    weight: 1,
    begin: (cluster, random) => {
      const disks = cluster.state.all('disks').map(({ id }) => ({ kind: 'disk' as const, name: id }));
      if (disks.length === 0 || cluster.isMoving) return null;
      const target = random.pick(disks);
      cluster.drainer.drainIntoCordons(
        target,
        disks.filter((disk) => disk !== target),
      );
      return `drain disk ${target.name} and cordon the others`;
    },
  },
} satisfies Readonly<Record<string, Change>>;

const all = { ...changes, ...operations, ...moves, ...scrubs, ...pools, ...corners, ...keyChanges };

export type ChangeName = keyof typeof all;

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const groups = [
  { names: Object.keys(changes) as ChangeName[], stream: 0xc6n, share: 0.5, stepMix: 0xbf58476d1ce4e5b9n },
  { names: Object.keys(operations) as ChangeName[], stream: 0x0bn, share: 0.5, stepMix: 0x94d049bb133111ebn },
  { names: Object.keys(moves) as ChangeName[], stream: 0x30fen, share: 0.3, stepMix: 0xd6e8feb86659fd93n },
  { names: Object.keys(scrubs) as ChangeName[], stream: 0x5c2bn, share: 0.35, stepMix: 0xa0761d6478bd642fn },
  { names: Object.keys(pools) as ChangeName[], stream: 0x9001n, share: 0.3, stepMix: 0xe7037ed1a0b428dbn },
  { names: Object.keys(corners) as ChangeName[], stream: 0xc02n, share: 0, stepMix: 0x8ebc6af09c88c6e3n },
  { names: Object.keys(keyChanges) as ChangeName[], stream: 0xe5n, share: 0.6, stepMix: 0x9fb21c651e98df25n },
];
const stepShare = 0.6;

const snapshots = ['make a snapshot', 'delete a snapshot', 'clone a snapshot', 'snapshots while a disk node returns'];

/** Of what operators do to volumes not everything is there for one with several active controllers; this is. */
export const changesAround = [
  ...Object.keys(changes),
  ...snapshots,
  ...Object.keys(keyChanges),
] as readonly ChangeName[];

/** Of one run: which kinds of changes; none: nobody changes anything. */
export function drawChanges(seed: bigint): readonly ChangeName[] {
  return groups.flatMap(({ names, stream, share }) => {
    const random = new SeededRandom(seed ^ stream);
    return random.chance(share) ? names.filter(() => random.chance(0.8)) : [];
  });
}

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

  /** With a step of the nemesis, and out of streams of their own: one of each group at most. */
  step(index: number): void {
    for (const { names, stepMix } of groups) {
      const random = new SeededRandom(this.#seed ^ (BigInt(index + 1) * stepMix));
      const kinds = this.#kinds.filter((kind) => names.includes(kind));
      if (kinds.length > 0 && random.chance(stepShare)) this.#begin(kinds, random);
    }
  }

  #begin(kinds: readonly ChangeName[], random: SeededRandom): void {
    const name = random.pick(kinds.flatMap((kind) => Array<ChangeName>(all[kind].weight).fill(kind)));
    const done = (all[name] as Change).begin(this.#cluster, random);
    if (done === null) return;
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    this.#cluster.note(done);
  }

  get summary(): string {
    return [...this.#counts].map(([name, count]) => `; ${count} ${name}`).join('');
  }
}
