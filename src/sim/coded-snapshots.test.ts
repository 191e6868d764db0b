// SPDX-License-Identifier: Apache-2.0
//
// Goal: snapshots of volumes with erasure coding are what those of mirrors are: instants over all legs and members, that
// never change, whoever dies, and whichever disks they were cut on are lost or drained; volumes begin as them.
// Method: simulated clusters with native engines; hosts write, and what a host reads in a volume that was made of a
// snapshot is judged by the history of the writes.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { run } from './run.js';
import type { WorkloadMix } from './sim-host.js';

const mix = { writers: 4, readers: 1, readChance: 0.2, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 4, blocksOwn: 16 };
const shape: ClusterShape = {
  ...plainShape,
  erasure: { data: 2, parity: 1 },
  disks: 4,
  legs: 2,
  networkDelayMaxMs: 0.5,
  diskDelayMaxMs: 1,
};

class CodedRun {
  readonly cluster: ClusterSim;

  constructor(seed: bigint, differences: Partial<ClusterShape> = {}) {
    this.cluster = new ClusterSim(seed, { ...shape, ...differences });
  }

  async start(differences: Partial<WorkloadMix> = {}): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload({ ...mix, ...differences });
    await this.cluster.runFor(100);
  }

  async snapshot(): Promise<string> {
    const { cluster } = this;
    const name = cluster.snapshots.freeName;
    if (name === null) throw new Error('too many snapshots');
    cluster.snapshots.make(name);
    await this.rest();
    const made = cluster.state.all('snapshots').find((snapshot) => snapshot.name === name);
    expect(made?.phase, made?.problem).toBe('ready');
    await cluster.runFor(50);
    return name;
  }

  async rest(): Promise<void> {
    const { cluster } = this;
    const rested = await cluster.runUntil(() => cluster.unrest === null, 120_000);
    expect(rested, cluster.unrest ?? '').toBe(true);
  }

  /** Of each leg of each snapshot: the places that its copies have. */
  get places(): (number | undefined)[][] {
    return this.cluster.state
      .all('snapshots')
      .flatMap(({ cut }) =>
        [0, 1].map((leg) => (cut?.copies ?? []).filter((copy) => copy.leg === leg).map(({ place }) => place)),
      );
  }

  async judge(): Promise<string | null> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    expect(await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 60_000)).toBe(true);
    expect(cluster.violation).toBeNull();
    return cluster.wait(cluster.judgeSnapshots());
  }
}

/** Of how many others each copy is made that disk nodes begin to make from now on. */
function sourceCounts(cluster: ClusterSim): number[] {
  const counts: number[] = [];
  for (const { engine } of cluster.diskNodes) {
    if (engine === null) continue;
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: (...args: Parameters<typeof rpc>) => {
        const [method, params] = args;
        if (method === 'basalt_parity_member_create')
          counts.push((params as { base_bdevs: readonly string[] }).base_bdevs.length);
        return rpc(...args);
      },
    });
  }
  return counts;
}

