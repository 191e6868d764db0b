// SPDX-License-Identifier: Apache-2.0
//
// What the clients of one volume asked for and were told: the lines of docs/history-format.md, and a verdict of its own.
// Every block has one writer, which has one operation under way at a time, so each block is a register whose possible
// values are an interval of its writer's sequence numbers.
//
// Invariants of a right history:  - a read returns nothing older than what was acknowledged, or read, before it began
//                                 - it returns nothing that had not been asked for when it ended

import { type BlockValue, blockBytes, valueText } from './stamp.js';

export interface WriteOp {
  readonly client: number;
  readonly lba: number;
  readonly blocks: number;
  readonly sequence: number;
  readonly invokedNs: number;
}

/** A write as a snapshot is judged by: of one block. */
interface PastWrite {
  readonly sequence: number;
  readonly invokedNs: number;
  /** Of the acknowledgement; infinite: there was none. */
  endNs: number;
}

export interface ReadOp {
  readonly client: number;
  readonly lba: number;
  readonly blocks: number;
  readonly invokedNs: number;
  /** Per block: what was certain when the read began. */
  readonly floors: readonly number[];
}

interface Register {
  writer: number;
  /** Of the last write that was asked for, and of the newest one that must be seen. */
  issued: number;
  floor: number;
  /** Writes that were answered with an error: they may happen yet, whatever was written since. */
  readonly open: Set<number>;
  readonly past: PastWrite[];
}

/** What a snapshot of one volume holds, but for blocks whose writes were never answered. */
export interface Held {
  readonly blocks: readonly { readonly lba: number; readonly sequence: number; readonly past: readonly PastWrite[] }[];
  /** When the last write that it holds was asked for. */
  readonly lastNs: number;
}

/**
 * The same of several volumes: their snapshots are one read of all blocks of all of them. No block lacks a write that was
 * acknowledged before a write that any other block holds was asked for, whichever volume that is of.
 */
export function judgeCut(
  at: { askedNs: number; madeNs: number },
  of: readonly { history: History; values: readonly BlockValue[] }[],
): string | null {
  const held: Held[] = [];
  for (const { history, values } of of) {
    const found = history.heldIn(at, values);
    if (typeof found === 'string') return volumeText(of, history) + found;
    held.push(found);
  }
  const boundNs = Math.max(at.askedNs, ...held.map(({ lastNs }) => lastNs));
  for (const [index, { blocks }] of held.entries()) {
    for (const { lba, sequence, past } of blocks) {
      const missed = past.find((write) => write.sequence > sequence && write.endNs < boundNs);
      if (missed === undefined) continue;
      const what = `block ${lba} of the snapshot holds #${sequence}, but #${missed.sequence} had been acknowledged before`;
      return volumeText(of, of[index]?.history) + what;
    }
  }
  return null;
}

function volumeText(of: readonly unknown[], history: History | undefined): string {
  return of.length > 1 ? `volume ${history?.volume}: ` : '';
}

export class History {
  readonly #registers = new Map<number, Register>();
  readonly #lines: string[];
  readonly #openWrites = new Set<WriteOp>();
  readonly #startNs: number;
  #pending = 0;
  #operations = 0;
  #sequence = 0;
  #violation: string | null = null;

  /** Of the volume of that number: its blocks are stamped with it. */
  constructor(
    startNs: number,
    readonly volume = 1,
  ) {
    this.#startNs = startNs;
    this.#lines = [JSON.stringify({ history: 1, volume, block_bytes: blockBytes })];
  }

  /** Operations without an answer. */
  get pending(): number {
    return this.#pending;
  }

  get operations(): number {
    return this.#operations;
  }

  /** The first violation in words; null: none was seen. */
  get violation(): string | null {
    return this.#violation;
  }

  /** Writes without an answer are told, too: they may have happened. */
  get text(): string {
    const open = [...this.#openWrites].map((op) =>
      JSON.stringify({
        op: 'write',
        ...place(op),
        inv: op.invokedNs - this.#startNs,
        status: 'info',
        seq: op.sequence,
      }),
    );
    return `${[...this.#lines, ...open].join('\n')}\n`;
  }

