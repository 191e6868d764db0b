// SPDX-License-Identifier: Apache-2.0
//
// Writes that expect nothing, several in one transaction: what comes while one is under way goes with the next. A single
// write goes at once.
//
// Invariants:  - a write is in one transaction, whole, and after those that were asked for before it
//              - a key is once in a transaction
//              - a writer that gives up early takes out what was not sent; what was sent may happen
//              - a refusal of one write is no other's: after one, each of them is asked for alone

import { isBasaltError } from '../model/errors.js';
import type { Change } from '../store/store.js';

/** A transaction of the store holds a bounded number of keys. */
const changesAtOnce = 64;

interface Waiting {
  readonly changes: readonly Change[];
  readonly signal: AbortSignal;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class WriteBatches {
  readonly #write: (changes: readonly Change[], signal: AbortSignal) => Promise<void>;
  readonly #waiting: Waiting[] = [];
  #writing = false;

  constructor(write: (changes: readonly Change[], signal: AbortSignal) => Promise<void>) {
    this.#write = write;
  }

  add(changes: readonly Change[], signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const end = (act: () => void): void => {
        signal.removeEventListener('abort', aborted);
        act();
      };
      const aborted = (): void => {
        const at = this.#waiting.indexOf(waiting);
        if (at >= 0) this.#waiting.splice(at, 1);
        end(() => reject(signal.reason));
      };
      const waiting: Waiting = {
        changes,
        signal,
        resolve: () => end(resolve),
        reject: (error) => end(() => reject(error)),
      };
      signal.addEventListener('abort', aborted, { once: true });
      this.#waiting.push(waiting);
      if (!this.#writing) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#writing = true;
    while (this.#waiting.length > 0) await this.#writeTogether(this.#take());
    this.#writing = false;
  }

  /** In the order in which they came, up to the first that does not fit. */
  #take(): Waiting[] {
    const keys = new Set<string>();
    let count = 0;
    for (const { changes } of this.#waiting) {
      const fits = keys.size + changes.length <= changesAtOnce && !changes.some((change) => keys.has(change.key));
      if (!fits && count > 0) break;
      for (const change of changes) keys.add(change.key);
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #writeTogether(batch: readonly Waiting[]): Promise<void> {
    const ending = new AbortController();
    const gone = (): void => {
      if (batch.every(({ signal }) => signal.aborted)) ending.abort(batch[0]?.signal.reason);
    };
    for (const { signal } of batch) signal.addEventListener('abort', gone, { once: true });
    gone();
    try {
      await this.#write(
        batch.flatMap(({ changes }) => changes),
        ending.signal,
      );
      for (const { resolve } of batch) resolve();
    } catch (error) {
      if (batch.length > 1 && isRefusal(error)) for (const each of batch) await this.#writeTogether([each]);
      else for (const { reject } of batch) reject(error);
    } finally {
      for (const { signal } of batch) signal.removeEventListener('abort', gone);
    }
  }
}

const refusals = ['STORE_REJECTED', 'STORE_TOO_LARGE', 'STORE_LEASE_LOST', 'STORE_DENIED', 'INVALID_ARGUMENT'] as const;

/** It was understood, and nothing of it was done: one of the writes may be what the store does not take. */
function isRefusal(error: unknown): boolean {
  return refusals.some((code) => isBasaltError(error, code));
}
