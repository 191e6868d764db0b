// SPDX-License-Identifier: Apache-2.0
//
// What happened in a simulated run, in order: hashed always, so that two runs of one seed can be compared, and told
// where somebody listens.

import { createHash } from 'node:crypto';

export class Trace {
  readonly #hash = createHash('sha256');
  readonly #nowNs: () => number;
  readonly #tell: ((line: string) => void) | null;
  #lines = 0;

  constructor(nowNs: () => number, tell: ((line: string) => void) | null) {
    this.#nowNs = nowNs;
    this.#tell = tell;
  }

  get lines(): number {
    return this.#lines;
  }

  add(who: string, what: string, text: string): void {
    this.#lines++;
    this.#hash.update(`${this.#nowNs()} ${who} ${what} ${text}\n`);
    this.#tell?.(`${(this.#nowNs() / 1e9).toFixed(6)} ${who} ${what} ${text}`);
  }

  /** 16 hex digits. Nothing may be added afterwards. */
  digest(native: bigint): string {
    this.#hash.update(native.toString());
    return this.#hash.digest('hex').slice(0, 16);
  }
}
