// SPDX-License-Identifier: Apache-2.0
//
// Group commit: many small changes become durable together, in order, and whoever saw a change waits
// until it is durable before telling anyone.
//
// Invariants:  - changes become durable in the order of append(), each as a whole
//              - `published` of a change runs after it is durable, before settled() of its callers resolves
//              - after one failed commit every waiting and later call fails: nobody knows what is on disk

import type { Mutation } from './backend.js';
import { refusals } from './status.js';

interface Change {
  readonly mutations: readonly Mutation[];
  readonly published: () => void;
}

interface Waiter {
  readonly sequence: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Bounds the time that one commit holds the event loop. */
const batchMutationsMax = 1000;

export class Journal {
  readonly #commit: (mutations: readonly Mutation[]) => Promise<void>;
  readonly #onFailed: (error: unknown) => void;
  #pending: Change[] = [];
  #waiters: Waiter[] = [];
  #appended = 0;
  #durable = 0;
  #running: Promise<void> | null = null;
  #failed = false;

  constructor(commit: (mutations: readonly Mutation[]) => Promise<void>, onFailed: (error: unknown) => void) {
    this.#commit = commit;
    this.#onFailed = onFailed;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  append(mutations: readonly Mutation[], published: () => void): void {
    if (this.#failed) throw refusals.stopped();
    this.#pending.push({ mutations, published });
    this.#appended += 1;
    this.#running ??= this.#run();
  }

  /** Resolves when everything appended before this call is durable. */
  settled(): Promise<void> {
    if (this.#failed) return Promise.reject(refusals.stopped());
    if (this.#durable === this.#appended) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ sequence: this.#appended, resolve, reject }));
  }

  /** Resolves when nothing is being written any more, whatever came of it. */
  async drained(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  async #run(): Promise<void> {
    // Not within the caller's turn: #running must be set before it can be cleared. What arrives during
    // a commit shares the next one.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const batch = this.#takeBatch();
      try {
        await this.#commit(batch.flatMap((change) => change.mutations));
      } catch (error) {
        this.#fail(error);
        break;
      }
      this.#durable += batch.length;
      for (const change of batch) change.published();
      this.#release();
    }
    this.#running = null;
  }

  #takeBatch(): Change[] {
    let mutations = 0;
    let count = 0;
    while (count < this.#pending.length && (count === 0 || mutations < batchMutationsMax)) {
      mutations += this.#pending[count]!.mutations.length;
      count += 1;
    }
    return this.#pending.splice(0, count);
  }

  #release(): void {
    let count = 0;
    while (count < this.#waiters.length && this.#waiters[count]!.sequence <= this.#durable) count += 1;
    for (const waiter of this.#waiters.splice(0, count)) waiter.resolve();
  }

  #fail(error: unknown): void {
    this.#failed = true;
    this.#pending = [];
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(refusals.stopped());
    this.#onFailed(error);
  }
}
