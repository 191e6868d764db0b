// SPDX-License-Identifier: Apache-2.0
// A client's part of a history (docs/history-format.md): operations as they end, and intents, which are written before a
// write is sent. A client that is killed and started again finds there what it had under way.
// Invariants:  - an intent is in the file (of the operating system) before its write leaves the process
//              - a sequence is never used twice, across restarts of the client too

import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';

export interface Operation {
  readonly op: 'read' | 'write' | 'flush';
  readonly lba: number;
  readonly blocks: number;
  readonly inv: number;
  readonly end: number;
  readonly status: 'ok' | 'info';
  readonly seq?: number;
  readonly values?: readonly string[];
}

interface Intent {
  readonly seq: number;
  readonly lba: number;
  readonly blocks: number;
  readonly inv: number;
}

/** A write that the file knows of; `acknowledged` says whether the client was told so. */
export interface PastWrite extends Intent {
  readonly acknowledged: boolean;
}

export class HistoryLog {
  readonly #client: number;
  readonly #originNs: bigint;
  readonly #operations: number;
  readonly #intents: number;
  #lines: string[] = [];

  /** Appends to `<path>.ops` and `<path>.intents`. Times count from `originNs` of the machine's monotonic clock. */
  constructor(path: string, client: number, originNs: bigint) {
    this.#client = client;
    this.#originNs = originNs;
    this.#operations = openSync(`${path}.ops`, 'a');
    this.#intents = openSync(`${path}.intents`, 'a');
  }

  now(): number {
    return Number(process.hrtime.bigint() - this.#originNs);
  }

  intent(intent: Intent): void {
    writeSync(this.#intents, `${JSON.stringify(intent)}\n`);
  }

  add(operation: Operation): void {
    const { op, lba, blocks, ...rest } = operation;
    const place = op === 'flush' ? {} : { lba, blocks };
    this.#lines.push(JSON.stringify({ op, client: this.#client, ...place, ...rest }));
    // An acknowledged write must be on record before the next one of its place starts; reads may wait.
    if (op === 'write' || this.#lines.length >= 64) this.save();
  }

  /** A write whose outcome nobody will tell any more: nobody waits for it either. */
  lost(intent: Intent): void {
    this.add({ op: 'write', ...intent, end: this.now(), status: 'info' });
  }

  save(): void {
    if (this.#lines.length > 0) writeSync(this.#operations, `${this.#lines.join('\n')}\n`);
    this.#lines = [];
  }

  close(): void {
    this.save();
    closeSync(this.#operations);
    closeSync(this.#intents);
  }
}

/** The writes of earlier incarnations, in the order of their sequences. */
export function pastWrites(path: string): PastWrite[] {
  const told = new Map<number, boolean>();
  for (const line of linesOf(`${path}.ops`)) {
    const { op, seq, status } = JSON.parse(line) as { op: string; seq?: number; status: string };
    if (op === 'write' && seq !== undefined) told.set(seq, status === 'ok');
  }
  const writes = linesOf(`${path}.intents`).map((line) => JSON.parse(line) as Intent);
  return writes
    .map((write) => ({ ...write, acknowledged: told.get(write.seq) === true }))
    .sort((one, other) => one.seq - other.seq);
}

/** Intents without any operation line: under way when the client was killed. */
export function lostWrites(path: string): Intent[] {
  const told = new Set(
    linesOf(`${path}.ops`).map((line) => (JSON.parse(line) as { op: string; seq?: number }).seq ?? -1),
  );
  return linesOf(`${path}.intents`)
    .map((line) => JSON.parse(line) as Intent)
    .filter((intent) => !told.has(intent.seq));
}

/** Whole lines only: a kill may have torn the last one. */
export function linesOf(path: string): string[] {
  if (!existsSync(path)) return [];
  const text = readFileSync(path, 'utf8');
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '');
}
