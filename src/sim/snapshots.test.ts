// SPDX-License-Identifier: Apache-2.0
//
// Goal: snapshots of a simulated cluster are instants over all legs and copies, and never change, whoever dies in the middle
// of them. Method: hosts write while snapshots are asked for and nodes are killed; when all is whole again a volume is made
// of each, and what a host reads there is judged by the history of the writes. Planted bugs must be found.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import type { WorkloadMix } from './sim-host.js';
import { calmStore } from './sim-store.js';

const shape: ClusterShape = { ...plainShape, legs: 2, networkDelayMaxMs: 0.5, diskDelayMaxMs: 1 };
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

class SnapshotRun {
  readonly cluster: ClusterSim;
  readonly #random: SeededRandom;

  constructor(seed: bigint, bugs: ClusterShape['bugs'] = {}, differences: Partial<ClusterShape> = {}) {
    this.cluster = new ClusterSim(seed, { ...shape, ...differences, bugs });
    this.#random = new SeededRandom(seed ^ 0x5a5an);
  }

  async start(differences: Partial<WorkloadMix> = {}): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload({ ...mix, ...differences });
    await this.cluster.runFor(100);
  }

  /** Asks for one; `meanwhile` some time after. */
  async snapshot(meanwhile: () => void = () => {}): Promise<string> {
    const { cluster } = this;
    const name = cluster.snapshots.freeName;
    if (name === null) throw new Error('too many snapshots');
    cluster.snapshots.make(name);
    await cluster.runFor(this.#random.fraction() * 8);
    meanwhile();
    const rested = await cluster.runUntil(() => cluster.snapshots.unrest(cluster.state) === null, 60_000);
    expect(rested, cluster.snapshots.unrest(cluster.state) ?? '').toBe(true);
    const made = cluster.state.all('snapshots').find((snapshot) => snapshot.name === name);
    expect(made?.phase, made?.problem).toBe('ready');
    await cluster.runFor(this.#random.between(5, 60));
    return name;
  }

  /** What is wrong with a snapshot, or null. */
  async judge(): Promise<string | null> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    const rested = await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 60_000);
    expect(rested).toBe(true);
    expect(cluster.violation).toBeNull();
    return cluster.wait(cluster.judgeSnapshots());
  }

  /** Kills and restarts one of them. */
  killOne(kind: 'controller' | 'disk'): void {
    const { cluster } = this;
    const holder = cluster.driver;
    const nodes = kind === 'disk' ? cluster.diskNodes : cluster.controllerNodes;
    const victim = kind === 'disk' ? this.#random.pick(nodes) : nodes.find(({ config }) => config.name === holder);
    victim?.kill();
    cluster.after(300, () => victim?.start());
  }
}

/** `partCount`: of a volume that is made of one; 0: it has none. */
async function staySameInClones(run: SnapshotRun, partCount: number): Promise<void> {
  await run.start();
  const { cluster } = run;
  const [older, newer] = [await run.snapshot(), await run.snapshot()];
  cluster.operator.clone('w1', { volume: cluster.volumeName, snapshot: older });
  cluster.operator.clone('w2', { volume: cluster.volumeName, snapshot: newer });
  expect(await cluster.runUntil(() => cluster.unrest === null, 60_000), cluster.unrest ?? '').toBe(true);
  expect(cluster.state.volumeByName('w1')?.parts ?? []).toHaveLength(partCount);
  cluster.snapshots.delete(older);
  run.killOne('disk');
  expect(await cluster.runUntil(() => cluster.redundant && cluster.unrest === null, 60_000)).toBe(true);
  expect(cluster.snapshots.kept).toEqual([newer]);
  expect(await run.judge()).toBeNull();
  expect(cluster.rareEvents.count('clone_read')).toBe(2);
  run.cluster.close();
}

