// SPDX-License-Identifier: Apache-2.0
//
// What loads have in common: breaks, counting, gaps. Requests come in bursts at full speed with breaks between them, which
// all workers take at once: a poll-mode path sleeps only when nothing is under way, and a load without breaks takes all
// cores of the machine from what is waited for. Whoever has waited for requests is about to do something to the cluster:
// there is no break for some time then, so that it happens while requests are under way.

import { systemClock } from '../../src/env/clock.js';

const burstRequests = 64;
const breakMs = 40;
const withoutBreakMs = 300;

interface Waiting {
  readonly goal: number;
  readonly reached: () => void;
}

export class Pace {
  #left = burstRequests;
  #break: Promise<void> | null = null;
  #noBreakUntilMs = 0;
  #completed = 0;
  #lastMs = systemClock.now();
  #longestGapMs = 0;
  #waiting: Waiting[] = [];

  /** Before each request, of whichever worker. */
  async turn(): Promise<void> {
    if (this.#left-- > 0 || systemClock.now() < this.#noBreakUntilMs) return;
    this.#break ??= systemClock.sleep(breakMs).then(() => {
      this.#left = burstRequests;
      this.#break = null;
      this.#lastMs = Math.max(this.#lastMs, systemClock.now());
    });
    await this.#break;
  }

  /** After each request. */
  done(): void {
    this.#completed++;
    this.#longestGapMs = this.longestGapMs;
    this.#lastMs = systemClock.now();
    if (this.#waiting.length === 0) return;
    for (const { goal, reached } of this.#waiting) if (goal <= this.#completed) reached();
    this.#waiting = this.#waiting.filter(({ goal }) => goal > this.#completed);
  }

  get completed(): number {
    return this.#completed;
  }

  /** Between two requests that completed, or since the last one; breaks do not count. */
  get longestGapMs(): number {
    return Math.max(this.#longestGapMs, systemClock.now() - this.#lastMs);
  }

  resetGap(): void {
    this.#lastMs = systemClock.now();
    this.#longestGapMs = 0;
  }

  /**
   * So many more requests. Resolves in the moment in which the last of them completes; others go on without a break then.
   */
  async progress(count: number, withinMs: number): Promise<void> {
    const goal = this.#completed + count;
    await new Promise<void>((resolve, reject) => {
      const timer = systemClock.setTimer(withinMs, () =>
        reject(new Error(`${this.#completed} requests completed, not ${goal}, in ${withinMs} ms`)),
      );
      const reached = (): void => {
        timer.cancel();
        this.#noBreakUntilMs = systemClock.now() + withoutBreakMs;
        resolve();
      };
      this.#waiting.push({ goal, reached });
    });
  }
}
