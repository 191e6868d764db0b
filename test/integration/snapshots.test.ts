// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, snapshots are instants of the whole volume, made while a host writes, and stay what they are
// through whatever happens to controllers and disk nodes; clones begin as them.
// Method: a load that notes when each write was asked for and acknowledged; what a clone holds is compared with that: no
// block may lack a write that had been acknowledged before another block's contained write was asked for.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/env/clock.js';
import { Cluster } from '../../src/index.js';
import type { SnapshotView } from '../../src/model/api.js';
import { RunningCluster, TestHost, volumeBytes, volumeName } from './running-cluster.js';

const blockBytes = 4096;
const blockCount = 512;
/** Over all stripes of all legs. */
const stepBytes = volumeBytes / blockCount;

interface Write {
  readonly block: number;
  readonly sequence: number;
  readonly invoked: number;
  acknowledged: number;
}

/** Each worker writes its own blocks, one after the other; every write has its own number. */
class NotingLoad {
  readonly writes: Write[] = [];
  readonly #host: TestHost;
  #order = 0;
  #running = true;
  #longestGapMs = 0;
  #lastMs = systemClock.now();
  readonly #workers: Promise<void>[];

  constructor(host: TestHost, depth: number) {
    this.#host = host;
    this.#workers = Array.from({ length: depth }, (_, worker) => this.#work(worker, depth));
    for (const worker of this.#workers) worker.catch(() => {});
  }

  async #work(worker: number, depth: number): Promise<void> {
    const buffer = Buffer.from(this.#host.engine.allocate(blockBytes));
    for (let turn = 0; this.#running; turn++) {
      const block = worker + depth * ((turn * 37) % (blockCount / depth));
      const write: Write = { block, sequence: this.writes.length + 1, invoked: ++this.#order, acknowledged: Infinity };
      this.writes.push(write);
      for (let at = 0; at < blockBytes; at += 512) buffer.writeUInt32LE(write.sequence, at);
      await this.#host.bdev.write(block * stepBytes, buffer);
      write.acknowledged = ++this.#order;
      const now = systemClock.now();
      this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#lastMs);
      this.#lastMs = now;
    }
  }

  /** Grows with everything that was asked for or acknowledged. */
  get order(): number {
    return this.#order;
  }

  takeGap(): number {
    const gap = this.#longestGapMs;
    this.#longestGapMs = 0;
    return gap;
  }

  async progress(count: number): Promise<void> {
    const goal = this.writes.length + count;
    const endMs = systemClock.now() + 60_000;
    while (this.writes.length < goal) {
      if (systemClock.now() > endMs) throw new Error('the load does not go on');
      await systemClock.sleep(5);
    }
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }
}

describe('snapshots of a volume of a cluster of processes', { timeout: 180_000 }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: NotingLoad;

  beforeAll(async () => {
    running = await RunningCluster.start();
    host = await TestHost.connect(await running.settled());
    load = new NotingLoad(host, 8);
  }, 120_000);
  afterAll(async () => {
    await load?.stop().catch(() => {});
    await host?.close();
    await running?.stop();
  }, 60_000);

  async function made(name: string): Promise<SnapshotView> {
    const endMs = systemClock.now() + 60_000;
    for (;;) {
      const found = await running.cluster.api.snapshot(volumeName, name).catch(() => null);
      if (found !== null && found.state !== 'pending') return found;
      if (systemClock.now() > endMs) throw new Error(`snapshot ${name}: ${JSON.stringify(found)}`);
      await systemClock.sleep(20);
    }
  }

  const asked = new Map<string, number>();
  const over = new Map<string, number>();

  async function snapshot(name: string): Promise<SnapshotView> {
    asked.set(name, load.order);
    await running.cluster.api.createSnapshot(volumeName, name);
    const view = await made(name);
    over.set(name, load.order);
    expect(view, JSON.stringify(view)).toMatchObject({ state: 'ready' });
    return view;
  }

  /** What each block of the volume holds, by the numbers of writes; read by a program that opens it. */
  async function contents(volume: string): Promise<number[]> {
    const cluster = await Cluster.connect({ api: running.cluster.api.endpoint });
    try {
      const opened = await cluster.open(volume);
      const found: number[] = [];
      for (let block = 0; block < blockCount; block++) {
        const bytes = await opened.read(block * stepBytes, blockBytes);
        const sequence = bytes.readUInt32LE(0);
        for (let at = 512; at < blockBytes; at += 512)
          expect(bytes.readUInt32LE(at), `torn block ${block}`).toBe(sequence);
        found.push(sequence);
      }
      await opened.close();
      return found;
    } finally {
      await cluster.close();
    }
  }

  async function clone(name: string, from: string): Promise<void> {
    await running.cluster.api.cloneSnapshot(volumeName, from, { name, controllers: [] });
    await running.cluster.waitForVolume(name, 'made', 60_000, (volume) => volume.phase === 'live');
  }

  /** Holds what had been acknowledged before it was asked for, nothing that was asked for after it was made. */
  function expectInstant(held: readonly number[], name: string): void {
    const { writes } = load;
    const contained = held.map((sequence) => (sequence === 0 ? null : (writes[sequence - 1] ?? null)));
    held.forEach((sequence, block) => {
      if (sequence !== 0) expect(contained[block]?.block, `block ${block}`).toBe(block);
    });
    const last = Math.max(asked.get(name) ?? 0, ...contained.map((write) => write?.invoked ?? 0));
    expect(last).toBeLessThanOrEqual(over.get(name) ?? last);
    const missed = writes.filter((write) => {
      const here = contained[write.block] ?? null;
      return write.acknowledged < last && write.sequence > (here?.sequence ?? 0);
    });
    expect(missed.slice(0, 5)).toEqual([]);
  }

  it('are instants over all legs, while a host writes, with a short pause', async () => {
    await load.progress(2_000);
    load.takeGap();
    const held: number[] = [];
    for (let round = 0; round < 5; round++) {
      const view = await snapshot(`s${round}`);
      expect(view).toMatchObject({ copies: 2, copiesWanted: 2 });
      held.push((view.heldUs ?? 0) / 1000);
      await load.progress(300);
    }
    const gap = load.takeGap();
    const text = held.map((ms) => ms.toFixed(1)).join(', ');
    process.stderr.write(`snapshots held requests for ${text} ms; longest gap of the load ${gap.toFixed(1)} ms\n`);
    await clone('c0', 's0');
    await clone('c4', 's4');
    await load.progress(1_000);
    const [first, last] = [await contents('c0'), await contents('c4')];
    expectInstant(first, 's0');
    expectInstant(last, 's4');
    // The later one holds nothing older.
    first.forEach((sequence, block) => {
      expect(last[block]).toBeGreaterThanOrEqual(sequence);
    });
    expect(last).not.toEqual(first);
    await clone('c0-again', 's0');
    expect(await contents('c0-again')).toEqual(first);
  });

  it('are whole or not there when controllers are killed in the middle of them', async () => {
    const names: string[] = [];
    for (let round = 0; round < 3; round++) {
      const name = `k${round}`;
      const active = await running.activeController();
      asked.set(name, load.order);
      await running.cluster.api.createSnapshot(volumeName, name);
      await systemClock.sleep(round * 4);
      await running.cluster.daemon(active).kill();
      expect(await made(name)).toMatchObject({ state: 'ready' });
      names.push(name);
      await running.cluster.daemon(active).start();
      await running.settled();
    }
    for (const name of names) {
      await clone(`c-${name}`, name);
      expectInstant(await contents(`c-${name}`), name);
    }
  });

  it('stay what they are when everything is killed and started again', async () => {
    await clone('before', 's1');
    const held = await contents('before');
    await load.stop();
    await host.close();
    await running.cluster.killAll();
    await running.cluster.start();
    await running.settled();
    host = await TestHost.connect(await running.settled());
    load = new NotingLoad(host, 8);
    await load.progress(500);
    await clone('after', 's1');
    expect(await contents('after')).toEqual(held);
    expect(await running.cluster.api.snapshot(volumeName, 's1')).toMatchObject({ copies: 2 });
    await running.cluster.api.deleteSnapshot(volumeName, 's1');
    expect(await contents('before')).toEqual(held);
  });
});
