// SPDX-License-Identifier: Apache-2.0
//
// The store of a simulated cluster: one MemoryServer, and clients that reach it over a network that is slow, loses
// questions and answers, and may be cut, each direction alone.
//
// Invariants:  - a question whose answer is lost may have been carried out: changes then end as STORE_UNKNOWN_OUTCOME,
//                and may even be carried out after their client gave up
//              - an answer reaches its client through the client's clock: never while that process is paused or dead
//              - watches deliver every revision once and in order, or a resync

import type { Clock } from '../env/clock.js';
import type { SeededRandom } from '../env/seeded-random.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import { BasaltError } from '../model/errors.js';
import { MemoryServer } from '../store/memory/memory-store.js';
import type {
  CallOptions,
  Change,
  Entry,
  Lease,
  LeaseOptions,
  PutOptions,
  Store,
  Txn,
  TxnResult,
  Watch,
  WatchOptions,
} from '../store/store.js';
import { checkKey, checkTxn } from '../store/store.js';
import type { RareEvents } from './rare-events.js';
import { SimLease } from './sim-lease.js';
import { SimWatch } from './sim-watch.js';

export interface SimStoreKnobs {
  readonly latencyMinMs: number;
  readonly latencyMaxMs: number;
  /** Of questions that are carried out only seconds later. */
  readonly lateChance: number;
  readonly answerLostChance: number;
}

export const calmStore: SimStoreKnobs = { latencyMinMs: 0.2, latencyMaxMs: 2, lateChance: 0, answerLostChance: 0 };

const timeoutMsDefault = 5_000;
const lateMs = { min: 500, max: 6_000 };
/** How long clients take to find that the store is back. */
const reconnectMsMax = 400;

export class SimStoreServer extends MemoryServer {
  knobs: SimStoreKnobs = calmStore;
  /** Nobody is answered. */
  down = false;
  /** By client: its questions do not arrive; its answers and events do not. */
  readonly cutTo = new Set<string>();
  readonly cutFrom = new Set<string>();
  onApply: (changes: readonly Change[], revision: number) => void = () => {};
  readonly rareEvents: RareEvents;
  readonly #random: SeededRandom;
  readonly #watches = new Set<SimWatch>();
  readonly #leases = new Map<string, string>();

  constructor(clock: Clock, random: SeededRandom, rareEvents: RareEvents) {
    super(clock);
    this.#random = random;
    this.rareEvents = rareEvents;
  }

