// SPDX-License-Identifier: Apache-2.0
//
// A lease of a simulated client, renewed over the network every third of its time. It is lost when the store says so,
// or when no renewal was answered for a whole TTL, counted from sending.

import type { Timer } from '../env/clock.js';
import { BasaltError } from '../model/errors.js';
import type { CallOptions, Lease, LeaseOptions } from '../store/store.js';
import type { SimStore, SimStoreServer } from './sim-store.js';

export interface SimLeaseOptions {
  readonly id: string;
  readonly store: SimStore;
  readonly server: SimStoreServer;
  readonly sentMs: number;
  readonly options: LeaseOptions;
}

const retryMs = 100;

export class SimLease implements Lease {
  readonly id: string;
  readonly ttlSeconds: number;
  readonly #options: SimLeaseOptions;
  #state: Lease['state'] = 'held';
  #deadline: Timer | null = null;
  #next: Timer | null = null;

  constructor(options: SimLeaseOptions) {
    this.#options = options;
    this.id = options.id;
    this.ttlSeconds = options.options.ttlSeconds;
    this.#renewed(options.sentMs);
  }

  get state(): Lease['state'] {
    return this.#state;
  }

  async revoke(options: CallOptions = {}): Promise<void> {
    this.#end('ended');
    const { store, server } = this.#options;
    await store.ask({ operation: `revocation of lease ${this.id}`, changes: true, ...options }, () =>
      server.revoke(this.id),
    );
  }

  release(): void {
    this.#end('ended');
  }

  get #ttlMs(): number {
    return this.ttlSeconds * 1000;
  }

  #renewed(sentMs: number): void {
    const { clock } = this.#options.store;
    this.#deadline?.cancel();
    this.#deadline = clock.setTimer(sentMs + this.#ttlMs - clock.now(), () => this.#lose());
    this.#renewIn(this.#ttlMs / 3);
  }

  #renewIn(delayMs: number): void {
    this.#next?.cancel();
    this.#next = this.#options.store.clock.setTimer(delayMs, () => void this.#renew());
  }

  async #renew(): Promise<void> {
    const { store, server } = this.#options;
    const sentMs = store.clock.now();
    const call = { operation: `renewal of lease ${this.id}`, changes: false, timeoutMs: this.#ttlMs / 3 };
    const lives = await store.ask(call, () => server.renew(this.id)).catch(() => null);
    if (this.#state !== 'held') return;
    if (lives === null) this.#renewIn(retryMs);
    else if (lives) this.#renewed(sentMs);
    else this.#lose();
  }

  #lose(): void {
    if (!this.#end('lost')) return;
    this.#options.server.rareEvents.reach('store_lease_lost');
    this.#options.options.onLost?.(new BasaltError('STORE_LEASE_LOST', { leaseId: this.id }));
  }

  #end(state: 'lost' | 'ended'): boolean {
    if (this.#state !== 'held') return false;
    this.#state = state;
    this.#deadline?.cancel();
    this.#next?.cancel();
    return true;
  }
}
