// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, a group of snapshots is one instant of two volumes that different controllers drive, made while
// hosts write to both; it is whole or not there when a controller is killed or stands still in the middle of it.
// Method: a load over both volumes that notes, in one order, when each write was asked for and acknowledged. What clones of
// the group hold is compared with that: no block of either volume may lack a write that had been acknowledged before a
// write that another block holds was asked for. For how long requests were held is printed, not asserted.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/env/clock.js';
import { Cluster } from '../../src/index.js';
import type { SnapshotGroupView, VolumeView } from '../../src/model/api.js';
import { hostNqn, RunningCluster, TestHost, volumeBytes, volumeName } from './running-cluster.js';

const blockBytes = 4096;
const blockCount = 256;
const stepBytes = volumeBytes / blockCount;
const twinName = 'vol2';
const names = [volumeName, twinName];
const patientMs = 120_000;

interface Write {
  readonly volume: number;
  readonly block: number;
  readonly sequence: number;
  readonly invoked: number;
  acknowledged: number;
}

/** Each worker has blocks of its own in both volumes, and writes to one after the other. */
class PairLoad {
  readonly writes: Write[] = [];
  readonly #hosts: readonly TestHost[];
  readonly #workers: Promise<void>[];
  #order = 0;
  #running = true;

  constructor(hosts: readonly TestHost[], depth: number) {
    this.#hosts = hosts;
    this.#workers = Array.from({ length: depth }, (_, worker) => this.#work(worker, depth));
    for (const worker of this.#workers) worker.catch(() => {});
  }

  /** Grows with everything that was asked for or acknowledged. */
  get order(): number {
    return this.#order;
  }

  async #work(worker: number, depth: number): Promise<void> {
    const buffers = this.#hosts.map((host) => Buffer.from(host.engine.allocate(blockBytes)));
    for (let turn = 0; this.#running; turn++) {
      const volume = (turn + worker) % this.#hosts.length;
      const [host, buffer] = [this.#hosts[volume], buffers[volume]];
      if (host === undefined || buffer === undefined) throw new Error('no host');
      const block = worker + depth * ((turn * 37) % (blockCount / depth));
      const sequence = this.writes.length + 1;
      const write: Write = { volume, block, sequence, invoked: ++this.#order, acknowledged: Number.POSITIVE_INFINITY };
      this.writes.push(write);
      for (let at = 0; at < blockBytes; at += 512) buffer.writeUInt32LE(sequence, at);
      await host.bdev.write(block * stepBytes, buffer);
      write.acknowledged = ++this.#order;
    }
  }

  async progress(count: number): Promise<void> {
    const goal = this.writes.length + count;
    for (const endMs = systemClock.now() + patientMs; this.writes.length < goal; await systemClock.sleep(5))
      if (systemClock.now() > endMs) throw new Error('the load does not go on');
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }
}

describe('groups of snapshots of a cluster of processes', { timeout: 600_000 }, () => {
  let running: RunningCluster;
  let load: PairLoad;
  const hosts: TestHost[] = [];

  const isSettled = (volume: VolumeView): boolean => {
    const states = volume.paths.map((path) => path.state).sort();
    return volume.health === 'redundant' && states.join(' ') === 'active standby';
  };
  const settled = (name: string): Promise<VolumeView> =>
    running.cluster.waitForVolume(name, 'redundant with both controllers up', patientMs, isSettled);

  beforeAll(async () => {
    running = await RunningCluster.start();
    const { api } = running.cluster;
    const controllers = ['controller-2', 'controller-1'];
    await api.createVolume({ name: twinName, sizeBytes: volumeBytes, copies: 2, legs: 2, controllers });
    await api.attach(twinName, { host: hostNqn });
    for (const name of names) hosts.push(await TestHost.connect(await settled(name)));
    load = new PairLoad(hosts, 8);
  }, 180_000);
  afterAll(async () => {
    await load?.stop().catch(() => {});
    for (const host of hosts) await host.close();
    await running?.stop();
  }, 60_000);

  /** Each volume on the controller of its own. */
  async function apart(): Promise<void> {
    const { api } = running.cluster;
    for (const [name, to] of [
      [volumeName, 'controller-1'],
      [twinName, 'controller-2'],
    ] as const) {
      const { id } = await api.moveController(name, to);
      const endMs = systemClock.now() + patientMs;
      while ((await api.job(id)).endedAtMs === null && systemClock.now() < endMs) await systemClock.sleep(20);
      expect(await settled(name)).toMatchObject({ controller: to });
    }
  }

  const asked = new Map<string, number>();
  const over = new Map<string, number>();

  /** Made in the end: on a machine that does much else, rounds may be too late until a group has failed. */
  async function made(name: string): Promise<SnapshotGroupView> {
    const { api } = running.cluster;
    for (const endMs = systemClock.now() + patientMs; ; await systemClock.sleep(20)) {
      const view = await api.snapshotGroup(name);
      const there = view.snapshots.filter(({ state }) => state === 'ready').length;
      expect([0, view.snapshots.length], JSON.stringify(view)).toContain(there);
      if (view.state === 'ready') {
        over.set(name, load.order);
        return view;
      }
      if (view.state === 'failed') await api.createSnapshotGroup(name, names);
      if (systemClock.now() > endMs) throw new Error(`group ${name}: ${JSON.stringify(view)}`);
    }
  }

  async function ask(name: string): Promise<void> {
    asked.set(name, load.order);
    await running.cluster.api.createSnapshotGroup(name, names);
  }

  /** What each block of a clone of that snapshot holds, by the numbers of writes. */
  async function contents(volume: string, group: string): Promise<number[]> {
    const name = `${volume}-${group}`;
    await running.cluster.api.cloneSnapshot(volume, group, { name, controllers: [] });
    await running.cluster.waitForVolume(name, 'made', patientMs, ({ phase }) => phase === 'live');
    const cluster = await Cluster.connect({ api: running.cluster.api.endpoint });
    try {
      const opened = await cluster.open(name);
      const found: number[] = [];
      for (let block = 0; block < blockCount; block++)
        found.push((await opened.read(block * stepBytes, blockBytes)).readUInt32LE(0));
      await opened.close();
      return found;
    } finally {
      await cluster.close();
      await running.cluster.api.deleteVolume(name);
    }
  }

  async function expectInstant(group: string): Promise<void> {
    const held = [await contents(volumeName, group), await contents(twinName, group)];
    const { writes } = load;
    const contained = held.map((blocks) => blocks.map((sequence) => writes[sequence - 1] ?? null));
    contained.forEach((blocks, volume) => {
      for (const [block, write] of blocks.entries())
        if (write !== null) expect([write.volume, write.block]).toEqual([volume, block]);
    });
    const last = Math.max(asked.get(group) ?? 0, ...contained.flat().map((write) => write?.invoked ?? 0));
    expect(last).toBeLessThanOrEqual(over.get(group) ?? last);
    const missed = writes.filter((write) => {
      const here = contained[write.volume]?.[write.block] ?? null;
      return write.acknowledged < last && write.sequence > (here?.sequence ?? 0);
    });
    expect(missed.slice(0, 5)).toEqual([]);
    // The disks are small.
    await running.cluster.api.deleteSnapshotGroup(group);
  }

  it('are one instant of both volumes, with a short pause', async () => {
    await load.progress(2_000);
    await apart();
    const held: string[] = [];
    for (let round = 0; round < 3; round++) {
      await ask(`g${round}`);
      const view = await made(`g${round}`);
      held.push(view.snapshots.map(({ heldUs }) => ((heldUs ?? 0) / 1000).toFixed(1)).join('/'));
      await load.progress(300);
      await expectInstant(`g${round}`);
    }
    process.stderr.write(`groups of snapshots held requests of each volume for ${held.join(', ')} ms\n`);
  });

  it('are whole or not there when a controller is killed, or stands still, in the middle of them', async () => {
    for (let round = 0; round < 4; round++) {
      await apart();
      await load.progress(100);
      const daemon = running.cluster.daemon(round % 2 === 0 ? 'controller-2' : 'controller-1');
      await ask(`k${round}`);
      await systemClock.sleep(round * 5);
      if (round < 2) {
        await daemon.kill();
        await made(`k${round}`);
        await daemon.start();
      } else {
        const { pid } = daemon;
        if (pid === undefined) throw new Error('the daemon does not run');
        process.kill(pid, 'SIGSTOP');
        await systemClock.sleep(700);
        process.kill(pid, 'SIGCONT');
        await made(`k${round}`);
      }
      for (const name of names) await settled(name);
      await expectInstant(`k${round}`);
    }
  });
});