  override apply(changes: readonly Change[]): number {
    const before = this.revision;
    const revision = super.apply(changes);
    if (revision !== before) {
      this.onApply(changes, revision);
      for (const watch of this.#watches) this.tellSoon(watch, revision);
    }
    return revision;
  }

  open(client: string, clock: VirtualClock): SimStore {
    return new SimStore(this, client, clock);
  }

  follow(watch: SimWatch): void {
    this.#watches.add(watch);
    this.tellSoon(watch, this.revision);
  }

  unfollow(watch: SimWatch): void {
    this.#watches.delete(watch);
  }

  /** The client's process is gone. */
  forget(client: string): void {
    for (const watch of [...this.#watches]) if (watch.client === client) this.#watches.delete(watch);
  }

  /** Ends the lease of a client, as if the store's clock had run ahead. */
  loseLeases(client: string): void {
    for (const [id, owner] of [...this.#leases]) {
      if (owner !== client) continue;
      this.#leases.delete(id);
      this.revoke(id);
    }
  }

  noteLease(id: string, client: string): void {
    this.#leases.set(id, client);
  }

  /** It was down; clients find that out after a while, and hear what they missed. */
  rise(): void {
    this.down = false;
    this.#catchUp(() => true);
  }

  healClient(client: string): void {
    this.cutTo.delete(client);
    this.cutFrom.delete(client);
    this.#catchUp((watch) => watch.client === client);
  }

  heal(): void {
    this.cutTo.clear();
    this.cutFrom.clear();
    this.rise();
  }

  #catchUp(who: (watch: SimWatch) => boolean): void {
    for (const watch of [...this.#watches].filter(who))
      this.clock.setTimer(this.#random.fraction() * reconnectMsMax, () => this.tellSoon(watch, this.revision));
  }

  latencyMs(): number {
    const { latencyMinMs, latencyMaxMs } = this.knobs;
    return latencyMinMs + this.#random.fraction() * (latencyMaxMs - latencyMinMs);
  }

  /** On its way; null: lost. `late` questions only arrive long after they were sent. */
  questionDelayMs(client: string): number | null {
    if (this.cutTo.has(client)) return null;
    if (this.#random.chance(this.knobs.lateChance)) return this.#random.between(lateMs.min, lateMs.max);
    return this.latencyMs();
  }

  answerLost(client: string): boolean {
    return this.down || this.cutFrom.has(client) || this.#random.chance(this.knobs.answerLostChance);
  }

  tellSoon(watch: SimWatch, revision: number): void {
    this.clock.setTimer(this.latencyMs(), () => {
      if (!this.down && !this.cutFrom.has(watch.client)) watch.arrive(revision);
    });
  }
}

type Outcome<T> = { readonly value: T } | { readonly error: unknown };

export class SimStore implements Store {
  readonly client: string;
  readonly clock: VirtualClock;
  readonly #server: SimStoreServer;
  readonly #closing = new AbortController();
  readonly #leases = new Set<SimLease>();
  readonly #watches = new Set<SimWatch>();

  constructor(server: SimStoreServer, client: string, clock: VirtualClock) {
    this.#server = server;
    this.client = client;
    this.clock = clock;
  }

  get(key: string, options: CallOptions = {}): Promise<{ entry: Entry | null; revision: number }> {
    checkKey(key);
    const server = this.#server;
    return this.ask({ operation: `get ${key}`, changes: false, ...options }, () => ({
      entry: server.get(key),
      revision: server.revision,
    }));
  }

  list(prefix: string, options: CallOptions = {}): Promise<{ entries: Entry[]; revision: number }> {
    const server = this.#server;
    return this.ask({ operation: `list ${prefix}`, changes: false, ...options }, () => ({
      entries: server.list(prefix),
      revision: server.revision,
    }));
  }

  put(key: string, value: string | Buffer, options: PutOptions = {}): Promise<{ revision: number }> {
    const change: Change = { kind: 'put', key, value, leaseId: options.leaseId ?? null };
    checkTxn({ conditions: [], changes: [change] });
    return this.ask({ operation: `put ${key}`, changes: true, ...options }, () => ({
      revision: this.#server.apply([change]),
    }));
  }

  delete(key: string, options: CallOptions = {}): Promise<{ deleted: boolean; revision: number }> {
    checkKey(key);
    return this.ask({ operation: `delete ${key}`, changes: true, ...options }, () => {
      const deleted = this.#server.get(key) !== null;
      return { deleted, revision: this.#server.apply([{ kind: 'delete', key }]) };
    });
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    checkTxn(txn);
    const operation = `txn on ${(txn.conditions[0] ?? txn.changes[0])?.key ?? 'nothing'}`;
    try {
      return await this.ask({ operation, changes: true, ...options }, () => this.#carryOut(txn));
    } catch (error) {
      if (error instanceof BasaltError && error.code === 'STORE_UNKNOWN_OUTCOME') return { outcome: 'unknown', error };
      throw error;
    }
  }

  watch(prefix: string, fromRevision: number, options: WatchOptions = {}): Watch {
    if (this.#closing.signal.aborted) throw new BasaltError('STORE_CLOSED');
    const watch = new SimWatch({ server: this.#server, clock: this.clock, client: this.client, prefix, fromRevision });
    options.signal?.addEventListener('abort', () => watch.close(), { once: true });
    this.#watches.add(watch);
    options.onConnected?.(true);
    return watch;
  }

  async grantLease(options: LeaseOptions): Promise<Lease> {
    const sentMs = this.clock.now();
    const id = await this.ask({ operation: 'grant of a lease', changes: false, ...options }, () => {
      const granted = this.#server.grant(options.ttlSeconds, () => {});
      this.#server.noteLease(granted, this.client);
      return granted;
    });
    const lease = new SimLease({ id, store: this, server: this.#server, sentMs, options });
    this.#leases.add(lease);
    return lease;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const lease of this.#leases) lease.release();
    for (const watch of this.#watches) watch.close();
  }

  /** One question and its answer, over the network. `changes`: a lost answer leaves the outcome unknown. */
  ask<T>(call: { operation: string; changes: boolean } & CallOptions, perform: () => T): Promise<T> {
    const { operation, changes, signal, timeoutMs = timeoutMsDefault } = call;
    const server = this.#server;
    return new Promise<T>((resolve, reject) => {
      if (this.#closing.signal.aborted) return reject(new BasaltError('STORE_CLOSED'));
      if (signal?.aborted) return reject(new BasaltError('CANCELLED', { operation }, { cause: signal.reason }));
      let settled = false;
      const settle = (outcome: Outcome<T>): void => {
        if (settled) return;
        settled = true;
        timer.cancel();
        signal?.removeEventListener('abort', aborted);
        if ('error' in outcome) reject(outcome.error);
        else resolve(outcome.value);
      };
      const timer = this.clock.setTimer(timeoutMs, () => settle({ error: gaveUp(operation, changes, 'no answer') }));
      const aborted = (): void => {
        const cancelled = new BasaltError('CANCELLED', { operation }, { cause: signal?.reason });
        settle({ error: changes ? gaveUp(operation, true, 'cancelled') : cancelled });
      };
      signal?.addEventListener('abort', aborted, { once: true });
      const answer = (outcome: Outcome<T>): void => {
        server.clock.setTimer(server.latencyMs(), () => {
          if (!server.answerLost(this.client)) this.clock.setTimer(0, () => settle(outcome));
          else if (changes) server.rareEvents.reach('store_answer_lost');
        });
      };
      const delayMs = server.questionDelayMs(this.client);
      if (delayMs === null) return;
      server.clock.setTimer(delayMs, () => {
        // A server that is down refuses the connection, which is an answer of its own.
        if (server.down) {
          server.rareEvents.reach('store_refused');
          const refused = new BasaltError('STORE_UNREACHABLE', { endpoint: 'simulated', detail: 'refused' });
          this.clock.setTimer(server.latencyMs(), () => settle({ error: refused }));
          return;
        }
        if (settled && changes) server.rareEvents.reach('store_change_late');
        answer(carriedOut(perform));
      });
    });
  }

  #carryOut(txn: Txn): TxnResult {
    const server = this.#server;
    const holds = txn.conditions.every(({ key, modRevision }) => (server.get(key)?.modRevision ?? 0) === modRevision);
    if (holds) return { outcome: 'committed', revision: server.apply(txn.changes) };
    server.rareEvents.reach('store_conflict');
    const current = new Map(txn.conditions.map(({ key }) => [key, server.get(key)]));
    return { outcome: 'conflict', revision: server.revision, current };
  }
}

function carriedOut<T>(perform: () => T): Outcome<T> {
  try {
    return { value: perform() };
  } catch (error) {
    return { error };
  }
}

function gaveUp(operation: string, changes: boolean, detail: string): BasaltError {
  return changes
    ? new BasaltError('STORE_UNKNOWN_OUTCOME', { operation, endpoint: 'simulated', detail })
    : new BasaltError('STORE_UNREACHABLE', { endpoint: 'simulated', detail });
}
