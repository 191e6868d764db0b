// SPDX-License-Identifier: Apache-2.0
//
// Association: a fake connection from one engine to an address of another. It is lost when the peer is killed (at once)
// or silent for the keep-alive time; it never comes back by itself.

import type { Timer } from '../../env/clock.js';
import type { FakeEngine } from './fake-engine.js';

export interface AssociationOptions {
  readonly from: FakeEngine;
  readonly to: FakeEngine;
  readonly keepAliveMs: number;
  readonly onLost: (reason: string) => void;
}

export class Association {
  readonly #options: AssociationOptions;
  readonly #unwatch: () => void;
  #timer: Timer | null = null;
  #lost = false;

  constructor(options: AssociationOptions) {
    this.#options = options;
    this.#unwatch = options.from.network.watch(() => this.#look());
  }

  get lost(): boolean {
    return this.#lost;
  }
  get to(): FakeEngine {
    return this.#options.to;
  }

  /** Ends it from this side; nothing is told. */
  close(): void {
    this.#lost = true;
    this.#timer?.cancel();
    this.#unwatch();
  }

  /** The request arrives, or the association turns out to be lost; a silent peer is waited for. */
  async pass(): Promise<boolean> {
    while (!this.#lost) {
      const { from, to } = this.#options;
      await from.turn();
      const reach = from.network.reach(from, to);
      if (reach === 'connected') return !this.#lost;
      if (reach === 'refused') this.#lose('the peer closed the connection');
      else await this.#change();
    }
    return false;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const stop = this.#options.from.network.watch(() => {
        stop();
        resolve();
      });
      this.#waiting.push(() => {
        stop();
        resolve();
      });
    });
  }

  readonly #waiting: (() => void)[] = [];

  #look(): void {
    if (this.#lost) return;
    const { from, to, keepAliveMs } = this.#options;
    const { clock } = from.network;
    const reach = from.network.reach(from, to);
    if (from.ended) return this.close();
    if (reach !== 'silent') this.#timer?.cancel();
    if (reach !== 'silent') this.#timer = null;
    if (reach === 'refused') clock.setTimer(0, () => this.#lose('the peer closed the connection'));
    if (reach === 'silent') this.#timer ??= clock.setTimer(keepAliveMs, () => this.#lose('keep-alive without answer'));
  }

  #lose(reason: string): void {
    if (this.#lost) return;
    this.close();
    for (const wake of this.#waiting.splice(0)) wake();
    this.#options.onLost(reason);
  }
}
