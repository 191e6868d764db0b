// SPDX-License-Identifier: Apache-2.0
//
// Time as TypeScript code sees it. Everything that waits or measures takes a Clock, so that a
// simulator can run the same code in virtual time.
//
// Invariants:  - now() never goes back and has no meaning as a date
//              - wallMs() is for people and logs; of decisions, only when an API token expires depends on it
//              - a timer fires at most once, never inside setTimer()

/** A pending timer. `cancel` after it fired, or twice, does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds, fractions included. */
  now(): number;
  /** Milliseconds since 1970, from the machine's date. */
  wallMs(): number;
  /** Calls `fn` once after at least `delayMs`. Keeps the process alive until then. */
  setTimer(delayMs: number, fn: () => void): Timer;
  /** Resolves after at least `delayMs`; rejects with `signal.reason` as soon as the signal aborts. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Node.js' timers hold 31 bits: a longer wait is made of several. */
const timerMsMax = 0x7fff_ffff;

class SystemTimer implements Timer {
  #handle: NodeJS.Timeout | null = null;

  constructor(delayMs: number, fn: () => void) {
    this.#arm(Math.max(0, delayMs), fn);
  }

  cancel(): void {
    if (this.#handle !== null) clearTimeout(this.#handle);
    this.#handle = null;
  }

  #arm(delayMs: number, fn: () => void): void {
    const stepMs = Math.min(delayMs, timerMsMax);
    this.#handle = setTimeout(() => {
      if (delayMs > stepMs) {
        this.#arm(delayMs - stepMs, fn);
        return;
      }
      this.#handle = null;
      fn();
    }, stepMs);
  }
}

/** `Clock.sleep` in terms of `setTimer`; shared by every Clock. */
export function sleepOn(clock: Pick<Clock, 'setTimer'>, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const aborted = (): void => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.setTimer(delayMs, () => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    });
    signal?.addEventListener('abort', aborted, { once: true });
  });
}

export const systemClock: Clock = Object.freeze({
  now: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer: (delayMs: number, fn: () => void) => new SystemTimer(delayMs, fn),
  sleep: (delayMs: number, signal?: AbortSignal) => sleepOn(systemClock, delayMs, signal),
});
