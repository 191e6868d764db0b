// SPDX-License-Identifier: Apache-2.0
//
// What every Store must do, as tests. Run it on each implementation from a *.test.ts file.
//
// All tests of one run share a server; each has keys of its own.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../env/clock.js';
import { type BasaltError, isBasaltError } from '../model/errors.js';
import {
  committedRevision,
  compareAndSwap,
  type Entry,
  requestBytesMax,
  type Store,
  type Txn,
  txnOpsMax,
  type Watch,
  type WatchBatch,
} from './store.js';

/** A server that the contract can take away and bring back, state and address kept. */
export interface StoreHarness {
  /** A new client of the server. */
  connect(): Store;
  compact(revision: number): Promise<void>;
  stop(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
  /** What the server's leases run on. @default systemClock */
  readonly clock?: Clock;
}

const waitMs = 20_000;

export function storeContract(name: string, open: () => Promise<StoreHarness>): void {
  describe(`store contract: ${name}`, () => {
    const context = new ContractContext(open);
    beforeAll(() => context.open(), 30_000);
    afterAll(() => context.close());
    keyTests(context);
    txnTests(context);
    argumentTests(context);
    watchTests(context);
    leaseTests(context);
    absenceTests(context);
  });
}

class ContractContext {
  readonly #open: () => Promise<StoreHarness>;
  readonly #stores: Store[] = [];
  #harness: StoreHarness | null = null;
  #store: Store | null = null;
  #prefixes = 0;

  constructor(open: () => Promise<StoreHarness>) {
    this.#open = open;
  }

  async open(): Promise<void> {
    this.#harness = await this.#open();
    this.#store = this.connect();
  }

