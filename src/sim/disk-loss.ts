// SPDX-License-Identifier: Apache-2.0
//
// A disk that breaks with its node and never comes back, while hosts read and write. What it held is made again elsewhere,
// by itself after a while, or at once when somebody drains it; then it is taken out of the cluster.
//
// Rules:  - only what everything survives is lost: all volumes are redundant, and there is room for what the disk holds
//         - what fails while it is made again loses nothing and comes back; so volumes may stand still, and no more
//         - volumes become redundant without it, and snapshots still hold what they held (both judged elsewhere)
//         - a disk that is gone can be drained and removed; then nothing of the store names it

import { type CordonDeps, drain, previewDrain, removeDisk } from '../api/cordons.js';
import { volumeView } from '../api/views.js';
import type { Clock } from '../env/clock.js';
import { SeededRandom } from '../env/seeded-random.js';
import type { ClusterState } from '../model/cluster-state.js';
import { hasEnded } from '../model/jobs.js';
import type { DiskObject } from '../model/objects.js';
import { copiesNeeded } from '../model/snapshots.js';
import { restOf } from '../reconcile/drain.js';
import { copiesUp } from '../reconcile/snapshots.js';
import { askUntilAnswered, codeOf } from './asking.js';
import type { ClusterSim } from './cluster-sim.js';
import { type FaultName, Nemesis } from './nemesis.js';
import type { RareEvents } from './rare-events.js';

/** Who waits longer than this for a node drains its disk. */
const waitedOutMsMax = 5_000;
const whileInUseMsMax = 500;
const copiedMsMax = 20_000;
const pollMs = 200;
const meanwhileShare = 0.5;
const meanwhilePauseMsMax = 600;
/** All of them keep what is on disks. */
const meanwhile: readonly FaultName[] = [
  'kill',
  'kill the active',
  'pause',
  'partition',
  'isolate',
  'reset',
  'store down',
  'store cut',
];

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const stream = 0x1055d15cn;
const runShare = 0.25;

export function drawLoss(seed: bigint): SeededRandom | null {
  const random = new SeededRandom(seed ^ stream);
  return random.chance(runShare) ? random : null;
}

/** What does not end within `limitMs`, or null. Nothing else is wrong with the cluster when it begins. */
export async function loseDisk(cluster: ClusterSim, random: SeededRandom, limitMs: number): Promise<string | null> {
  const { rareEvents } = cluster;
  const { clock } = cluster.server;
  const isWhole = (): boolean => cluster.violation !== null || (cluster.redundant && cluster.unrest === null);
  // What keeps it from rest is told by those who look for that.
  if (!(await cluster.runUntil(isWhole, limitMs)) || cluster.violation !== null) return null;
  const disk = await choose(cluster, random);
  if (disk === null) return null;
  await cluster.runFor(random.between(0, whileInUseMsMax));
  const { node, id } = disk;
  cluster.note(`disk ${id} is lost for good, with ${node}`);
  cluster.process(node).takeAway();
  const loss = new DiskLoss({ deps: { ...cluster.admin, clock }, clock, rareEvents }, id);
  const mustBeDrained = cluster.shape.rebuildAfterMs > waitedOutMsMax;
  if (mustBeDrained) loss.drain();
  if (random.chance(meanwhileShare)) await failMeanwhile(cluster, random, loss);
  const isElsewhere = (): boolean => cluster.violation !== null || (loss.holds(cluster.state) === null && isWhole());
  // There was room when it was chosen; since then the map may have moved something to where this would go.
  const isMade =
    (await cluster.runUntil(isElsewhere, limitMs)) ||
    (cluster.drainer.giveRoom(cluster.state, { refused: true }) && (await cluster.runUntil(isElsewhere, limitMs)));
  if (!isMade) return `a lost disk ${loss.holds(cluster.state) ?? 'is replaced'} (${loss.problem ?? 'no problem'})`;
  if (cluster.violation !== null) return null;
  rareEvents.reach('disk_lost');
  if (!mustBeDrained) loss.drain();
  loss.remove();
  const isOut = (): boolean => cluster.violation !== null || (loss.isOut(cluster.state) && isWhole());
  if (!(await cluster.runUntil(isOut, limitMs)))
    return `a lost disk cannot be removed: ${loss.problem ?? cluster.unrest ?? 'something names it'}`;
  return null;
}

