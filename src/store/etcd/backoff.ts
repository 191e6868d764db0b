// SPDX-License-Identifier: Apache-2.0
//
// How long to wait before the next try: doubling, with jitter, never more than `maxMs`.

import type { Random } from '../../env/random.js';

const firstMs = 50;
const maxMs = 2_000;

export class Backoff {
  readonly #random: Random;
  #ceilingMs = firstMs;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Between half of the present ceiling and all of it; the ceiling doubles. */
  nextMs(): number {
    const waitMs = this.#ceilingMs * (0.5 + this.#random.fraction() / 2);
    this.#ceilingMs = Math.min(maxMs, this.#ceilingMs * 2);
    return waitMs;
  }

  reset(): void {
    this.#ceilingMs = firstMs;
  }
}
