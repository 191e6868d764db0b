// SPDX-License-Identifier: Apache-2.0
//
// The store as the control plane sees it: keys with revisions, swaps, watches and leases. One client
// (etcd/) serves the embedded server and real etcd; memory/ is for unit tests. contract.ts holds what
// all of them must do.
//
// Invariants:  - every wait has a deadline (`timeoutMs`) and takes an AbortSignal
//              - a request that changes something is sent at most once; when it cannot be known whether
//                it happened, the answer says so and nothing is retried
//              - while the store is away calls fail with a code; nothing crashes, watches and leases go on
//                trying with back-off
//
// Codes thrown: STORE_UNREACHABLE (nothing was changed), STORE_UNKNOWN_OUTCOME (a change may have
// happened), STORE_CONFLICT, STORE_COMPACTED, STORE_FUTURE_REVISION, STORE_TOO_LARGE, STORE_LEASE_LOST,
// STORE_NO_SPACE, STORE_REJECTED, STORE_CLOSED, CANCELLED (by the signal, nothing was changed).

import { BasaltError } from '../model/errors.js';

export interface Entry {
  readonly key: string;
  readonly value: Buffer;
  readonly createRevision: number;
  readonly modRevision: number;
  /** 1 when created, one more with each put. */
  readonly version: number;
  readonly leaseId: string | null;
}