async function failMeanwhile(cluster: ClusterSim, random: SeededRandom, loss: DiskLoss): Promise<void> {
  const plan = { kinds: meanwhile, steps: random.between(2, 6), pauseMsMax: meanwhilePauseMsMax };
  const nemesis = new Nemesis(cluster, BigInt(random.between(0, 0xffff_ffff)), plan);
  for (let step = 0; step < plan.steps && cluster.violation === null; step++) {
    if (loss.holds(cluster.state) !== null) cluster.rareEvents.reach('fault_while_rebuilding');
    await nemesis.step(step);
  }
  cluster.heal();
}

/**
 * One that everything can do without, or null. Where there is no room a machine is added; then it takes a while until its
 * disk is known, and until there are two of copies of snapshots that were single.
 */
async function choose(cluster: ClusterSim, random: SeededRandom): Promise<DiskObject | null> {
  const first = await chooseNow(cluster, random);
  if (first !== null || cluster.addDiskNode() === null) return first;
  for (let waitedMs = 0; waitedMs < copiedMsMax; waitedMs += pollMs) {
    await cluster.runFor(pollMs);
    const found = cluster.redundant && cluster.unrest === null ? await chooseNow(cluster, random) : null;
    if (found !== null) return found;
  }
  return null;
}

async function chooseNow(cluster: ClusterSim, random: SeededRandom): Promise<DiskObject | null> {
  const disks = cluster.state.all('disks').filter(({ id }) => isSpare(cluster.state, id));
  while (disks.length > 0) {
    const disk = random.pick(disks);
    disks.splice(disks.indexOf(disk), 1);
    if (await cluster.wait(hasRoom(cluster.admin, disk.id))) return disk;
  }
  return null;
}

async function hasRoom(deps: CordonDeps, id: string): Promise<boolean> {
  try {
    return (await previewDrain(deps, { kind: 'disk', name: id })).replicas > 0;
  } catch (error) {
    if (codeOf(error) === 'DRAIN_REFUSED') return false;
    throw error;
  }
}

/** Everything that it holds a part of can be had without it. */
function isSpare(state: ClusterState, id: string): boolean {
  const volumes = state
    .all('volumes')
    .filter(({ legs }) => legs.some((leg) => leg.replicas.some(({ disk }) => disk === id)));
  const isTwice = volumes.every((volume) => {
    const parity = volume.erasure?.parity ?? volume.copies - 1;
    return parity > 0 && volume.phase === 'live' && volumeView(state, volume).health === 'redundant';
  });
  return (
    isTwice &&
    state.all('snapshots').every((snapshot) => {
      if (snapshot.cut?.copies.some(({ disk }) => disk === id) !== true) return true;
      const volume = state.get('volumes', snapshot.volumeId);
      if (volume === null || snapshot.phase !== 'ready') return false;
      const others = copiesUp(snapshot, volume.legs.length, ({ disk }) => disk !== id);
      return others.every((copies) => copies.length >= copiesNeeded(volume));
    })
  );
}

interface LossDeps {
  readonly deps: CordonDeps;
  readonly clock: Clock;
  readonly rareEvents: RareEvents;
}

class DiskLoss {
  readonly #with: LossDeps;
  readonly #id: string;
  #problem: string | null = null;
  #drained: Promise<void> = Promise.resolve();

  constructor(given: LossDeps, id: string) {
    this.#with = given;
    this.#id = id;
  }

  /** Of what was asked last. */
  get problem(): string | null {
    return this.#problem;
  }

  drain(): void {
    this.#drained = this.#ask(async () => {
      await drain(this.#with.deps, { kind: 'disk', name: this.#id });
    });
  }

  /** Once it was drained: until then it is busy. */
  remove(): void {
    void this.#ask(async () => {
      await this.#drained;
      await removeDisk(this.#with.deps, this.#id);
    }).then(() => this.#with.rareEvents.reach('lost_disk_removed'));
  }

  /** What of the cluster is there yet, as far as the store knows, or null. */
  holds(state: ClusterState): string | null {
    const { replicas, maps, snapshotCopies } = restOf(state, { kind: 'disk', name: this.#id });
    if (replicas + maps + snapshotCopies === 0) return null;
    return `holds ${replicas} replicas and ${snapshotCopies} copies of snapshots, and ${maps} maps name it`;
  }

  isOut(state: ClusterState): boolean {
    const works = state.all('jobs').some((job) => !hasEnded(job) && job.arguments['disk'] === this.#id);
    const isNamed = state.all('tombstones').some(({ disk }) => disk === this.#id) || this.holds(state) !== null;
    return !works && !isNamed && state.get('disks', this.#id) === null;
  }

  async #ask(act: () => Promise<void>): Promise<void> {
    await askUntilAnswered(this.#with.clock, {}, async () => {
      try {
        await act();
      } catch (error) {
        this.#problem = error instanceof Error ? error.message : String(error);
        throw error;
      }
    });
  }
}