describe('snapshots of a simulated cluster', { timeout: 300_000 }, () => {
  it.each(seeds)('are instants while hosts write (seed %s)', async (seed) => {
    const run = new SnapshotRun(seed);
    await run.start();
    for (let count = 0; count < 3; count++) await run.snapshot();
    expect(await run.judge()).toBeNull();
    run.cluster.close();
  });

  it.each(seeds)('are instants, and are made, when nodes die in the middle of them (seed %s)', async (seed) => {
    const run = new SnapshotRun(seed);
    await run.start();
    await run.snapshot(() => run.killOne('controller'));
    await run.cluster.runUntil(() => run.cluster.redundant, 60_000);
    await run.snapshot(() => run.killOne('disk'));
    await run.cluster.runUntil(() => run.cluster.redundant, 60_000);
    await run.snapshot(() => run.killOne('controller'));
    expect(await run.judge()).toBeNull();
    run.cluster.close();
  });

  it('are what they were when every disk that they were cut on was drained while hosts wrote', async () => {
    const run = new SnapshotRun(13n, {}, { disks: 4, legs: 1 });
    await run.start();
    const { cluster } = run;
    for (let count = 0; count < 2; count++) await run.snapshot();
    const nodes = (): string[] => {
      const copies = cluster.state.all('snapshots').flatMap(({ cut }) => cut?.copies ?? []);
      return [...new Set(copies.map(({ node }) => node))].sort();
    };
    const first = nodes();
    for (const name of first) {
      cluster.drainer.drain({ kind: 'node', name });
      const rested = await cluster.runUntil(() => cluster.drainer.unrest(cluster.state) === null, 120_000);
      expect(rested, cluster.drainer.unrest(cluster.state) ?? '').toBe(true);
    }
    expect(nodes().filter((name) => first.includes(name))).toEqual([]);
    expect(cluster.rareEvents.count('snapshot_copied')).toBeGreaterThanOrEqual(4);
    expect(await run.judge()).toBeNull();
    run.cluster.close();
  });

  it('are the same in volumes that were made of them before and after others went', async () => {
    await staySameInClones(new SnapshotRun(5n), 0);
  });

  describe('of a volume with several active controllers', () => {
    const several: Partial<ClusterShape> = { active: 2, legs: 4, controllers: 3, hosts: 2 };

    it.each(seeds)('are instants over all its parts, whoever dies in the middle of them (seed %s)', async (seed) => {
      const run = new SnapshotRun(seed, {}, several);
      await run.start();
      for (const kind of [null, 'controller', 'disk', 'controller'] as const) {
        await run.snapshot(() => (kind === null ? undefined : run.killOne(kind)));
        await run.cluster.runUntil(() => run.cluster.redundant, 60_000);
      }
      expect(await run.judge()).toBeNull();
      run.cluster.close();
    });

    it('are the same in volumes that were made of them before and after others went', async () => {
      await staySameInClones(new SnapshotRun(5n, {}, several), 2);
    });

    it('are all made when many are asked for at one moment', async () => {
      const run = new SnapshotRun(11n, {}, { ...several, store: { ...calmStore, latencyMaxMs: 5 } });
      await run.start();
      const { cluster } = run;
      for (const name of ['s1', 's2', 's3', 's4', 's5', 's6']) cluster.snapshots.make(name);
      const rested = await cluster.runUntil(() => cluster.snapshots.unrest(cluster.state) === null, 30_000);
      expect(rested, cluster.snapshots.unrest(cluster.state) ?? '').toBe(true);
      const phases = cluster.state.all('snapshots').map(({ phase }) => phase);
      expect(phases).toEqual(Array.from({ length: 12 }, () => 'ready'));
      expect(await run.judge()).toBeNull();
      run.cluster.close();
    });

    it('are found to be none when its parts are cut one after another', async () => {
      const run = new SnapshotRun(7n, { cutVolumesApart: true }, several);
      await run.start();
      for (let count = 0; count < 6; count++) await run.snapshot();
      expect(await run.judge()).toMatch(/of the snapshot holds #\d+, but #\d+ had been acknowledged before/);
      run.cluster.close();
    });
  });

  it('are found to be none when they are cut leg by leg', async () => {
    const run = new SnapshotRun(7n, { cutLegByLeg: true });
    await run.start();
    for (let count = 0; count < 6; count++) await run.snapshot();
    // Which of the two is seen first depends on the seed: a block that is too old, or copies that differ.
    expect(await run.judge()).toMatch(/of the snapshot holds #\d+, but #\d+ had been acknowledged before|it changed/);
    run.cluster.close();
  });

  it.each([
    [false, null],
    [true, expect.stringMatching(/had been acknowledged before|it changed/)],
  ])(
    'are whole on a member that was away, which copies only the head when that bug is planted (%s)',
    async (planted, found) => {
      const run = new SnapshotRun(9n, planted ? { resyncHeadOnly: true } : {});
      // Some blocks that are written while it is away are written no more before the snapshot.
      await run.start({ thinkMaxMs: 40, blocksOwn: 64 });
      const { cluster } = run;
      const away = cluster.process('d2');
      away.kill();
      // Without it: it comes to lack what is written now.
      expect(await cluster.runUntil(() => cluster.monitor.shrinks > 0, 30_000)).toBe(true);
      await cluster.runFor(500);
      await cluster.wait(cluster.paceCopying({ paused: true }));
      away.start();
      const joining = (): boolean =>
        cluster.view.legs.flat().every(({ node, state }) => node !== 'd2' || state === 'joining');
      expect(await cluster.runUntil(() => away.isUp && joining(), 30_000)).toBe(true);
      await cluster.runFor(300);
      cluster.snapshots.make('s1');
      const cut = (): number | undefined =>
        cluster.state.all('snapshots').find(({ phase }) => phase === 'ready')?.cut?.copies.length;
      expect(await cluster.runUntil(() => cut() !== undefined, 60_000)).toBe(true);
      expect(cut()).toBe(planted ? 4 : 2);
      await cluster.wait(cluster.paceCopying({ paused: false }));
      expect(await cluster.runUntil(() => cluster.redundant, 60_000)).toBe(true);
      expect(await run.judge()).toEqual(found);
      run.cluster.close();
    },
  );
});
