// SPDX-License-Identifier: Apache-2.0
//
// The Store over the network: for the embedded server and for etcd alike.

import { type Clock, systemClock } from '../../env/clock.js';
import { type Random, systemRandom } from '../../env/random.js';
import { BasaltError, isBasaltError } from '../../model/errors.js';
import { type Logger, silentLogger } from '../logger.js';
import type {
  CallOptions,
  Entry,
  Lease,
  LeaseOptions,
  PutOptions,
  Store,
  Txn,
  TxnResult,
  Watch,
  WatchOptions,
} from '../store.js';
import { checkKey, checkLeaseTtl, checkTxn } from '../store.js';
import type { StoreUser } from './auth-token.js';
import {
  keyAfter,
  prefixRange,
  type ReceivedRange,
  type ReceivedTxn,
  toEntry,
  toRevision,
  toTxnRequest,
} from './codec.js';
import { EtcdConnection, type Request, type StoreCertificates } from './connection.js';
import { EtcdLease } from './etcd-lease.js';
import { EtcdWatch } from './etcd-watch.js';

export interface EtcdStoreOptions {
  /** 'http://host:port' or 'https://host:port'; tried in turn. */
  endpoints: readonly string[];
  /** For https endpoints. */
  credentials?: StoreCertificates;
  /** Who this is; with a certificate whose name is a user's that is not needed. */
  user?: StoreUser | null;
  /** Deadline of a call that names none. @default 5000 */
  timeoutMs?: number;
  logger?: Logger;
  clock?: Clock;
  random?: Random;
}

/** Connects when first used; never fails for want of a server. */
export function openEtcdStore(options: EtcdStoreOptions): Store {
  return new EtcdStore(options);
}

/** Keys fetched per request while listing, so that no answer is huge. */
const listPageKeys = 1000;
const timeoutMsDefault = 5_000;

class EtcdStore implements Store {
  readonly #connection: EtcdConnection;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  readonly #leases = new Set<EtcdLease>();
  readonly #watches = new Set<EtcdWatch>();