export interface CallOptions {
  /** @default the client's own, 5000 */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface PutOptions extends CallOptions {
  /** The key goes when this lease ends. Without it, an earlier lease of the key is taken off. */
  leaseId?: string | null;
}

/** Holds when the key's present modRevision is exactly this; 0 means that the key does not exist. */
export interface Condition {
  readonly key: string;
  readonly modRevision: number;
}

export type Change =
  | { readonly kind: 'put'; readonly key: string; readonly value: string | Buffer; readonly leaseId?: string | null }
  | { readonly kind: 'delete'; readonly key: string };

export interface Txn {
  /** All must hold. At most 128; none is a blind write. */
  readonly conditions: readonly Condition[];
  /** Applied at one revision, or not at all. At most 128, no key twice. */
  readonly changes: readonly Change[];
}

export type TxnResult =
  | { readonly outcome: 'committed'; readonly revision: number }
  /** Nothing was changed; `current` has the keys of all conditions as they were then. */
  | { readonly outcome: 'conflict'; readonly revision: number; readonly current: ReadonlyMap<string, Entry | null> }
  /** It may have been applied, or may still be. Read before deciding anything. */
  | { readonly outcome: 'unknown'; readonly error: BasaltError };

export type WatchEvent =
  | { readonly kind: 'put'; readonly entry: Entry }
  | { readonly kind: 'delete'; readonly key: string; readonly modRevision: number };

export type WatchBatch =
  /** All matching events of exactly one revision. */
  | { readonly kind: 'events'; readonly revision: number; readonly events: readonly WatchEvent[] }
  /** Events were lost for good: this is everything under the prefix now. It replaces what was known. */
  | {
      readonly kind: 'resync';
      readonly reason: 'compacted' | 'store replaced';
      readonly revision: number;
      readonly entries: readonly Entry[];
    };

export interface WatchOptions {
  signal?: AbortSignal;
  /** Told at each change: whether the store is being heard. */
  onConnected?: (connected: boolean) => void;
}

/** To be iterated once; begins with that. Ends, without an error, after close() or when the signal aborts. */
export interface Watch extends AsyncIterable<WatchBatch> {
  close(): void;
}

export interface LeaseOptions extends CallOptions {
  /** At least 2. The lease outlives its holder by at most this. */
  ttlSeconds: number;
  /**
   * Called once when the lease ended, or when it must be assumed to have ended because no renewal was
   * answered for a whole TTL, counted from sending. Not called after revoke() or release().
   */
  onLost?: (error: BasaltError) => void;
}

export interface Lease {
  readonly id: string;
  /** As granted; may be more than asked. */
  readonly ttlSeconds: number;
  readonly state: 'held' | 'lost' | 'ended';
  /** Ends the lease and deletes its keys now. @throws as every change */
  revoke(options?: CallOptions): Promise<void>;
  /** Stops renewing: the store ends the lease within its TTL. */
  release(): void;
}

export interface Store {
  get(key: string, options?: CallOptions): Promise<{ entry: Entry | null; revision: number }>;
  /** All keys under the prefix, by key, as of one revision; '' lists everything. */
  list(prefix: string, options?: CallOptions): Promise<{ entries: Entry[]; revision: number }>;
  put(key: string, value: string | Buffer, options?: PutOptions): Promise<{ revision: number }>;
  delete(key: string, options?: CallOptions): Promise<{ deleted: boolean; revision: number }>;
  txn(txn: Txn, options?: CallOptions): Promise<TxnResult>;
  /**
   * Everything that happens under the prefix at revisions >= `fromRevision`, in order, each revision
   * once. To follow a list: `watch(prefix, listed.revision + 1)`.
   */
  watch(prefix: string, fromRevision: number, options?: WatchOptions): Watch;
  grantLease(options: LeaseOptions): Promise<Lease>;
  /** Ends all watches, stops renewing leases (they run out), drops the connection. */
  close(): Promise<void>;
}

/** Puts `value` if the key's modRevision is still `modRevision` (0: if it does not exist). */
export function compareAndSwap(
  store: Store,
  swap: { key: string; modRevision: number; value: string | Buffer },
  options?: CallOptions,
): Promise<TxnResult> {
  const { key, modRevision, value } = swap;
  return store.txn({ conditions: [{ key, modRevision }], changes: [{ kind: 'put', key, value }] }, options);
}

/**
 * The revision of a committed txn.
 * @throws {BasaltError} STORE_CONFLICT or STORE_UNKNOWN_OUTCOME, as the result says.
 */
export function committedRevision(txn: Txn, result: TxnResult): number {
  switch (result.outcome) {
    case 'committed':
      return result.revision;
    case 'conflict':
      throw new BasaltError('STORE_CONFLICT', { key: conflictingKey(txn, result.current) });
    case 'unknown':
      throw result.error;
  }
}

function conflictingKey(txn: Txn, current: ReadonlyMap<string, Entry | null>): string {
  const moved = txn.conditions.find(({ key, modRevision }) => (current.get(key)?.modRevision ?? 0) !== modRevision);
  return moved?.key ?? txn.conditions[0]?.key ?? '';
}

export const txnOpsMax = 128;
export const requestBytesMax = 1536 * 1024;
/** Room for keys, conditions and framing beside the values of a request. */
const operationOverheadBytes = 64;

/** Refuses what no store would take, before anything is sent. @throws {BasaltError} */
export function checkTxn(txn: Txn): void {
  checkCount('conditions', txn.conditions.length);
  checkCount('changes', txn.changes.length);
  let bytes = 0;
  const keys = new Set<string>();
  for (const { key, modRevision } of txn.conditions) {
    checkKey(key);
    if (!Number.isSafeInteger(modRevision) || modRevision < 0)
      throw invalid('condition.modRevision', 'must be an integer >= 0');
    bytes += 2 * Buffer.byteLength(key) + 2 * operationOverheadBytes;
  }
  for (const change of txn.changes) {
    checkKey(change.key);
    if (keys.has(change.key)) throw invalid('txn.changes', `change ${JSON.stringify(change.key)} twice`);
    keys.add(change.key);
    bytes += Buffer.byteLength(change.key) + operationOverheadBytes;
    if (change.kind === 'put') bytes += Buffer.byteLength(change.value);
  }
  if (bytes > requestBytesMax) throw tooLarge('request', `${bytes} bytes, at most ${requestBytesMax}`);
}

export function checkKey(key: string): void {
  if (key === '') throw invalid('key', 'must not be empty');
}

export function checkLeaseTtl(ttlSeconds: number): void {
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 2) throw invalid('ttlSeconds', 'must be an integer >= 2');
}

function checkCount(field: string, count: number): void {
  if (count > txnOpsMax) throw tooLarge(`txn.${field}`, `${count}, at most ${txnOpsMax}`);
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}

function tooLarge(what: string, detail: string): BasaltError {
  return new BasaltError('STORE_TOO_LARGE', { what, detail });
}
