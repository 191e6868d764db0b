// SPDX-License-Identifier: Apache-2.0
//
// Goal: snapshots of a simulated cluster are instants over all legs and copies, whoever dies in the middle of them.
// Method: hosts write while snapshots are asked for and nodes are killed; when all is whole again each snapshot is cloned,
// and what a host reads from the clone is judged by the history of the writes. A planted bug must be found.

import { describe, expect, it } from 'vitest';
import { cloneSnapshot, createSnapshot, requireSnapshot } from '../api/snapshots.js';
import { attachVolume, requireVolume } from '../api/volumes.js';
import { SeededRandom } from '../env/seeded-random.js';
import { nqns } from '../model/keys.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { SimHost } from './sim-host.js';

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

interface Asked {
  readonly name: string;
  readonly askedNs: number;
  madeNs: number;
}

class SnapshotRun {
  readonly cluster: ClusterSim;
  readonly #random: SeededRandom;
  readonly #asked: Asked[] = [];

  constructor(seed: bigint, bugs: ClusterShape['bugs'] = {}) {
    this.cluster = new ClusterSim(seed, { ...shape, bugs });
    this.#random = new SeededRandom(seed ^ 0x5a5an);
  }

  async start(): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload(mix);
    await this.cluster.runFor(100);
  }

  async #await<T>(promise: Promise<T>): Promise<T> {
    let settled: (() => T) | null = null;
    promise.then(
      (value) => {
        settled = () => value;
      },
      (error: unknown) => {
        settled = () => {
          throw error;
        };
      },
    );
    if (!(await this.cluster.runUntil(() => settled !== null, 60_000))) throw new Error('no answer');
    return (settled as unknown as () => T)();
  }

  #phase(name: string): string {
    const { state } = this.cluster;
    return requireSnapshot(state, requireVolume(state, 'v1').value, name).value.phase;
  }

  /** Asks for one; `meanwhile` some time after. */
  async snapshot(meanwhile: () => void = () => {}): Promise<void> {
    const { cluster } = this;
    const name = `s${this.#asked.length}`;
    const asked: Asked = { name, askedNs: cluster.nowNs, madeNs: Number.POSITIVE_INFINITY };
    this.#asked.push(asked);
    const clock = cluster.server.clock;
    await this.#await(createSnapshot(cluster.admin, clock, { volume: 'v1', request: { name } }));
    await cluster.runFor(this.#random.fraction() * 8);
    meanwhile();
    const made = await cluster.runUntil(() => this.#phase(name) === 'ready', 60_000);
    expect(made, `snapshot ${name}: ${this.#phase(name)}`).toBe(true);
    asked.madeNs = cluster.nowNs;
    await cluster.runFor(this.#random.between(5, 60));
  }

  /** Every snapshot, read through a clone. */
  async judge(): Promise<string[]> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    const rested = await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 60_000);
    expect(rested).toBe(true);
    expect(cluster.violation).toBeNull();
    const found: string[] = [];
    for (const asked of this.#asked) {
      const values = await this.#read(asked.name);
      const problem = cluster.history.judgeSnapshot(asked, values);
      if (problem !== null) found.push(`${asked.name}: ${problem}`);
    }
    return found;
  }

  async #read(snapshot: string): ReturnType<SimHost['readOther']> {
    const { cluster } = this;
    const request = { name: `clone-${snapshot}` };
    const { id } = await this.#await(cloneSnapshot(cluster.admin, { volume: 'v1', snapshot, request }));
    const host = cluster.hosts[0] as SimHost;
    await this.#await(attachVolume(cluster.admin, request.name, { host: SimHost.nqn(host.name) }));
    const served = (): boolean => cluster.state.get('leaderships', id)?.controller != null;
    expect(await cluster.runUntil(served, 60_000)).toBe(true);
    const paths = cluster.controllerNodes.map(({ config }) => ({
      traddr: config.address,
      trsvcid: String(config.hostPort),
    }));
    return this.#await(host.readOther(nqns.volume(id), paths));
  }

  /** Kills and restarts one of them. */
  killOne(kind: 'controller' | 'disk'): void {
    const { cluster } = this;
    const holder = cluster.view.controller;
    const nodes = kind === 'disk' ? cluster.diskNodes : cluster.controllerNodes;
    const victim = kind === 'disk' ? this.#random.pick(nodes) : nodes.find(({ config }) => config.name === holder);
    victim?.kill();
    cluster.after(300, () => victim?.start());
  }
}

describe('snapshots of a simulated cluster', { timeout: 300_000 }, () => {
  it.each(seeds)('are instants while hosts write (seed %s)', async (seed) => {
    const run = new SnapshotRun(seed);
    await run.start();
    for (let count = 0; count < 4; count++) await run.snapshot();
    expect(await run.judge()).toEqual([]);
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
    expect(await run.judge()).toEqual([]);
    run.cluster.close();
  });

  it('are found to be none when they are cut leg by leg', async () => {
    const run = new SnapshotRun(7n, { cutLegByLeg: true });
    await run.start();
    for (let count = 0; count < 6; count++) await run.snapshot();
    expect((await run.judge()).join()).toMatch(/of the snapshot holds #\d+, but #\d+ had been acknowledged before/);
    run.cluster.close();
  });
});
