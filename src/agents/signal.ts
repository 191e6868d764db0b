// SPDX-License-Identifier: Apache-2.0
//
// Small helpers for code that waits: a wake-up that is never lost, and growing pauses.

import type { Clock } from '../env/clock.js';

/** Remembers a wake-up that comes while nobody waits. One waiter at a time. */
export class Wakeup {
  #pending = false;
  #resolve: (() => void) | null = null;

  wake(): void {
    const resolve = this.#resolve;
    this.#resolve = null;
    if (resolve === null) this.#pending = true;
    else resolve();
  }

  /** Resolves at the next wake-up, at once when one is pending, or when the signal aborts. */
  wait(signal: AbortSignal): Promise<void> {
    if (this.#pending || signal.aborted) {
      this.#pending = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        this.#resolve = null;
        resolve();
      };
      this.#resolve = done;
      signal.addEventListener('abort', done, { once: true });
    });
  }
}

/** So many at a time; the others wait in the order in which they came, and never long for one that does not end. */
export class Slots {
  readonly #waiting: (() => void)[] = [];
  readonly #options: { readonly clock: Clock; readonly heldMsMax: number };
  #free: number;

  constructor(options: { count: number; clock: Clock; heldMsMax: number }) {
    this.#options = options;
    this.#free = options.count;
  }

  /** Rejects with the signal's reason when that aborts before it is its turn. */
  async run<T>(signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    await this.#take(signal);
    let held = true;
    const pass = (): void => {
      if (held) this.#pass();
      held = false;
    };
    const { clock, heldMsMax } = this.#options;
    const timer = clock.setTimer(heldMsMax, pass);
    try {
      return await act();
    } finally {
      timer.cancel();
      pass();
    }
  }

  #pass(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }

  #take(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        reject(signal.reason);
      };
      const turn = (): void => {
        signal.removeEventListener('abort', aborted);
        resolve();
      };
      this.#waiting.push(turn);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }
}

export class Backoff {
  #nextMs: number;
  readonly #options: { clock: Clock; minMs: number; maxMs: number };

  constructor(options: { clock: Clock; minMs: number; maxMs: number }) {
    this.#options = options;
    this.#nextMs = options.minMs;
  }

  reset(): void {
    this.#nextMs = this.#options.minMs;
  }

  /** Rejects with the signal's reason when it aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(this.#nextMs * 2, this.#options.maxMs);
    await this.#options.clock.sleep(delayMs, signal);
  }
}

/** Resolves when the signal aborts; never rejects. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Resolves after `delayMs`, or at once when the signal aborts; never rejects. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  await clock.sleep(delayMs, signal).catch(() => {});
}

/** Runs `act` with a signal that aborts after `delayMs`. */
export async function withDeadline<T>(
  clock: Clock,
  delayMs: number,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController();
  const timer = clock.setTimer(delayMs, () => ending.abort(new Error(`not done within ${delayMs} ms`)));
  try {
    return await act(ending.signal);
  } finally {
    timer.cancel();
  }
}
