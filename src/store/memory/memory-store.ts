// SPDX-License-Identifier: Apache-2.0
//
// The Store without processes or files, for unit tests: several clients share one MemoryServer, which
// a test can compact, replace by an older copy of itself, or take away.
//
// Invariants:  - what a txn does is seen at once and as a whole
//              - while the server is away calls fail with STORE_UNREACHABLE (after their deadline is not
//                waited for), watches wait, leases run on

import { type Clock, systemClock, type Timer } from '../../env/clock.js';
import { BasaltError } from '../../model/errors.js';
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
  WatchBatch,
  WatchEvent,
  WatchOptions,
} from '../store.js';
import { checkKey, checkLeaseTtl, checkTxn } from '../store.js';

const endpoint = 'memory';

interface LoggedRevision {
  readonly revision: number;
  readonly events: readonly WatchEvent[];
}

/** The state that MemoryStores share. */
export class MemoryServer {
  revision = 1;
  compactRevision = 0;
  readonly clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #leases = new Map<string, { ttlMs: number; timer: Timer; onGone: () => void }>();
  readonly #waiting = new Set<() => void>();
  #log: LoggedRevision[] = [];
  #leaseCount = 0;
  #away = false;

  constructor(clock: Clock = systemClock) {
    this.clock = clock;
  }

  /** A client of this server. */
  connect(): Store {
    return new MemoryStore(this);
  }

  get away(): boolean {
    return this.#away;
  }

  set away(away: boolean) {
    this.#away = away;
    this.#wake();
  }

  compact(revision: number): void {
    this.compactRevision = revision;
    this.#log = this.#log.filter((logged) => logged.revision >= revision);
  }

  get(key: string): Entry | null {
    return this.#entries.get(key) ?? null;
  }

