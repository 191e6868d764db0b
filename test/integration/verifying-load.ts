// SPDX-License-Identifier: Apache-2.0
//
// A load that knows what it should read: blocks carry (block, sequence) in every 512 bytes; one request at a time per
// block, so that the only values a read may give are the last acknowledged write and those that were started later.

import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { Pace } from './pace.js';

const blockBytes = 4096;
const stampBytes = 512;
const readersOfAll = 16;

export interface LoadReport {
  readonly writes: number;
  readonly reads: number;
  readonly longestGapMs: number;
  readonly violations: string[];
}

/** What a volume's blocks may hold: outlives the loads and connections that wrote it. */
export class BlockOracle {
  readonly blocks: number;
  /** Highest sequence whose write was acknowledged, and highest that was started, by block. */
  readonly acknowledged: Float64Array;
  readonly started: Float64Array;

  constructor(blocks: number) {
    this.blocks = blocks;
    this.acknowledged = new Float64Array(blocks);
    this.started = new Float64Array(blocks);
  }

  /** As of now: what is written later is none of it. */
  copy(): BlockOracle {
    const copy = new BlockOracle(this.blocks);
    copy.acknowledged.set(this.acknowledged);
    copy.started.set(this.started);
    return copy;
  }
}

export class VerifyingLoad {
  readonly #bdev: BdevHandle;
  readonly #engine: Engine;
  readonly #oracle: BlockOracle;
  #running = false;
  #workers: Promise<void>[] = [];
  #writes = 0;
  #reads = 0;
  readonly #pace = new Pace();
  readonly #violations: string[] = [];

  constructor(engine: Engine, bdev: BdevHandle, oracle: BlockOracle) {
    this.#engine = engine;
    this.#bdev = bdev;
    this.#oracle = oracle;
  }

  /** `depth` workers, each on blocks of its own, until stop(). Two writes to one read. */
  start(depth: number): void {
    this.#running = true;
    this.#pace.resetGap();
    this.#workers = Array.from({ length: depth }, (_, worker) => this.#work(worker, depth));
    for (const worker of this.#workers) worker.catch(() => {});
  }

  get completed(): number {
    return this.#pace.completed;
  }

  /** So many more requests complete, on a machine that may do much else; others are under way then. */
  async progress(count: number, withinMs = 60_000): Promise<void> {
    await this.#pace.progress(count, withinMs).catch((cause: unknown) => {
      throw new Error(`no progress: ${JSON.stringify(this.report())}`, { cause });
    });
  }

  resetGap(): void {
    this.#pace.resetGap();
  }

  get longestGapMs(): number {
    return this.#pace.longestGapMs;
  }

  /** Rejects when a request failed. */
  async stop(): Promise<LoadReport> {
    this.#running = false;
    await Promise.all(this.#workers);
    return this.report();
  }

  report(): LoadReport {
    return {
      writes: this.#writes,
      reads: this.#reads,
      longestGapMs: this.#pace.longestGapMs,
      violations: this.#violations,
    };
  }

  /** Reads every block through `bdev` (another connection, say) and checks it. */
  async verifyAll(
    host: { engine: Engine; bdev: BdevHandle } = { engine: this.#engine, bdev: this.#bdev },
  ): Promise<string[]> {
    let next = 0;
    const reader = async (): Promise<void> => {
      const buffer = Buffer.from(host.engine.allocate(blockBytes));
      while (next < this.#oracle.blocks) {
        const block = next++;
        await host.bdev.read(block * blockBytes, buffer);
        this.#check(block, buffer, this.#oracle.acknowledged[block] ?? 0);
      }
    };
    await Promise.all(Array.from({ length: readersOfAll }, reader));
    return this.#violations;
  }

  async #work(worker: number, depth: number): Promise<void> {
    const buffer = Buffer.from(this.#engine.allocate(blockBytes));
    for (let turn = 0; this.#running; turn++) {
      const block = (worker + depth * ((turn * 7919) % Math.ceil(this.#oracle.blocks / depth))) % this.#oracle.blocks;
      if (block % depth !== worker % depth) continue;
      await this.#pace.turn();
      if (turn % 3 === 2) {
        const expected = this.#oracle.acknowledged[block] ?? 0;
        await this.#bdev.read(block * blockBytes, buffer);
        this.#check(block, buffer, expected);
        this.#reads++;
      } else {
        const sequence = (this.#oracle.started[block] ?? 0) + 1;
        this.#oracle.started[block] = sequence;
        stamp(buffer, block, sequence);
        await this.#bdev.write(block * blockBytes, buffer);
        this.#oracle.acknowledged[block] = sequence;
        this.#writes++;
      }
      this.#pace.done();
    }
  }

  #check(block: number, buffer: Buffer, acknowledged: number): void {
    const newest = this.#oracle.started[block] ?? 0;
    for (let at = 0; at < blockBytes; at += stampBytes) {
      const sequence = buffer.readDoubleLE(at + 8);
      const empty = sequence === 0 && acknowledged === 0;
      const right = buffer.readDoubleLE(at) === block && sequence >= acknowledged && sequence <= newest;
      if (empty || right) continue;
      this.#violations.push(
        `block ${block}+${at}: read (${buffer.readDoubleLE(at)}, ${sequence}), acknowledged ${acknowledged}, newest ${newest}`,
      );
      return;
    }
  }
}

function stamp(buffer: Buffer, block: number, sequence: number): void {
  for (let at = 0; at < blockBytes; at += stampBytes) {
    buffer.writeDoubleLE(block, at);
    buffer.writeDoubleLE(sequence, at + 8);
  }
}
