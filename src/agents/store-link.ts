// SPDX-License-Identifier: Apache-2.0
//
// ClusterLink over a Store: follows everything below the root, and keeps what this process leases alive.
//
// Invariants:  - `state` only ever moves forward in revisions
//              - what was put with a lease is put again, under a new lease, when the old one is lost; also when the store
//                holds something else: an older put whose answer never came may be carried out after a newer one

import type { Clock, Timer } from '../env/clock.js';
import { ClusterState } from '../model/cluster-state.js';
import type { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';
import type { ReservationObject } from '../model/reservations.js';
import type { Change, Entry, Lease, Store, Watch, WatchBatch } from '../store/store.js';
import type { ClusterLink, Commit } from './cluster-link.js';
import { type Logger, RateLimitedLog, reason } from './context.js';
import type { LeadershipPort, Versioned } from './leadership-register.js';
import type { ReservationPort, ReservationSwap } from './reservation-port.js';
import { Backoff } from './signal.js';

export interface StoreLinkOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  readonly leaseTtlSeconds: number;
}

export class StoreLink implements ClusterLink {
  readonly state = new ClusterState();
  readonly #options: StoreLinkOptions;
  readonly #log: RateLimitedLog;
  readonly #listeners = new Set<() => void>();
  readonly #leased = new Map<string, string>();
  /** What the store was last seen to hold under those keys; null: nothing. */
  readonly #seen = new Map<string, string | null>();
  #repair: Timer | null = null;
  readonly #stop = new AbortController();
  #lease: Promise<Lease> | null = null;
  #watch: Watch | null = null;
  #running: Promise<void> = Promise.resolve();
  #notifying = false;

  constructor(options: StoreLinkOptions) {
    this.#options = options;
    this.#log = new RateLimitedLog(options.log, options.clock);
  }

  /** Resolves with the first complete state; waits for the store as long as the signal lets it. */
  async open(signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#options;
    const backoff = new Backoff({ clock, minMs: 50, maxMs: 1_000 });
    for (;;) {
      try {
        const listed = await store.list(keys.root, { signal });
        this.state.replace(listed.entries.map(toRow));
        this.#watch = store.watch(keys.root, listed.revision + 1);
        this.#running = this.#follow(this.#watch);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#log.warn('open', { error: reason(error) }, 'store cannot be read; trying on');
        await backoff.wait(signal);
      }
    }
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async commit(commit: Commit, signal: AbortSignal): Promise<boolean> {
    const leased = (commit.put ?? []).filter((entry) => entry.leased === true);
    for (const entry of leased) this.#leased.set(entry.key, entry.text);
    for (const key of commit.remove ?? []) {
      this.#leased.delete(key);
      this.#seen.delete(key);
    }
    const leaseId = leased.length > 0 ? (await this.#held()).id : null;
    const changes: Change[] = [
      ...(commit.put ?? []).map((entry) => ({
        kind: 'put' as const,
        key: entry.key,
        value: entry.text,
        leaseId: entry.leased === true ? leaseId : null,
      })),
      ...(commit.remove ?? []).map((key) => ({ kind: 'delete' as const, key })),
    ];
    const conditions = (commit.expect ?? []).map((entry) => ({ key: entry.key, modRevision: entry.revision ?? 0 }));
    const result = await this.#options.store.txn({ conditions, changes }, { signal });
    if (result.outcome === 'unknown') throw result.error;
    return result.outcome === 'committed';
  }

  leadership(volumeId: string): LeadershipPort {
    return new StoreLeadership(this.#options.store, volumeId);
  }

  reservations(volumeId: string): ReservationPort {
    return new StoreReservations(this.#options.store, volumeId);
  }

  /** Deletes what this process leased, and ends the watch. The store stays open: it is the caller's. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('link closed'));
    this.#repair?.cancel();
    this.#watch?.close();
    await this.#running;
    const lease = await this.#lease?.catch(() => null);
    await lease?.revoke({ timeoutMs: 1_000 }).catch(() => lease.release());
  }

  async #follow(watch: Watch): Promise<void> {
    for await (const batch of watch) {
      this.#apply(batch);
      this.#notify();
    }
  }

  #apply(batch: WatchBatch): void {
    if (batch.kind === 'resync') {
      const rows = batch.entries.map(toRow);
      this.state.replace(rows);
      const present = new Map(rows.map((row) => [row.key, row.value]));
      for (const key of this.#leased.keys()) this.#see(key, present.get(key) ?? null);
      return;
    }
    for (const event of batch.events) {
      const key = event.kind === 'put' ? event.entry.key : event.key;
      const text = event.kind === 'put' ? event.entry.value.toString() : null;
      this.state.apply(key, text, event.kind === 'put' ? event.entry.modRevision : event.modRevision);
      if (this.#leased.has(key)) this.#see(key, text);
    }
  }

  /** A newer put may be under way: what differs is looked at again a while later. */
  #see(key: string, text: string | null): void {
    this.#seen.set(key, text);
    if (text === this.#leased.get(key) || this.#repair !== null) return;
    this.#repair = this.#options.clock.setTimer(repairMs, () => {
      this.#repair = null;
      const differs = [...this.#seen].filter(([each, seen]) => this.#leased.get(each) !== seen);
      if (differs.length === 0) return;
      this.#log.warn(
        'repair',
        { keys: differs.map(([each]) => each) },
        'store holds something older; putting it again',
      );
      void this.#renew(differs.map(([each]) => each));
    });
  }

  /** Several changes that come together are one notification. */
  #notify(): void {
    if (this.#notifying) return;
    this.#notifying = true;
    queueMicrotask(() => {
      this.#notifying = false;
      for (const [key, problem] of this.state.unreadable)
        this.#log.warn(key, { key, problem }, 'object cannot be read; left alone');
      for (const listener of [...this.#listeners]) listener();
    });
  }

  #held(): Promise<Lease> {
    this.#lease ??= this.#grant().catch((error: unknown) => {
      this.#lease = null;
      throw error;
    });
    return this.#lease;
  }

  #grant(): Promise<Lease> {
    const { store, leaseTtlSeconds } = this.#options;
    const onLost = (error: BasaltError): void => {
      this.#log.warn('lease', { error: error.message }, 'lease lost; taking another');
      this.#lease = null;
      void this.#renew();
    };
    return store.grantLease({ ttlSeconds: leaseTtlSeconds, onLost });
  }

