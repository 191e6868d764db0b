// SPDX-License-Identifier: Apache-2.0
//
// Leases: which exist, which keys hang on them, when they run out.
//
// Invariants:  - every key with a lease is in that lease's set, and in no other
//              - time is counted by this process' monotonic clock; a restart starts every lease anew
//              - one timer at most, for the earliest end; none while there is no lease

import type { Clock, Timer } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import { refusals } from './status.js';

export interface Lease {
  readonly id: string;
  readonly ttlSeconds: number;
  expiresAtMs: number;
  readonly keys: Set<string>;
}

/** What a server with the usual election timings grants at least. */
export const leaseTtlSecondsMin = 2;
const leaseTtlSecondsMax = 9_000_000_000;

export interface LessorOptions {
  clock: Clock;
  random: Random;
  /** Called once per lease that ran out; it must end in `remove` or the call is repeated. */
  onExpired: (id: string) => void;
}

export class Lessor {
  readonly #leases = new Map<string, Lease>();
  readonly #options: LessorOptions;
  #timer: Timer | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(options: LessorOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#leases.size;
  }

  has(id: string): boolean {
    return this.#leases.has(String(id));
  }

  /** Present and not run out. */
  live(id: string): Lease | null {
    const lease = this.#leases.get(id);
    return lease === undefined || this.remainingSeconds(lease) <= 0 ? null : lease;
  }

  get(id: string): Lease {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw refusals.leaseNotFound();
    return lease;
  }

  ids(): string[] {
    return [...this.#leases.values()].sort((a, b) => a.expiresAtMs - b.expiresAtMs).map((lease) => lease.id);
  }

  remainingSeconds(lease: Lease): number {
    return (lease.expiresAtMs - this.#options.clock.now()) / 1000;
  }

  /** Settles id and TTL of a lease that is about to be made; `id` '0' asks for a fresh one. */
  prepare(id: string, ttlSeconds: number): { id: string; ttlSeconds: number } {
    if (ttlSeconds > leaseTtlSecondsMax) throw refusals.leaseTtlTooLarge();
    if (this.#leases.has(id)) throw refusals.leaseExists();
    return { id: id === '0' ? this.#freshId() : id, ttlSeconds: Math.max(ttlSeconds, leaseTtlSecondsMin) };
  }

  add(id: string, ttlSeconds: number): void {
    const expiresAtMs = this.#options.clock.now() + ttlSeconds * 1000;
    this.#leases.set(id, { id, ttlSeconds, expiresAtMs, keys: new Set() });
    this.#arm(expiresAtMs);
  }

  renew(lease: Lease): void {
    lease.expiresAtMs = this.#options.clock.now() + lease.ttlSeconds * 1000;
  }

  remove(id: string): void {
    this.#leases.delete(id);
    if (this.#leases.size === 0) this.stop();
  }

  /** Records that `key` went from one lease to another ('0': none). */
  move(key: string, from: string, to: string): void {
    if (from !== '0') this.#leases.get(from)?.keys.delete(key);
    if (to !== '0') this.#leases.get(to)?.keys.add(key);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #arm(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#options.clock.setTimer(atMs - this.#options.clock.now(), () => this.#expire());
  }

  #expire(): void {
    this.#timer = null;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    const now = this.#options.clock.now();
    for (const lease of [...this.#leases.values()]) if (lease.expiresAtMs <= now) this.#options.onExpired(lease.id);
    let next = Number.POSITIVE_INFINITY;
    for (const lease of this.#leases.values()) next = Math.min(next, lease.expiresAtMs);
    // What could not be revoked now is tried again, but not at once.
    if (next !== Number.POSITIVE_INFINITY) this.#arm(Math.max(next, now + 100));
  }

  #freshId(): string {
    for (;;) {
      const id = (this.#options.random.bytes(8).readBigUInt64BE() >> 1n).toString();
      if (id !== '0' && !this.#leases.has(id)) return id;
    }
  }
}
