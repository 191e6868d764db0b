// SPDX-License-Identifier: Apache-2.0
//
// Runs one pass after every wake-up, passes never at the same time, failed passes again after a growing pause.

import type { Clock } from '../env/clock.js';
import { type RateLimitedLog, reason } from './context.js';
import { Backoff, pause, Wakeup } from './signal.js';

export interface ReconcileLoopOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly log: RateLimitedLog;
  readonly pass: (signal: AbortSignal) => Promise<void>;
  /** From one pass to the next: a swarm of changes costs a few passes, a single one is looked at at once. @default 0 */
  readonly restMs?: number;
}

export class ReconcileLoop {
  readonly #options: ReconcileLoopOptions;
  #restMs = 0;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: ReconcileLoopOptions) {
    this.#options = options;
  }

  start(): void {
    this.#wakeup.wake();
    this.#running = this.#run();
  }

  wake(): void {
    this.#wakeup.wake();
  }

  /**
   * For a pass that looks at everything: it looked for so long, and rests `share` times that before it looks again, up to
   * `mostMs`. Else a swarm of changes, each of which makes looking longer, would keep it looking all the time.
   */
  looked(lookMs: number, rest: { share: number; mostMs: number }): void {
    this.#restMs = Math.min(rest.mostMs, lookMs * rest.share);
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error(`${this.#options.name} stopped`));
    await this.#running;
  }

  async #rest(beganMs: number, signal: AbortSignal): Promise<void> {
    const { clock, restMs = 0 } = this.#options;
    const leftMs = Math.max(beganMs + restMs - clock.now(), this.#restMs);
    this.#restMs = 0;
    if (leftMs > 0) await pause(clock, leftMs, signal);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ clock: this.#options.clock, minMs: 50, maxMs: 2_000 });
    await this.#wakeup.wait(signal);
    while (!signal.aborted) {
      try {
        const beganMs = this.#options.clock.now();
        await this.#options.pass(signal);
        backoff.reset();
        await this.#wakeup.wait(signal);
        await this.#rest(beganMs, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#options.log.warn(
          this.#options.name,
          { error: reason(error) },
          `${this.#options.name}: pass failed; trying again`,
        );
        await backoff.wait(signal).catch(() => {});
      }
    }
  }
}