  /** Puts what is leased again; without `keys`, all of it. */
  async #renew(keys: readonly string[] | null = null): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ clock: this.#options.clock, minMs: 100, maxMs: 2_000 });
    while (!signal.aborted) {
      try {
        const put = [...this.#leased]
          .filter(([key]) => keys?.includes(key) !== false)
          .map(([key, text]) => ({ key, text, leased: true }));
        // A transaction holds a bounded number of keys.
        for (let at = 0; at < put.length; at += putsAtOnce)
          await this.commit({ put: put.slice(at, at + putsAtOnce) }, signal);
        return;
      } catch (error) {
        this.#log.warn('lease', { error: reason(error) }, 'lease cannot be taken; trying on');
        await backoff.wait(signal).catch(() => {});
      }
    }
  }
}

function toRow(entry: Entry): { key: string; value: string; revision: number } {
  return { key: entry.key, value: entry.value.toString(), revision: entry.modRevision };
}

const callTimeoutMs = 2_000;
const repairMs = 1_000;
const putsAtOnce = 100;

class StoreLeadership implements LeadershipPort {
  readonly #store: Store;
  readonly #key: string;

  constructor(store: Store, volumeId: string) {
    this.#store = store;
    this.#key = keys.leadership(volumeId);
  }

  async read(signal: AbortSignal): Promise<Versioned<Leadership> | null> {
    const { entry } = await this.#store.get(this.#key, { signal, timeoutMs: callTimeoutMs });
    if (entry === null) return null;
    return { value: codecs.leadership.decode(entry.value.toString(), this.#key), revision: entry.modRevision };
  }

  async swap(
    present: Versioned<Leadership>,
    next: Leadership,
    signal: AbortSignal,
  ): Promise<Versioned<Leadership> | null> {
    const txn = {
      conditions: [{ key: this.#key, modRevision: present.revision }],
      changes: [{ kind: 'put' as const, key: this.#key, value: codecs.leadership.encode(next) }],
    };
    const result = await this.#store.txn(txn, { signal, timeoutMs: callTimeoutMs });
    if (result.outcome === 'unknown') throw result.error;
    return result.outcome === 'committed' ? { value: next, revision: result.revision } : null;
  }
}

class StoreReservations implements ReservationPort {
  readonly #store: Store;
  readonly #key: string;
  readonly #leadershipKey: string;

  constructor(store: Store, volumeId: string) {
    this.#store = store;
    this.#key = keys.reservation(volumeId);
    this.#leadershipKey = keys.leadership(volumeId);
  }

  async read(signal: AbortSignal): Promise<Versioned<ReservationObject> | null> {
    const { entry } = await this.#store.get(this.#key, { signal, timeoutMs: callTimeoutMs });
    if (entry === null) return null;
    return { value: codecs.reservation.decode(entry.value.toString(), this.#key), revision: entry.modRevision };
  }

  async swap(change: ReservationSwap, signal: AbortSignal): Promise<Versioned<ReservationObject> | null> {
    const { revision, leadershipRevision, next } = change;
    const txn = {
      conditions: [
        { key: this.#key, modRevision: revision ?? 0 },
        { key: this.#leadershipKey, modRevision: leadershipRevision },
      ],
      changes: [{ kind: 'put' as const, key: this.#key, value: codecs.reservation.encode(next) }],
    };
    const result = await this.#store.txn(txn, { signal, timeoutMs: callTimeoutMs });
    if (result.outcome === 'unknown') throw result.error;
    return result.outcome === 'committed' ? { value: next, revision: result.revision } : null;
  }
}
