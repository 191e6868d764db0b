// SPDX-License-Identifier: Apache-2.0
//
// Makes the time of a simulated world go by, natively and in JavaScript: JavaScript runs until nothing of it can go on,
// then the timers that are due, then the engines until one has something to tell or the next timer is due.
//
// Invariant:  - nothing but this moves the world: one seed and the same calls give the same history

import { quiet, VirtualTime } from '../../env/virtual-clock.js';
import type { SimWorld } from './sim-world.js';

export class SimClockwork {
  readonly world: SimWorld;
  /** Makes the clocks of those that live in the world. */
  readonly time: VirtualTime;

  constructor(world: SimWorld) {
    this.world = world;
    this.time = new VirtualTime(world.nowNs);
  }

  get nowNs(): number {
    return this.time.nowNs;
  }

  /** True when the condition held within the time; it is asked whenever JavaScript has come to rest. */
  async runUntil(condition: () => boolean, limitNs: number): Promise<boolean> {
    const endNs = this.time.nowNs + Math.round(limitNs);
    for (;;) {
      await quiet();
      if (condition()) return true;
      if (this.time.fireOne()) continue;
      if (this.time.nowNs >= endNs) return false;
      this.world.step(Math.min(this.time.nextNs() ?? endNs, endNs), (nowNs) => this.time.advanceTo(nowNs));
    }
  }

  /** Lets so much virtual time go by. */
  async step(ns: number): Promise<void> {
    if (!(ns >= 0)) throw new RangeError(`step: nanoseconds of at least 0, not ${ns}`);
    await this.runUntil(() => false, ns);
  }

  /** Lets time go by until the promise is settled. @throws what it is rejected with, or {Error} after the time */
  async wait<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    if (!(await this.runUntil(() => settled, limitMs * 1e6))) throw new Error(`not settled within ${limitMs} ms`);
    return watched;
  }
}