describe('snapshots of a volume with erasure coding', { timeout: 900_000 }, () => {
  it.each([1n, 2n])('are instants while hosts write (seed %s)', async (seed) => {
    const coded = new CodedRun(seed);
    await coded.start();
    for (let count = 0; count < 3; count++) await coded.snapshot();
    for (const places of coded.places) expect([...places].sort()).toEqual([0, 1, 2]);
    expect(await coded.judge()).toBeNull();
    coded.cluster.close();
  });

  it('are recomputed on other disks when one that they were cut on is lost', async () => {
    const coded = new CodedRun(3n, { rebuildAfterMs: 300 });
    await coded.start();
    for (let count = 0; count < 2; count++) await coded.snapshot();
    const { cluster } = coded;
    const victim = cluster.process('d2');
    victim.kill();
    const isAway = (): boolean =>
      cluster.state.all('snapshots').every(({ cut }) => {
        const there = (cut?.copies ?? []).filter(({ node }) => node !== 'd2');
        return [0, 1].every(
          (leg) => new Set(there.filter((copy) => copy.leg === leg).map(({ place }) => place)).size === 3,
        );
      });
    expect(await cluster.runUntil(isAway, 120_000), JSON.stringify(coded.places)).toBe(true);
    expect(cluster.rareEvents.count('snapshot_copied')).toBeGreaterThan(0);
    // What is read now comes from what was recomputed, and from one of the others.
    cluster.process('d1').kill();
    await cluster.runFor(1_000);
    cluster.process('d1').start();
    victim.start();
    await coded.rest();
    for (const places of coded.places) expect([...places].sort()).toEqual([0, 1, 2]);
    expect(await coded.judge()).toBeNull();
    cluster.close();
  });

  it('leave disks that are drained, and are the same afterwards', async () => {
    const coded = new CodedRun(4n);
    await coded.start();
    for (let count = 0; count < 2; count++) await coded.snapshot();
    const { cluster } = coded;
    const sources = sourceCounts(cluster);
    for (const name of ['d1', 'd3']) {
      cluster.drainer.drain({ kind: 'node', name });
      await coded.rest();
      const on = cluster.state.all('snapshots').flatMap(({ cut }) => (cut?.copies ?? []).map(({ node }) => node));
      expect(on).not.toContain(name);
      cluster.drainer.uncordon({ kind: 'node', name }, cluster.state);
      expect(await cluster.runUntil(() => !cluster.drainer.isBusy, 30_000)).toBe(true);
    }
    for (const places of coded.places) expect([...places].sort()).toEqual([0, 1, 2]);
    expect(sources.length).toBeGreaterThan(0);
    expect(new Set(sources), 'nothing is recomputed of what can be read').toEqual(new Set([1]));
    expect(await coded.judge()).toBeNull();
    cluster.close();
  });

  it('leave a disk that cannot be read any more, while its node is up', async () => {
    const coded = new CodedRun(5n);
    await coded.start();
    for (let count = 0; count < 2; count++) await coded.snapshot();
    const { cluster } = coded;
    const sources = sourceCounts(cluster);
    // One that holds data: of so few stripes a member may have the parity only.
    const damaged = (name: string): boolean =>
      cluster.damageDisk(new SeededRandom(5n), { of: name, share: 1 }).blocks > 0;
    const name = [...new Set(cluster.view.legs.flat().map(({ node }) => node))].sort().find(damaged) ?? '';
    expect(name).not.toBe('');
    cluster.drainer.drain({ kind: 'node', name });
    await coded.rest();
    const on = cluster.state.all('snapshots').flatMap(({ cut }) => (cut?.copies ?? []).map(({ node }) => node));
    expect(on).not.toContain(name);
    for (const places of coded.places) expect([...places].sort()).toEqual([0, 1, 2]);
    expect(new Set(sources)).toEqual(new Set([1, 3]));
    expect(await coded.judge()).toBeNull();
    cluster.close();
  });

  it('are found to be none when they are cut leg by leg', async () => {
    // Many members, so that there is time for whole writes between the first cut and the last.
    const wide = { erasure: { data: 3, parity: 2 }, disks: 5, diskDelayMaxMs: 0.5 };
    const coded = new CodedRun(7n, { ...wide, bugs: { cutLegByLeg: true } });
    await coded.start({ writers: 6, readers: 0, blocksMax: 2, thinkMaxMs: 3 });
    for (let count = 0; count < 6; count++) await coded.snapshot();
    expect(await coded.judge()).toMatch(/of the snapshot holds #\d+, but #\d+ had been acknowledged before|it changed/);
    coded.cluster.close();
  });

  it.each([1n, 2n, 3n])('are kept, and clones of them, while nodes die (seed %s)', async (seed) => {
    const result = await run({
      seed,
      shape: { ...shape, disks: 5, rebuildAfterMs: 300 },
      mix,
      faults: ['kill', 'kill the active', 'pause', 'slow disk'],
      changes: ['make a snapshot', 'delete a snapshot', 'clone a snapshot', 'snapshots while a disk node returns'],
    });
    expect(result, result.explanation).toMatchObject({ failure: 'none' });
  });
});