  list(prefix: string): Entry[] {
    const found = [...this.#entries.values()].filter((entry) => entry.key.startsWith(prefix));
    return found.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  }

  /** Applies the changes at one revision; changes nothing, and no revision, if there are none. */
  apply(changes: readonly Change[]): number {
    for (const change of changes) {
      if (change.kind === 'put' && change.leaseId && !this.#leases.has(change.leaseId)) {
        throw new BasaltError('STORE_LEASE_LOST', { leaseId: change.leaseId });
      }
    }
    const revision = this.revision + 1;
    const events = changes.flatMap((change) => this.#applyOne(change, revision));
    if (events.length === 0) return this.revision;
    this.revision = revision;
    this.#log.push({ revision, events });
    this.#wake();
    return revision;
  }

  grant(ttlSeconds: number, onGone: () => void): string {
    this.#leaseCount += 1;
    const id = String(this.#leaseCount);
    const ttlMs = ttlSeconds * 1000;
    this.#leases.set(id, { ttlMs, onGone, timer: this.clock.setTimer(ttlMs, () => this.revoke(id)) });
    return id;
  }

  /** Returns whether the lease still exists. */
  renew(id: string): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    lease.timer.cancel();
    lease.timer = this.clock.setTimer(lease.ttlMs, () => this.revoke(id));
    return true;
  }

  revoke(id: string): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.timer.cancel();
    this.#leases.delete(id);
    const keys = [...this.#entries.values()].filter((entry) => entry.leaseId === id).map((entry) => entry.key);
    this.apply(keys.map((key) => ({ kind: 'delete', key })));
    lease.onGone();
  }

  logFrom(revision: number): LoggedRevision | undefined {
    return this.#log.find((logged) => logged.revision >= revision);
  }

  /** Resolves at the next change of anything, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      if (signal.aborted) return resolve();
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  #applyOne(change: Change, revision: number): WatchEvent[] {
    const { key } = change;
    const previous = this.#entries.get(key);
    if (change.kind === 'delete') {
      return this.#entries.delete(key) ? [{ kind: 'delete', key, modRevision: revision }] : [];
    }
    const entry: Entry = {
      key,
      value: Buffer.from(change.value),
      createRevision: previous?.createRevision ?? revision,
      modRevision: revision,
      version: (previous?.version ?? 0) + 1,
      leaseId: change.leaseId ?? null,
    };
    this.#entries.set(key, entry);
    return [{ kind: 'put', entry }];
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

class MemoryStore implements Store {
  readonly #server: MemoryServer;
  readonly #closing = new AbortController();
  readonly #leases = new Set<MemoryLease>();

  constructor(server: MemoryServer) {
    this.#server = server;
  }

  async get(key: string, options: CallOptions = {}): Promise<{ entry: Entry | null; revision: number }> {
    checkKey(key);
    await this.#reach(`get ${key}`, options);
    return { entry: this.#server.get(key), revision: this.#server.revision };
  }

  async list(prefix: string, options: CallOptions = {}): Promise<{ entries: Entry[]; revision: number }> {
    await this.#reach(`list ${prefix}`, options);
    return { entries: this.#server.list(prefix), revision: this.#server.revision };
  }

  async put(key: string, value: string | Buffer, options: PutOptions = {}): Promise<{ revision: number }> {
    const change: Change = { kind: 'put', key, value, leaseId: options.leaseId ?? null };
    checkTxn({ conditions: [], changes: [change] });
    await this.#reach(`put ${key}`, options);
    return { revision: this.#server.apply([change]) };
  }

  async delete(key: string, options: CallOptions = {}): Promise<{ deleted: boolean; revision: number }> {
    checkKey(key);
    await this.#reach(`delete ${key}`, options);
    const deleted = this.#server.get(key) !== null;
    return { deleted, revision: this.#server.apply([{ kind: 'delete', key }]) };
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    checkTxn(txn);
    await this.#reach('txn', options);
    const server = this.#server;
    const holds = txn.conditions.every(({ key, modRevision }) => (server.get(key)?.modRevision ?? 0) === modRevision);
    if (holds) return { outcome: 'committed', revision: server.apply(txn.changes) };
    const current = new Map(txn.conditions.map(({ key }) => [key, server.get(key)]));
    return { outcome: 'conflict', revision: server.revision, current };
  }

  watch(prefix: string, fromRevision: number, options: WatchOptions = {}): Watch {
    if (this.#closing.signal.aborted) throw new BasaltError('STORE_CLOSED');
    if (!Number.isSafeInteger(fromRevision) || fromRevision < 1) {
      throw new BasaltError('INVALID_ARGUMENT', { field: 'fromRevision', problem: 'must be an integer >= 1' });
    }
    return new MemoryWatch(this.#server, prefix, fromRevision, this.#closing.signal, options);
  }

  async grantLease(options: LeaseOptions): Promise<Lease> {
    checkLeaseTtl(options.ttlSeconds);
    await this.#reach('grant of a lease', options);
    const lease = new MemoryLease(this.#server, options);
    this.#leases.add(lease);
    return lease;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const lease of this.#leases) lease.release();
  }

  async #reach(operation: string, options: CallOptions): Promise<void> {
    // As over a network, no answer within the caller's turn.
    await Promise.resolve();
    if (this.#closing.signal.aborted) throw new BasaltError('STORE_CLOSED');
    if (options.signal?.aborted) throw new BasaltError('CANCELLED', { operation }, { cause: options.signal.reason });
    if (this.#server.away) throw new BasaltError('STORE_UNREACHABLE', { endpoint, detail: 'taken away by the test' });
  }
}

class MemoryLease implements Lease {
  readonly id: string;
  readonly ttlSeconds: number;
  readonly #server: MemoryServer;
  #state: Lease['state'] = 'held';
  #timer: Timer | null = null;

  constructor(server: MemoryServer, { ttlSeconds, onLost }: LeaseOptions) {
    this.#server = server;
    this.ttlSeconds = ttlSeconds;
    this.id = server.grant(ttlSeconds, () => {
      if (!this.#end('lost')) return;
      onLost?.(new BasaltError('STORE_LEASE_LOST', { leaseId: this.id }));
    });
    this.#renewLater();
  }

  get state(): Lease['state'] {
    return this.#state;
  }

  async revoke(): Promise<void> {
    this.#end('ended');
    if (this.#server.away) throw new BasaltError('STORE_UNREACHABLE', { endpoint, detail: 'taken away by the test' });
    this.#server.revoke(this.id);
  }

  release(): void {
    this.#end('ended');
  }

  #renewLater(): void {
    this.#timer = this.#server.clock.setTimer((this.ttlSeconds * 1000) / 3, () => {
      if (!this.#server.away) this.#server.renew(this.id);
      this.#renewLater();
    });
  }

  #end(state: 'lost' | 'ended'): boolean {
    if (this.#state !== 'held') return false;
    this.#state = state;
    this.#timer?.cancel();
    return true;
  }
}

class MemoryWatch implements Watch {
  readonly #server: MemoryServer;
  readonly #prefix: string;
  readonly #ending = new AbortController();
  readonly #signal: AbortSignal;
  readonly #onConnected: ((connected: boolean) => void) | undefined;
  #nextRevision: number;

  constructor(server: MemoryServer, prefix: string, fromRevision: number, closing: AbortSignal, options: WatchOptions) {
    this.#server = server;
    this.#prefix = prefix;
    this.#nextRevision = fromRevision;
    this.#onConnected = options.onConnected;
    const signals = [closing, this.#ending.signal, ...(options.signal === undefined ? [] : [options.signal])];
    this.#signal = AbortSignal.any(signals);
  }

  close(): void {
    this.#ending.abort();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void> {
    let connected: boolean | null = null;
    while (!this.#signal.aborted) {
      if (connected !== !this.#server.away) this.#onConnected?.(!this.#server.away);
      connected = !this.#server.away;
      const batch = connected ? this.#next() : null;
      if (batch !== null) yield batch;
      else await this.#server.changed(this.#signal);
    }
  }

  #next(): WatchBatch | null {
    const server = this.#server;
    if (this.#nextRevision < server.compactRevision) {
      const { revision } = server;
      this.#nextRevision = revision + 1;
      return { kind: 'resync', reason: 'compacted', revision, entries: server.list(this.#prefix) };
    }
    for (;;) {
      const logged = server.logFrom(this.#nextRevision);
      if (logged === undefined) return null;
      this.#nextRevision = logged.revision + 1;
      const events = logged.events.filter((event) => keyOf(event).startsWith(this.#prefix));
      if (events.length > 0) return { kind: 'events', revision: logged.revision, events };
    }
  }
}

function keyOf(event: WatchEvent): string {
  return event.kind === 'put' ? event.entry.key : event.key;
}