  async close(): Promise<void> {
    for (const store of this.#stores) await store.close();
    await this.#harness?.close();
  }

  get harness(): StoreHarness {
    return this.#harness!;
  }

  get store(): Store {
    return this.#store!;
  }

  connect(): Store {
    const store = this.harness.connect();
    this.#stores.push(store);
    return store;
  }

  /** A prefix that no other test uses. */
  prefix(): string {
    this.#prefixes += 1;
    return `/contract/${this.#prefixes}/`;
  }
}

function keyTests(context: ContractContext): void {
  it('answers null and the present revision for a key that does not exist', async () => {
    const { entry, revision } = await context.store.get(`${context.prefix()}missing`);
    expect(entry).toBeNull();
    expect(revision).toBeGreaterThanOrEqual(1);
  });

  it('keeps values byte for byte and numbers every put', async () => {
    const { store } = context;
    const key = `${context.prefix()}ключ`;
    const first = await store.put(key, Buffer.from([0, 255, 128, 10]));
    const second = await store.put(key, '');
    expect(second.revision).toBe(first.revision + 1);
    const { entry, revision } = await store.get(key);
    expect(revision).toBe(second.revision);
    expect(entry).toEqual({
      key,
      value: Buffer.alloc(0),
      createRevision: first.revision,
      modRevision: second.revision,
      version: 2,
      leaseId: null,
    });
    await store.put(key, Buffer.from([0, 255, 128, 10]));
    expect((await store.get(key)).entry?.value.equals(Buffer.from([0, 255, 128, 10]))).toBe(true);
  });

  it('starts a deleted key anew, and leaves the revision alone when there is nothing to delete', async () => {
    const { store } = context;
    const key = `${context.prefix()}k`;
    await store.put(key, 'one');
    const removed = await store.delete(key);
    expect(removed.deleted).toBe(true);
    const again = await store.delete(key);
    expect(again).toEqual({ deleted: false, revision: removed.revision });
    const { revision } = await store.put(key, 'two');
    expect((await store.get(key)).entry).toMatchObject({ version: 1, createRevision: revision, modRevision: revision });
  });

  it('lists a prefix in byte order, nothing beside it, in any number', async () => {
    const { store } = context;
    const prefix = context.prefix();
    const names = Array.from({ length: 1100 }, (_, index) => `${prefix}${String(index).padStart(5, '0')}`);
    for (let i = 0; i < names.length; i += txnOpsMax) {
      const changes = names.slice(i, i + txnOpsMax).map((key) => ({ kind: 'put', key, value: key }) as const);
      committedRevision({ conditions: [], changes }, await store.txn({ conditions: [], changes }));
    }
    const { revision } = await store.put(`${prefix.slice(0, -1)}0`, 'beside');
    const listed = await store.list(prefix);
    expect(listed.revision).toBe(revision);
    expect(listed.entries.map((entry) => entry.key)).toEqual(names);
    expect((await store.list('')).entries.length).toBeGreaterThan(names.length);
  });
}

function txnTests(context: ContractContext): void {
  it('applies all changes of a txn at one revision', async () => {
    const { store } = context;
    const prefix = context.prefix();
    await store.put(`${prefix}old`, 'x');
    const txn: Txn = {
      conditions: [{ key: `${prefix}a`, modRevision: 0 }],
      changes: [
        { kind: 'put', key: `${prefix}a`, value: '1' },
        { kind: 'put', key: `${prefix}b`, value: '2' },
        { kind: 'delete', key: `${prefix}old` },
      ],
    };
    const revision = committedRevision(txn, await store.txn(txn));
    const { entries } = await store.list(prefix);
    expect(entries.map((entry) => [entry.key, entry.modRevision])).toEqual([
      [`${prefix}a`, revision],
      [`${prefix}b`, revision],
    ]);
  });

  it('changes nothing on a conflict, and shows what the conditions met', async () => {
    const { store } = context;
    const prefix = context.prefix();
    const put = await store.put(`${prefix}a`, '1');
    const txn: Txn = {
      conditions: [
        { key: `${prefix}a`, modRevision: put.revision },
        { key: `${prefix}b`, modRevision: 7 },
      ],
      changes: [{ kind: 'put', key: `${prefix}c`, value: '3' }],
    };
    const result = await store.txn(txn);
    expect(result).toMatchObject({ outcome: 'conflict', revision: put.revision });
    if (result.outcome !== 'conflict') throw new Error('unreachable');
    expect(result.current.get(`${prefix}a`)?.value.toString()).toBe('1');
    expect(result.current.get(`${prefix}b`)).toBeNull();
    expect(() => committedRevision(txn, result)).toThrow(`${prefix}b changed meanwhile`);
    expect((await store.get(`${prefix}c`)).entry).toBeNull();
  });

  it('treats a deleted and created-again key as changed', async () => {
    const { store } = context;
    const key = `${context.prefix()}k`;
    const { revision } = await store.put(key, 'same');
    await store.delete(key);
    await store.put(key, 'same');
    expect((await compareAndSwap(store, { key, modRevision: revision, value: 'x' })).outcome).toBe('conflict');
    expect((await compareAndSwap(store, { key, modRevision: 0, value: 'x' })).outcome).toBe('conflict');
  });

  it('lets exactly one of many concurrent swaps of a revision win', async () => {
    const key = `${context.prefix()}counter`;
    const stores = [context.store, context.connect(), context.connect()];
    const increments = 12;
    const increment = async (store: Store): Promise<void> => {
      for (;;) {
        const { entry } = await store.get(key);
        const value = String(Number(entry?.value ?? 0) + 1);
        const result = await compareAndSwap(store, { key, modRevision: entry?.modRevision ?? 0, value });
        if (result.outcome === 'committed') return;
        expect(result.outcome).toBe('conflict');
      }
    };
    await Promise.all(Array.from({ length: increments }, (_, index) => increment(stores[index % stores.length]!)));
    const { entry } = await context.store.get(key);
    expect(entry?.value.toString()).toBe(String(increments));
    expect(entry?.version).toBe(increments);
  });

  it('checks conditions without moving the revision when there is nothing to change', async () => {
    const { store } = context;
    const key = `${context.prefix()}k`;
    const { revision } = await store.put(key, '1');
    const result = await store.txn({ conditions: [{ key, modRevision: revision }], changes: [] });
    expect(result).toEqual({ outcome: 'committed', revision });
  });
}

function argumentTests(context: ContractContext): void {
  const refusals: [string, string, (store: Store, key: string) => Promise<unknown>][] = [
    ['an empty key', 'INVALID_ARGUMENT', (store) => store.put('', 'x')],
    ['an empty key to read', 'INVALID_ARGUMENT', (store) => store.get('')],
    ['a lease shorter than two seconds', 'INVALID_ARGUMENT', (store) => store.grantLease({ ttlSeconds: 1 })],
    [
      'a value beyond the request limit',
      'STORE_TOO_LARGE',
      (store, key) => store.put(key, Buffer.alloc(requestBytesMax)),
    ],
    ['a lease that does not exist', 'STORE_LEASE_LOST', (store, key) => store.put(key, 'x', { leaseId: '4242' })],
    [
      'a negative revision as condition',
      'INVALID_ARGUMENT',
      (store, key) => store.txn({ conditions: [{ key, modRevision: -1 }], changes: [] }),
    ],
    [
      'a key changed twice in a txn',
      'INVALID_ARGUMENT',
      (store, key) => {
        const change = { kind: 'put', key, value: 'x' } as const;
        return store.txn({ conditions: [], changes: [change, change] });
      },
    ],
    [
      'too many changes in a txn',
      'STORE_TOO_LARGE',
      (store, key) => {
        const changes = Array.from(
          { length: txnOpsMax + 1 },
          (_, i) => ({ kind: 'put', key: `${key}${i}`, value: 'x' }) as const,
        );
        return store.txn({ conditions: [], changes });
      },
    ],
  ];
  it.each(refusals)('refuses %s with %s and changes nothing', async (_, code, act) => {
    const key = `${context.prefix()}k`;
    const before = await context.store.get(key);
    expect((await failureOf(act(context.store, key))).code).toBe(code);
    expect(await context.store.get(key)).toEqual(before);
  });

  it('takes a value of one mebibyte', async () => {
    const key = `${context.prefix()}large`;
    const value = Buffer.alloc(1024 * 1024, 7);
    await context.store.put(key, value);
    expect((await context.store.get(key)).entry?.value.equals(value)).toBe(true);
  });
}

function watchTests(context: ContractContext): void {
  it('shows the past and the present, one batch per revision, nothing of other prefixes', async () => {
    const { store } = context;
    const prefix = context.prefix();
    const first = await store.put(`${prefix}a`, '1');
    await store.put(`${context.prefix()}other`, 'x');
    const changes = ['b', 'c'].map((name) => ({ kind: 'put', key: prefix + name, value: name }) as const);
    const second = await store.txn({ conditions: [], changes });
    const reader = new WatchReader(store.watch(prefix, first.revision));
    expect(await reader.next()).toMatchObject({ kind: 'events', revision: first.revision });
    const both = await reader.next();
    expect(both).toMatchObject({ kind: 'events', revision: revisionOf(second) });
    expect(both.kind === 'events' && both.events.map((event) => event.kind)).toEqual(['put', 'put']);
    const third = await store.delete(`${prefix}a`);
    expect(await reader.next()).toEqual({
      kind: 'events',
      revision: third.revision,
      events: [{ kind: 'delete', key: `${prefix}a`, modRevision: third.revision }],
    });
    reader.close();
    expect(await reader.ended()).toBe(true);
  });

  it('gives several watchers of one client the same events', async () => {
    const { store } = context;
    const prefix = context.prefix();
    const { revision } = await store.list(prefix);
    const readers = Array.from({ length: 20 }, () => new WatchReader(store.watch(prefix, revision + 1)));
    const put = await store.put(`${prefix}a`, '1');
    const batches = await Promise.all(readers.map((reader) => reader.next()));
    expect(batches.map((batch) => batch.revision)).toEqual(readers.map(() => put.revision));
    for (const reader of readers) reader.close();
  });

  it('ends a watch without an error when its signal aborts', async () => {
    const { store } = context;
    const controller = new AbortController();
    const { revision } = await store.list(context.prefix());
    const reader = new WatchReader(store.watch(context.prefix(), revision + 1, { signal: controller.signal }));
    const ended = reader.ended();
    controller.abort();
    expect(await ended).toBe(true);
    expect(await new WatchReader(store.watch('x', 1, { signal: controller.signal })).ended()).toBe(true);
  });

  it('starts over from the present state when what it wants was compacted, then goes on', async () => {
    const { store, harness } = context;
    const prefix = context.prefix();
    const first = await store.put(`${prefix}a`, '1');
    await store.put(`${prefix}a`, '2');
    await store.put(`${prefix}gone`, 'x');
    await store.delete(`${prefix}gone`);
    const last = await store.put(`${prefix}b`, '3');
    await harness.compact(last.revision);
    const reader = new WatchReader(store.watch(prefix, first.revision));
    const resync = await reader.next();
    expect(resync).toMatchObject({ kind: 'resync', reason: 'compacted', revision: last.revision });
    expect(resync.kind === 'resync' && values(resync.entries)).toEqual({ [`${prefix}a`]: '2', [`${prefix}b`]: '3' });
    const next = await store.put(`${prefix}c`, '4');
    expect(await reader.next()).toMatchObject({ kind: 'events', revision: next.revision });
    reader.close();
  });

  it('still shows a deletion at the compacted revision itself', async () => {
    const { store, harness } = context;
    const prefix = context.prefix();
    await store.put(`${prefix}a`, '1');
    const put = await store.put(`${prefix}b`, '1');
    await harness.compact(put.revision);
    const reader = new WatchReader(store.watch(prefix, put.revision));
    expect(await reader.next()).toMatchObject({ kind: 'events', revision: put.revision });
    reader.close();
  });

  it('loses and repeats nothing while the server goes and comes back', { timeout: 40_000 }, async () => {
    const { store, harness } = context;
    const prefix = context.prefix();
    const states: boolean[] = [];
    const { revision } = await store.list(prefix);
    const watch = store.watch(prefix, revision + 1, { onConnected: (connected) => states.push(connected) });
    const reader = new WatchReader(watch);
    const revisions = [(await store.put(`${prefix}0`, '0')).revision];
    const seen = [(await reader.next()).revision];
    await harness.stop();
    const pending = reader.next();
    await harness.start();
    for (let i = 1; i <= 5; i++) revisions.push(await putForSure(store, `${prefix}${i}`, String(i)));
    seen.push((await pending).revision);
    while (seen.length < revisions.length) seen.push((await reader.next()).revision);
    expect(seen).toEqual(revisions);
    expect(states).toEqual([true, false, true]);
    reader.close();
  });
}

/** Returns the revision. The first call after a server went may be cut off with the old connection: then it is looked up. */
async function putForSure(store: Store, key: string, value: string): Promise<number> {
  for (;;) {
    try {
      return (await store.put(key, value, { timeoutMs: waitMs })).revision;
    } catch (error) {
      if (!isBasaltError(error, 'STORE_UNKNOWN_OUTCOME')) throw error;
      const { entry } = await store.get(key, { timeoutMs: waitMs });
      if (entry !== null) return entry.modRevision;
    }
  }
}

function leaseTests(context: ContractContext): void {
  it.concurrent('keeps the keys of a held lease beyond its TTL, and drops them at once when it is revoked', {
    timeout: 20_000,
  }, async () => {
    const { store } = context;
    const key = `${context.prefix()}held`;
    const lease = await store.grantLease({ ttlSeconds: 2, onLost: () => expect.unreachable('the lease was lost') });
    expect(lease.ttlSeconds).toBeGreaterThanOrEqual(2);
    await store.put(key, 'x', { leaseId: lease.id });
    await (context.harness.clock ?? systemClock).sleep(3_500);
    expect((await store.get(key)).entry?.leaseId).toBe(lease.id);
    expect(lease.state).toBe('held');
    await lease.revoke();
    expect(lease.state).toBe('ended');
    expect((await store.get(key)).entry).toBeNull();
    await lease.revoke();
  });

  it.concurrent('ends a lease that nobody renews, with all its keys at one revision', { timeout: 20_000 }, async () => {
    const { store } = context;
    const prefix = context.prefix();
    const lease = await store.grantLease({ ttlSeconds: 2 });
    const changes = ['a', 'b'].map(
      (name) => ({ kind: 'put', key: prefix + name, value: 'x', leaseId: lease.id }) as const,
    );
    const revision = revisionOf(await store.txn({ conditions: [], changes }));
    const kept = await store.put(`${prefix}c`, 'x', { leaseId: lease.id });
    const taken = await store.put(`${prefix}c`, 'no lease any more');
    expect(kept.revision).toBeGreaterThan(revision);
    expect(taken.revision).toBeGreaterThan(kept.revision);
    const reader = new WatchReader(store.watch(prefix, taken.revision + 1));
    lease.release();
    const batch = await reader.next();
    expect(batch.kind === 'events' && batch.events.map((event) => event.kind)).toEqual(['delete', 'delete']);
    expect((await store.list(prefix)).entries.map((entry) => entry.key)).toEqual([`${prefix}c`]);
    reader.close();
  });
}

function absenceTests(context: ContractContext): void {
  it('fails with a code within its deadline while the server is away, and serves again after', {
    timeout: 60_000,
  }, async () => {
    const { harness } = context;
    const store = context.connect();
    const key = `${context.prefix()}k`;
    await store.put(key, 'before');
    const lost: BasaltError[] = [];
    const lease = await store.grantLease({ ttlSeconds: 2, onLost: (error) => lost.push(error) });
    await harness.stop();
    expect((await failureOf(store.get(key, { timeoutMs: 300 }))).code).toBe('STORE_UNREACHABLE');
    expect((await failureOf(store.put(key, 'away', { timeoutMs: 300 }))).code).toBe('STORE_UNREACHABLE');
    const txn = store.txn({ conditions: [], changes: [{ kind: 'put', key, value: 'away' }] }, { timeoutMs: 300 });
    expect((await failureOf(txn)).code).toBe('STORE_UNREACHABLE');
    const aborted = store.get(key, { signal: AbortSignal.abort('enough'), timeoutMs: waitMs });
    expect((await failureOf(aborted)).code).toBe('CANCELLED');
    await expect.poll(() => lease.state, { timeout: 10_000 }).toBe('lost');
    expect(lost.map((error) => error.code)).toEqual(['STORE_LEASE_LOST']);
    await harness.start();
    expect((await store.get(key, { timeoutMs: waitMs })).entry?.value.toString()).toBe('before');
    await store.put(key, 'after', { timeoutMs: waitMs });
  });

  it('refuses everything after close', async () => {
    const store = context.connect();
    const watch = new WatchReader(store.watch(context.prefix(), 1));
    const ended = watch.drain();
    await store.close();
    await ended;
    expect((await failureOf(store.get('k'))).code).toBe('STORE_CLOSED');
    expect((await failureOf(store.put('k', 'x'))).code).toBe('STORE_CLOSED');
    expect(() => store.watch('k', 1)).toThrow('closed');
    await store.close();
  });
}

/** Reads a watch batch by batch. */
export class WatchReader {
  readonly #watch: Watch;
  readonly #iterator: AsyncIterator<WatchBatch>;

  constructor(watch: Watch) {
    this.#watch = watch;
    this.#iterator = watch[Symbol.asyncIterator]();
  }

  async next(): Promise<WatchBatch> {
    const { value, done } = await this.#iterator.next();
    if (done) throw new Error('the watch ended');
    return value as WatchBatch;
  }

  async ended(): Promise<boolean> {
    return (await this.#iterator.next()).done === true;
  }

  async drain(): Promise<void> {
    while (!(await this.ended()));
  }

  close(): void {
    this.#watch.close();
  }
}

export async function failureOf(promise: Promise<unknown>): Promise<BasaltError> {
  const error: unknown = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!isBasaltError(error)) throw new Error(`expected a BasaltError, got ${String(error)}`, { cause: error });
  return error;
}

function revisionOf(result: { outcome: string; revision?: number }): number {
  expect(result.outcome).toBe('committed');
  return result.revision!;
}

function values(entries: readonly Entry[]): Record<string, string> {
  return Object.fromEntries(entries.map((entry) => [entry.key, entry.value.toString()]));
}
