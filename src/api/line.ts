// SPDX-License-Identifier: Apache-2.0
//
// One after the other: changes that would all be planned on the same reading, of which the store would take only the first.

export class Line {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs when those before it have ended, however they ended. */
  run<T>(act: () => Promise<T>): Promise<T> {
    const next = this.#last.then(act, act);
    this.#last = next.catch(() => {});
    return next;
  }
}
