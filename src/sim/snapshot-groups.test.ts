// SPDX-License-Identifier: Apache-2.0
//
// Goal: a group of snapshots is one instant over volumes that different controllers drive, whole or not there, whoever dies
// or is paused in the middle. Method: hosts write to two volumes of a simulated cluster while groups are asked for; what
// volumes that are made of them hold is judged by the history of the writes to both. A planted bug must be found.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { GroupTaker } from './group-taker.js';
import type { SimProcess } from './sim-process.js';

const shape: ClusterShape = { ...plainShape, twin: true, networkDelayMaxMs: 0.5, diskDelayMaxMs: 1 };
const mix = {
  writers: 6,
  readers: 0,
  readChance: 0,
  flushChance: 0.02,
  blocksMax: 2,
  thinkMaxMs: 3,
  blocksOwn: 16,
};
const seedText = process.env['BASALT_SEED'];
const seeds = seedText === undefined ? [1n, 2n, 3n] : [BigInt(seedText)];
/** These take half a minute each; others by BASALT_SEED. */
const longSeeds = seeds.slice(0, 1);

class GroupRun {
  readonly cluster: ClusterSim;
  readonly groups: GroupTaker;
  readonly #random: SeededRandom;

  constructor(seed: bigint, differences: Partial<ClusterShape> = {}) {
    this.cluster = new ClusterSim(seed, { ...shape, ...differences });
    this.groups = new GroupTaker(this.cluster);
    this.#random = new SeededRandom(seed ^ 0x6a6an);
  }

  async start(): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload(mix);
    await this.cluster.runFor(100);
    const [one, two] = ['v1', 'v2'].map((name) => this.driver(name).name);
    expect(one).not.toBe(two);
  }

  driver(volume: string): SimProcess {
    const { state } = this.cluster;
    const id = state.volumeByName(volume)?.id ?? '';
    return this.cluster.process(state.get('leaderships', id)?.controller ?? '');
  }

  /** Asks for one; `meanwhile` some time after. How it ended. */
  async group(meanwhile: (random: SeededRandom) => void = () => {}): Promise<string | undefined> {
    const { cluster, groups } = this;
    const name = groups.make();
    await this.until(() => false, this.#random.fraction() * 15);
    meanwhile(this.#random);
    expect(await this.until((state) => groups.isOver(state), 120_000)).toBe(true);
    await this.until(() => false, this.#random.between(5, 60));
    return cluster.state.get('snapshotGroups', name)?.phase;
  }

  /** Nothing is wrong meanwhile. */
  async until(condition: (state: ClusterSim['state']) => boolean, limitMs: number): Promise<boolean> {
    const { cluster, groups } = this;
    let wrong: string | null = null;
    const held = await cluster.runUntil(() => {
      const { state } = cluster;
      wrong = groups.violation(state);
      return wrong !== null || condition(state);
    }, limitMs);
    expect(wrong).toBeNull();
    return held;
  }

  async judge(): Promise<string | null> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    const isQuiet = (): boolean => cluster.history.pending === 0 && cluster.twin?.history.pending === 0;
    expect(await this.until(() => isQuiet() && cluster.redundant, 60_000)).toBe(true);
    expect(cluster.violation).toBeNull();
    return cluster.wait(this.groups.judge());
  }
}

describe('groups of snapshots of a simulated cluster', { timeout: 300_000 }, () => {
  it.each(seeds)('are one instant over volumes that different controllers drive (seed %s)', async (seed) => {
    const run = new GroupRun(seed);
    await run.start();
    for (let count = 0; count < 3; count++) expect(await run.group()).toBe('ready');
    expect(await run.judge()).toBeNull();
    run.cluster.close();
  });

  it.each(longSeeds)(
    'are that, and are made, when nodes die or are paused in the middle of them (seed %s)',
    async (seed) => {
      const run = new GroupRun(seed);
      await run.start();
      const kill = (process: SimProcess): void => {
        process.kill();
        run.cluster.after(300, () => process.start());
      };
      const pause = (process: SimProcess, forMs: number): void => {
        process.pause();
        run.cluster.after(forMs, () => process.resume());
      };
      for (const act of [
        () => kill(run.driver('v1')),
        (random: SeededRandom) => pause(run.driver('v2'), random.between(20, 400)),
        (random: SeededRandom) => kill(random.pick(run.cluster.diskNodes)),
      ]) {
        expect(await run.group(act)).toBe('ready');
        expect(await run.until(() => run.cluster.redundant, 60_000)).toBe(true);
      }
      expect(await run.judge()).toBeNull();
      run.cluster.close();
    },
  );

  it('are found out when the volumes are cut one after another', async () => {
    const found: string[] = [];
    for (const [seed, planted] of [
      [4n, false],
      [4n, true],
      [6n, true],
    ] as const) {
      const run = new GroupRun(seed, { bugs: { cutVolumesApart: planted } });
      await run.start();
      for (let count = 0; count < 3; count++) expect(await run.group()).toBe('ready');
      const problem = await run.judge();
      if (!planted) expect(problem).toBeNull();
      else found.push(problem ?? 'nothing');
      run.cluster.close();
    }
    for (const problem of found)
      expect(problem).toMatch(
        /^group g\d: volume [12]: block \d+ of the snapshot holds #\d+, but #\d+ had been acknowledged before$/,
      );
  });
});
