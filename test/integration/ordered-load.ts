// SPDX-License-Identifier: Apache-2.0
//
// A load over one or more volumes that notes, in one order, when each write was asked for and acknowledged. What a snapshot
// holds, or a group of them, is judged by it: an instant lacks no write that had been acknowledged before a write that it
// holds, in whichever volume, was asked for.

import { expect } from 'vitest';
import { Cluster } from '../../src/index.js';
import { Pace } from './pace.js';
import { type TestHost, volumeBytes } from './running-cluster.js';

const blockBytes = 4096;
const withinMs = 120_000;

interface Write {
  readonly volume: number;
  readonly block: number;
  readonly sequence: number;
  readonly invoked: number;
  acknowledged: number;
}

/** Each worker has blocks of its own in all volumes, and writes to one volume after the other. */
export class OrderedLoad {
  readonly #writes: Write[] = [];
  readonly #hosts: readonly TestHost[];
  readonly #blockCount: number;
  readonly #pace = new Pace();
  readonly #workers: Promise<void>[];
  #order = 0;
  #running = true;

  /** One host a volume of `volumeBytes`, `blockCount` blocks of each: over all stripes of all legs. */
  constructor(hosts: readonly TestHost[], options: { depth: number; blockCount: number }) {
    this.#hosts = hosts;
    this.#blockCount = options.blockCount;
    this.#workers = Array.from({ length: options.depth }, (_, worker) => this.#work(worker, options.depth));
    for (const worker of this.#workers) worker.catch(() => {});
  }

  /** Grows with everything that was asked for or acknowledged. */
  get order(): number {
    return this.#order;
  }

  /** Since it was last asked. */
  takeGap(): number {
    const gap = this.#pace.longestGapMs;
    this.#pace.resetGap();
    return gap;
  }

  progress(count: number): Promise<void> {
    return this.#pace.progress(count, withinMs);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }

  /** What each block of the volume with that name holds, by the numbers of writes; read by a program that opens it. */
  async contents(api: string, name: string): Promise<number[]> {
    const cluster = await Cluster.connect({ api });
    try {
      const opened = await cluster.open(name);
      const found: number[] = [];
      for (let block = 0; block < this.#blockCount; block++) {
        const bytes = await opened.read(block * this.#stepBytes, blockBytes);
        const sequence = bytes.readUInt32LE(0);
        for (let at = 512; at < blockBytes; at += 512)
          expect(bytes.readUInt32LE(at), `torn block ${block} of ${name}`).toBe(sequence);
        found.push(sequence);
      }
      await opened.close();
      return found;
    } finally {
      await cluster.close();
    }
  }

  /**
   * `held` is the contents of each volume's snapshot: one instant, with all that had been acknowledged before it was `asked`
   * for, nothing that was asked for after it was `over`.
   */
  expectInstant(held: readonly (readonly number[])[], asked: number, over: number): void {
    const contained = held.map((blocks) => blocks.map((sequence) => this.#writes[sequence - 1] ?? null));
    held.forEach((blocks, volume) => {
      for (const [block, sequence] of blocks.entries())
        if (sequence !== 0) expect(contained[volume]?.[block], `#${sequence}`).toMatchObject({ volume, block });
    });
    const last = Math.max(asked, ...contained.flat().map((write) => write?.invoked ?? 0));
    expect(last).toBeLessThanOrEqual(Math.max(over, asked));
    const missed = this.#writes.filter((write) => {
      const here = contained[write.volume]?.[write.block] ?? null;
      return write.acknowledged < last && write.sequence > (here?.sequence ?? 0);
    });
    expect(missed.slice(0, 5)).toEqual([]);
  }

  get #stepBytes(): number {
    return volumeBytes / this.#blockCount;
  }

  async #work(worker: number, depth: number): Promise<void> {
    const buffers = this.#hosts.map((host) => Buffer.from(host.engine.allocate(blockBytes)));
    for (let turn = 0; this.#running; turn++) {
      const volume = (turn + worker) % this.#hosts.length;
      const [host, buffer] = [this.#hosts[volume], buffers[volume]];
      if (host === undefined || buffer === undefined) throw new Error('no host');
      await this.#pace.turn();
      const block = worker + depth * ((turn * 37) % (this.#blockCount / depth));
      const sequence = this.#writes.length + 1;
      const write: Write = { volume, block, sequence, invoked: ++this.#order, acknowledged: Number.POSITIVE_INFINITY };
      this.#writes.push(write);
      for (let at = 0; at < blockBytes; at += 512) buffer.writeUInt32LE(sequence, at);
      await host.bdev.write(block * this.#stepBytes, buffer);
      write.acknowledged = ++this.#order;
      this.#pace.done();
    }
  }
}
