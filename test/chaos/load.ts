// SPDX-License-Identifier: Apache-2.0
// Random reads, writes and flushes of one client on one volume, each recorded and each read judged.
// A worker writes regions of its own, so that two writes never overlap; it reads everywhere.

import { systemClock } from '../../src/env/clock.js';
import type { HistoryLog } from './history.js';
import type { BlockOracle } from './oracle.js';
import type { SeededRandom } from './random.js';
import { blockBytes, readStamp, valueText, writeStamp } from './stamp.js';

/** What a client offers. Each call settles when the outcome is known; a rejection is an error that a host would see. */
export interface BlockDevice {
  read(offsetBytes: number, into: Buffer): Promise<void>;
  write(offsetBytes: number, from: Buffer): Promise<void>;
  flush(): Promise<void>;
  allocate(bytes: number): Buffer;
  close(): Promise<void>;
}

export interface LoadOptions {
  readonly device: BlockDevice;
  readonly oracle: BlockOracle;
  readonly history: HistoryLog;
  readonly random: SeededRandom;
  readonly volume: bigint;
  readonly writer: number;
  readonly depth: number;
  /** Operations per second, all workers together. */
  readonly rate: number;
  readonly firstSequence: number;
}

const regionBlocks = 8;
const kept = 20;

export class Load {
  readonly #options: LoadOptions;
  readonly #workers: Promise<void>[] = [];
  #running = true;
  #sequence: number;
  #lastMs = systemClock.now();
  #gapMs = 0;
  readonly counts = { reads: 0, writes: 0, flushes: 0, errors: 0, violations: 0 };
  /** The first of them, in words. */
  readonly errors: string[] = [];
  readonly violations: string[] = [];

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#sequence = options.firstSequence;
  }

  start(): void {
    for (let worker = 0; worker < this.#options.depth; worker++) this.#workers.push(this.#work(worker));
  }

  get completed(): number {
    return this.counts.reads + this.counts.writes + this.counts.flushes;
  }

  mark(): void {
    this.#gapMs = 0;
    this.#lastMs = systemClock.now();
  }

  /** The longest time without a completion since mark(). */
  get gapMs(): number {
    return Math.max(this.#gapMs, systemClock.now() - this.#lastMs);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }

  /** Reads and judges every block. */
  async verify(): Promise<number> {
    const { device, oracle } = this.#options;
    const blocks = 32;
    const buffer = device.allocate(blocks * blockBytes);
    for (let lba = 0; lba < oracle.blocks; lba += blocks) {
      const count = Math.min(blocks, oracle.blocks - lba);
      await this.#read(lba, count, buffer.subarray(0, count * blockBytes));
    }
    return oracle.blocks;
  }

  async #work(worker: number): Promise<void> {
    const { device, random, depth, rate, oracle } = this.#options;
    const buffer = device.allocate(regionBlocks * blockBytes);
    const intervalMs = (1000 * depth) / rate;
    const regions = Math.floor(oracle.blocks / regionBlocks / depth);
    let dueMs = systemClock.now() + intervalMs * random.next();
    while (this.#running) {
      await systemClock.sleep(Math.max(0, dueMs - systemClock.now()));
      // What a stall held up is not made up for.
      dueMs = Math.max(dueMs, systemClock.now() - 1000) + intervalMs;
      const draw = random.next();
      if (draw < 0.03) await this.#flush();
      else if (draw < 0.43) {
        const blocks = random.between(1, regionBlocks);
        await this.#read(random.below(oracle.blocks - blocks), blocks, buffer.subarray(0, blocks * blockBytes));
      } else {
        const region = (random.below(regions) * depth + worker) * regionBlocks;
        const first = random.below(regionBlocks);
        const blocks = random.between(1, regionBlocks - first);
        await this.#write(region + first, blocks, buffer.subarray(0, blocks * blockBytes));
      }
    }
  }

  async #write(lba: number, blocks: number, buffer: Buffer): Promise<void> {
    const { device, oracle, history, volume, writer } = this.#options;
    const seq = this.#sequence++;
    for (let at = 0; at < blocks; at++) {
      writeStamp(buffer.subarray(at * blockBytes, (at + 1) * blockBytes), {
        volume,
        block: lba + at,
        writer,
        sequence: seq,
      });
    }
    const inv = history.now();
    history.intent({ seq, lba, blocks, inv });
    oracle.started(lba, blocks, seq);
    const ok = await this.#settle(`write ${lba}+${blocks}`, device.write(lba * blockBytes, buffer));
    if (ok) oracle.acknowledged(lba, blocks, seq);
    history.add({ op: 'write', lba, blocks, inv, end: history.now(), status: ok ? 'ok' : 'info', seq });
    this.counts.writes++;
  }

  async #read(lba: number, blocks: number, buffer: Buffer): Promise<void> {
    const { device, oracle, history, volume } = this.#options;
    const floors = oracle.floors(lba, blocks);
    const inv = history.now();
    const ok = await this.#settle(`read ${lba}+${blocks}`, device.read(lba * blockBytes, buffer));
    const end = history.now();
    this.counts.reads++;
    if (!ok) return history.add({ op: 'read', lba, blocks, inv, end, status: 'info' });
    const values = Array.from({ length: blocks }, (_, at) => {
      const value = readStamp(buffer.subarray(at * blockBytes, (at + 1) * blockBytes));
      const complaint = oracle.judge(lba + at, value, floors[at] ?? 0);
      if (complaint !== null) {
        this.counts.violations++;
        if (this.violations.length < kept) this.violations.push(`${(inv / 1e9).toFixed(3)} s: ${complaint}`);
      }
      return valueText(value, volume, lba + at);
    });
    history.add({ op: 'read', lba, blocks, inv, end, status: 'ok', values });
  }

  async #flush(): Promise<void> {
    const { device, history } = this.#options;
    const inv = history.now();
    const ok = await this.#settle('flush', device.flush());
    history.add({ op: 'flush', lba: 0, blocks: 0, inv, end: history.now(), status: ok ? 'ok' : 'info' });
    this.counts.flushes++;
  }

  async #settle(what: string, done: Promise<void>): Promise<boolean> {
    const failure = await done.then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const now = systemClock.now();
    this.#gapMs = Math.max(this.#gapMs, now - this.#lastMs);
    this.#lastMs = now;
    if (failure === null) return true;
    this.counts.errors++;
    if (this.errors.length < kept) this.errors.push(`${what}: ${failure}`);
    return false;
  }
}