  /** Something was written there for good: it was acknowledged, or somebody read it. */
  isWritten(lba: number): boolean {
    return (this.#registers.get(lba)?.floor ?? 0) > 0;
  }

  beginWrite(at: { client: number; lba: number; blocks: number }, nowNs: number): WriteOp {
    const sequence = ++this.#sequence;
    for (let lba = at.lba; lba < at.lba + at.blocks; lba++) {
      const register = this.#register(lba);
      if (register.writer !== 0 && register.writer !== at.client) throw new Error(`block ${lba} has another writer`);
      register.writer = at.client;
      register.issued = sequence;
      register.past.push({ sequence, invokedNs: nowNs, endNs: Number.POSITIVE_INFINITY });
    }
    this.#begin();
    const op = { ...at, sequence, invokedNs: nowNs };
    this.#openWrites.add(op);
    return op;
  }

  endWrite(op: WriteOp, acknowledged: boolean, nowNs: number): void {
    this.#end();
    this.#openWrites.delete(op);
    for (let lba = op.lba; lba < op.lba + op.blocks; lba++) {
      const register = this.#register(lba);
      if (acknowledged) register.floor = Math.max(register.floor, op.sequence);
      else register.open.add(op.sequence);
      const past = register.past.findLast((write) => write.sequence === op.sequence);
      if (past !== undefined && acknowledged) past.endNs = nowNs;
    }
    const status = acknowledged ? 'ok' : 'info';
    this.#line({ op: 'write', ...place(op), ...this.#times(op, nowNs), status, seq: op.sequence });
  }

  beginRead(at: { client: number; lba: number; blocks: number }, nowNs: number): ReadOp {
    this.#begin();
    const floors = Array.from({ length: at.blocks }, (_, index) => this.#register(at.lba + index).floor);
    return { ...at, invokedNs: nowNs, floors };
  }

  endRead(op: ReadOp, values: readonly BlockValue[] | null, nowNs: number): void {
    this.#end();
    if (values === null) {
      this.#line({ op: 'read', ...place(op), ...this.#times(op, nowNs), status: 'info' });
      return;
    }
    for (const [index, value] of values.entries()) this.#judge(op, index, value);
    const texts = values.map((value, index) => valueText(value, { volume: this.volume, lba: op.lba + index }));
    this.#line({ op: 'read', ...place(op), ...this.#times(op, nowNs), status: 'ok', values: texts });
  }

  /**
   * What is wrong with a snapshot that was asked for and made between these times and holds `values`; null: nothing. It is
   * one read of all blocks, and an instant: no block lacks a write that was acknowledged before a write that another
   * block holds was asked for. Blocks that hold a write that was never answered are left alone: it may have come late.
   */
  judgeSnapshot(at: { askedNs: number; madeNs: number }, values: readonly BlockValue[]): string | null {
    return judgeCut(at, [{ history: this, values }]);
  }

  /** Of a snapshot, what each block holds. A text: it cannot hold that. */
  heldIn(at: { madeNs: number }, values: readonly BlockValue[]): Held | string {
    const blocks: Held['blocks'][number][] = [];
    let lastNs = Number.NEGATIVE_INFINITY;
    for (const [lba, value] of values.entries()) {
      const register = this.#register(lba);
      const sequence = this.#sequenceOf(value, lba, register);
      if (sequence === null)
        return `block ${lba} of the snapshot holds ${valueText(value, { volume: this.volume, lba })}`;
      if (register.open.has(sequence)) continue;
      const write = register.past.find((each) => each.sequence === sequence);
      if (sequence !== 0 && (write === undefined || write.invokedNs >= at.madeNs))
        return `block ${lba} of the snapshot holds #${sequence}, which was not asked for before it was made`;
      blocks.push({ lba, sequence, past: register.past });
      lastNs = Math.max(lastNs, write?.invokedNs ?? lastNs);
    }
    return { blocks, lastNs };
  }

  noteFlush(at: { client: number; invokedNs: number; ok: boolean }, nowNs: number): void {
    const status = at.ok ? 'ok' : 'info';
    this.#line({ op: 'flush', client: at.client, ...this.#times(at, nowNs), status });
  }

  noteHealed(nowNs: number, ioBoundNs: number): void {
    this.#line({ event: 'healed', at: nowNs - this.#startNs, io_bound: ioBoundNs });
  }

  #judge(op: ReadOp, index: number, value: BlockValue): void {
    const lba = op.lba + index;
    const register = this.#register(lba);
    const floor = op.floors[index] ?? 0;
    const seen = this.#sequenceOf(value, lba, register);
    if (seen !== null && register.open.has(seen)) return;
    if (seen === null || seen < floor || seen > register.issued) {
      const what = valueText(value, { volume: this.volume, lba });
      const [least, most] = [floor, register.issued].map((sequence) => `w${register.writer}#${sequence}`);
      this.#violation ??= `wrong read: client ${op.client} read ${what} from block ${lba}; right were ${least} to ${most}`;
      return;
    }
    register.floor = Math.max(register.floor, seen);
  }

  /** Null: it cannot be anything that belongs there. Sequences of other blocks of the same writer are none of this one's. */
  #sequenceOf(value: BlockValue, lba: number, register: Register): number | null {
    if (value === 'zero') return 0;
    if (typeof value === 'string') return null;
    if (value.volume !== this.volume || value.lba !== lba || value.writer !== register.writer) return null;
    return value.sequence;
  }

  #register(lba: number): Register {
    let register = this.#registers.get(lba);
    if (register === undefined) {
      register = { writer: 0, issued: 0, floor: 0, open: new Set(), past: [] };
      this.#registers.set(lba, register);
    }
    return register;
  }

  #begin(): void {
    this.#pending++;
    this.#operations++;
  }

  #end(): void {
    this.#pending--;
  }

  #times(op: { invokedNs: number }, nowNs: number): { inv: number; end: number } {
    return { inv: op.invokedNs - this.#startNs, end: nowNs - this.#startNs };
  }

  #line(fields: object): void {
    this.#lines.push(JSON.stringify(fields));
  }
}

function place(op: { client: number; lba: number; blocks: number }): object {
  return { client: op.client, lba: op.lba, blocks: op.blocks };
}