  constructor(options: EtcdStoreOptions) {
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#logger = options.logger ?? silentLogger;
    this.#timeoutMs = options.timeoutMs ?? timeoutMsDefault;
    const { endpoints, credentials, user = null } = options;
    this.#connection = new EtcdConnection({
      endpoints,
      user,
      ...(credentials === undefined ? {} : { credentials }),
      clock: this.#clock,
      random: this.#random,
    });
  }

  async get(key: string, options: CallOptions = {}): Promise<{ entry: Entry | null; revision: number }> {
    checkKey(key);
    const answer = await this.#read<ReceivedRange>(`get ${key}`, 'range', { key: Buffer.from(key) }, options);
    const [kv] = answer.kvs;
    return { entry: kv === undefined ? null : toEntry(kv), revision: toRevision(answer.header.revision) };
  }

  async list(prefix: string, options: CallOptions = {}): Promise<{ entries: Entry[]; revision: number }> {
    const deadlineMs = this.#clock.now() + (options.timeoutMs ?? this.#timeoutMs);
    for (;;) {
      try {
        return await this.#listOnce(prefix, options, deadlineMs);
      } catch (error) {
        // Compacted between two pages: begin again with the present state.
        if (!isBasaltError(error, 'STORE_COMPACTED')) throw error;
      }
    }
  }

  async put(key: string, value: string | Buffer, options: PutOptions = {}): Promise<{ revision: number }> {
    const leaseId = options.leaseId ?? null;
    checkTxn({ conditions: [], changes: [{ kind: 'put', key, value, leaseId }] });
    const payload = { key: Buffer.from(key), value: Buffer.from(value), lease: leaseId ?? '0' };
    const answer = await this.#change<ReceivedRange>(`put ${key}`, 'put', payload, options, leaseId);
    return { revision: toRevision(answer.header.revision) };
  }

  async delete(key: string, options: CallOptions = {}): Promise<{ deleted: boolean; revision: number }> {
    checkKey(key);
    const answer = await this.#change<ReceivedRange & { deleted: string }>(
      `delete ${key}`,
      'deleteRange',
      { key: Buffer.from(key) },
      options,
      null,
    );
    return { deleted: answer.deleted !== '0', revision: toRevision(answer.header.revision) };
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    checkTxn(txn);
    const leaseId =
      txn.changes.flatMap((change) => (change.kind === 'put' && change.leaseId ? [change.leaseId] : []))[0] ?? null;
    const operation = `txn on ${(txn.conditions[0] ?? txn.changes[0])?.key ?? 'nothing'}`;
    try {
      const answer = await this.#change<ReceivedTxn>(operation, 'txn', toTxnRequest(txn), options, leaseId);
      const revision = toRevision(answer.header.revision);
      return answer.succeeded
        ? { outcome: 'committed', revision }
        : { outcome: 'conflict', revision, current: currentOf(txn, answer) };
    } catch (error) {
      if (isBasaltError(error, 'STORE_UNKNOWN_OUTCOME')) return { outcome: 'unknown', error };
      throw error;
    }
  }

  watch(prefix: string, fromRevision: number, options: WatchOptions = {}): Watch {
    if (this.#connection.closed) throw new BasaltError('STORE_CLOSED');
    if (!Number.isSafeInteger(fromRevision) || fromRevision < 1) {
      throw new BasaltError('INVALID_ARGUMENT', { field: 'fromRevision', problem: 'must be an integer >= 1' });
    }
    const watch = new EtcdWatch({
      prefix,
      fromRevision,
      options,
      connection: this.#connection,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
      list: (signal) => this.list(prefix, { signal }),
      onEnded: (ended) => this.#watches.delete(ended),
    });
    if (!watch.ended) this.#watches.add(watch);
    return watch;
  }

  async grantLease(options: LeaseOptions): Promise<Lease> {
    checkLeaseTtl(options.ttlSeconds);
    const sentMs = this.#clock.now();
    const answer = await this.#ask<{ ID: string; TTL: string }>({
      service: 'Lease',
      method: 'leaseGrant',
      payload: { TTL: options.ttlSeconds, ID: '0' },
      operation: 'grant of a lease',
      // Granting twice leaves a lease that nobody renews: harmless, so it may be asked again.
      changes: false,
      options,
    });
    const lease = new EtcdLease({
      id: answer.ID,
      ttlSeconds: Number(answer.TTL),
      sentMs,
      connection: this.#connection,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
      onLost: options.onLost ?? null,
      onEnded: () => this.#leases.delete(lease),
      revoke: (callOptions) => this.#revokeLease(answer.ID, callOptions),
    });
    this.#leases.add(lease);
    lease.start();
    return lease;
  }

  async close(): Promise<void> {
    for (const lease of this.#leases) lease.release();
    for (const watch of this.#watches) watch.close();
    this.#connection.close();
  }

  async #listOnce(
    prefix: string,
    options: CallOptions,
    deadlineMs: number,
  ): Promise<{ entries: Entry[]; revision: number }> {
    const entries: Entry[] = [];
    const range = prefixRange(prefix);
    let revision = 0;
    for (;;) {
      const timeoutMs = Math.max(0, deadlineMs - this.#clock.now());
      const payload = { ...range, limit: listPageKeys, revision };
      const answer = await this.#read<ReceivedRange>(`list ${prefix}`, 'range', payload, { ...options, timeoutMs });
      if (revision === 0) revision = toRevision(answer.header.revision);
      for (const kv of answer.kvs) entries.push(toEntry(kv));
      const last = answer.kvs.at(-1);
      if (!answer.more || last === undefined) return { entries, revision };
      range.key = keyAfter(last.key);
    }
  }

  async #revokeLease(id: string, options: CallOptions): Promise<void> {
    try {
      await this.#ask({
        service: 'Lease',
        method: 'leaseRevoke',
        payload: { ID: id },
        operation: `revoke of lease ${id}`,
        changes: true,
        leaseId: id,
        options,
      });
    } catch (error) {
      // Gone already is what was wanted.
      if (!isBasaltError(error, 'STORE_LEASE_LOST')) throw error;
    }
  }

  #read<T>(operation: string, method: string, payload: object, options: CallOptions): Promise<T> {
    return this.#ask<T>({ service: 'KV', method, payload, operation, changes: false, options });
  }

  #change<T>(
    operation: string,
    method: string,
    payload: object,
    options: CallOptions,
    leaseId: string | null,
  ): Promise<T> {
    return this.#ask<T>({ service: 'KV', method, payload, operation, changes: true, leaseId, options });
  }

  #ask<T>(request: Omit<Request, 'timeoutMs' | 'signal'> & { options: CallOptions }): Promise<T> {
    const { options, ...rest } = request;
    return this.#connection.request<T>({
      ...rest,
      timeoutMs: options.timeoutMs ?? this.#timeoutMs,
      signal: options.signal,
    });
  }
}

function currentOf(txn: Txn, answer: ReceivedTxn): Map<string, Entry | null> {
  const current = new Map<string, Entry | null>();
  txn.conditions.forEach(({ key }, index) => {
    const kv = answer.responses[index]?.response_range?.kvs[0];
    current.set(key, kv === undefined ? null : toEntry(kv));
  });
  return current;
}
