// SPDX-License-Identifier: Apache-2.0
//
// Between the store's types and etcd's messages. Pure.

import { Buffer } from 'node:buffer';
import type { Change, Condition, Entry, Txn, WatchEvent } from '../store.js';

/** A KeyValue as it is received: 64-bit numbers as decimal strings. */
export interface ReceivedKeyValue {
  key: Buffer;
  value: Buffer;
  create_revision: string;
  mod_revision: string;
  version: string;
  lease: string;
}

export interface ReceivedHeader {
  cluster_id: string;
  revision: string;
}

export interface ReceivedRange {
  header: ReceivedHeader;
  kvs: ReceivedKeyValue[];
  more: boolean;
}

export interface ReceivedTxn {
  header: ReceivedHeader;
  succeeded: boolean;
  responses: { response_range?: ReceivedRange }[];
}

export interface ReceivedWatch {
  header: ReceivedHeader;
  created: boolean;
  canceled: boolean;
  compact_revision: string;
  cancel_reason: string;
  events: { type: string; kv: ReceivedKeyValue }[];
}

/** A range end that means: every key not below the start. */
const endOfAll = Buffer.from([0]);

export function toRevision(text: string): number {
  return Number(text);
}

export function toEntry(kv: ReceivedKeyValue): Entry {
  return {
    key: kv.key.toString('utf8'),
    value: kv.value,
    createRevision: toRevision(kv.create_revision),
    modRevision: toRevision(kv.mod_revision),
    version: Number(kv.version),
    leaseId: kv.lease === '0' ? null : kv.lease,
  };
}

export function toWatchEvent(event: { type: string; kv: ReceivedKeyValue }): WatchEvent {
  if (event.type === 'Put') return { kind: 'put', entry: toEntry(event.kv) };
  return { kind: 'delete', key: event.kv.key.toString('utf8'), modRevision: toRevision(event.kv.mod_revision) };
}

/** The range of all keys that begin with `prefix`. */
export function prefixRange(prefix: string): { key: Buffer; range_end: Buffer } {
  const key = Buffer.from(prefix, 'utf8');
  if (key.length === 0) return { key: endOfAll, range_end: endOfAll };
  // UTF-8 never holds 0xff, so the last byte can always be raised.
  const end = Buffer.from(key);
  end[end.length - 1]! += 1;
  return { key, range_end: end };
}

/** The smallest key after `key`. */
export function keyAfter(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.from([0])]);
}

export function toTxnRequest(txn: Txn): object {
  return {
    compare: txn.conditions.map(({ key, modRevision }: Condition) => ({
      result: 'Equal',
      target: 'Mod',
      key: Buffer.from(key, 'utf8'),
      mod_revision: modRevision,
    })),
    success: txn.changes.map(toRequestOp),
    failure: txn.conditions.map(({ key }) => ({ request_range: { key: Buffer.from(key, 'utf8') } })),
  };
}

function toRequestOp(change: Change): object {
  const key = Buffer.from(change.key, 'utf8');
  if (change.kind === 'delete') return { request_delete_range: { key } };
  return { request_put: { key, value: Buffer.from(change.value), lease: change.leaseId ?? '0' } };
}
