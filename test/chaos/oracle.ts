// SPDX-License-Identifier: Apache-2.0
// What a client's blocks may hold, from its own knowledge: one writer, whose sequences grow with time on every block.
// A read may return nothing older than what was acknowledged, or seen by an earlier read, before it began, and nothing
// newer than what was started before it ended. Weaker than the checker over the whole history, but at once.

import type { PastWrite } from './history.js';
import type { BlockValue } from './stamp.js';

export class BlockOracle {
  readonly blocks: number;
  readonly #volume: bigint;
  readonly #writer: number;
  /** By block: highest sequence started; lowest that a read which begins now may return. */
  readonly #started: Float64Array;
  readonly #floor: Float64Array;

  constructor(options: { blocks: number; volume: bigint; writer: number }) {
    this.blocks = options.blocks;
    this.#volume = options.volume;
    this.#writer = options.writer;
    this.#started = new Float64Array(options.blocks);
    this.#floor = new Float64Array(options.blocks);
  }

  replay(writes: readonly PastWrite[]): void {
    for (const write of writes) {
      this.started(write.lba, write.blocks, write.seq);
      if (write.acknowledged) this.acknowledged(write.lba, write.blocks, write.seq);
    }
  }

  started(lba: number, blocks: number, sequence: number): void {
    for (let at = lba; at < lba + blocks; at++) this.#started[at] = Math.max(this.#started[at] ?? 0, sequence);
  }

  acknowledged(lba: number, blocks: number, sequence: number): void {
    for (let at = lba; at < lba + blocks; at++) this.#floor[at] = Math.max(this.#floor[at] ?? 0, sequence);
  }

  /** Take it before the read is sent. */
  floors(lba: number, blocks: number): Float64Array {
    return this.#floor.slice(lba, lba + blocks);
  }

  /** Null when `value` is right for `block`; else what is wrong. */
  judge(block: number, value: BlockValue, floor: number): string | null {
    const { kind, stamp } = value;
    if (kind === 'torn' || kind === 'garbage') return `block ${block}: ${kind}`;
    if (stamp !== null && (stamp.volume !== this.#volume || stamp.block !== block || stamp.writer !== this.#writer))
      return `block ${block}: holds writer ${stamp.writer}'s write ${stamp.sequence} of block ${stamp.block}`;
    const sequence = stamp?.sequence ?? 0;
    if (sequence < floor)
      return `block ${block}: read write ${sequence}, although ${floor} had been acknowledged or read`;
    const newest = this.#started[block] ?? 0;
    if (sequence > newest) return `block ${block}: read write ${sequence}, the newest is ${newest}`;
    this.#floor[block] = Math.max(this.#floor[block] ?? 0, sequence);
    return null;
  }
}
