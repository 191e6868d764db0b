// SPDX-License-Identifier: Apache-2.0
//
// What loads have in common: breaks, counting, gaps. Each worker rests after some requests: a poll-mode path never sleeps
// under load, and a load without breaks takes all cores of the machine from what is waited for. Workers do not rest at the
// same time, so that whatever happens, happens while requests are under way.

import { systemClock } from '../../src/env/clock.js';
import { systemRandom } from '../../src/env/random.js';

const requestsInARow = 4;
const breakMsMax = 60;

interface Waiting {
  readonly goal: number;
  readonly reached: () => void;
}

export class Pace {
  #completed = 0;
  #lastMs = systemClock.now();
  #longestGapMs = 0;
  #waiting: Waiting[] = [];

  /** Before each request of a worker: how many it has begun. */
  async turn(begun: number): Promise<void> {
    if (begun % requestsInARow === 0) await systemClock.sleep(systemRandom.fraction() * breakMsMax);
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

  /** Between two requests that completed, or since the last one. */
  get longestGapMs(): number {
    return Math.max(this.#longestGapMs, systemClock.now() - this.#lastMs);
  }

  resetGap(): void {
    this.#lastMs = systemClock.now();
    this.#longestGapMs = 0;
  }

  /**
   * So many more requests. Resolves in the moment in which the last of them completes.
   */
  async progress(count: number, withinMs: number): Promise<void> {
    const goal = this.#completed + count;
    await new Promise<void>((resolve, reject) => {
      const timer = systemClock.setTimer(withinMs, () =>
        reject(new Error(`${this.#completed} requests completed, not ${goal}, in ${withinMs} ms`)),
      );
      const reached = (): void => {
        timer.cancel();
        resolve();
      };
      this.#waiting.push({ goal, reached });
    });
  }
}
