// SPDX-License-Identifier: Apache-2.0

import type { Clock } from './clock.js';

const causesMax = 1000;

interface Warn {
  warn(fields: object, message: string): void;
}

/** Logs a cause at most once a second, with the number of times it was left out. */
export class RateLimitedLog {
  readonly #last = new Map<string, { atMs: number; skipped: number }>();
  readonly #log: Warn;
  readonly #clock: Clock;

  constructor(log: Warn, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  warn(cause: string, fields: object, message: string): void {
    const now = this.#clock.now();
    const last = this.#last.get(cause);
    if (last !== undefined && now - last.atMs < 1000) {
      last.skipped++;
      return;
    }
    if (this.#last.size >= causesMax) this.#last.clear();
    this.#last.set(cause, { atMs: now, skipped: 0 });
    const skipped = last?.skipped ?? 0;
    this.#log.warn(skipped > 0 ? { ...fields, skipped } : fields, message);
  }
}
