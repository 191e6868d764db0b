// SPDX-License-Identifier: Apache-2.0
//
// What makes a request acceptable before anything is looked up or changed. Pure.

import type { Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest } from './messages.js';
import { type KeyRange, rangeHolds } from './mvcc.js';
import { refusals } from './status.js';

/** A received 64-bit number. Beyond 2^53 it keeps its order but not its last digits. */
export function toNumber(value: string | number | undefined): number {
  return Number(value ?? 0);
}

export function toKey(bytes: Buffer): string {
  return bytes.toString('latin1');
}

/** A range end of one zero byte means: everything from the key on. */
export function toRange(key: Buffer, end: Buffer): KeyRange {
  if (end.length === 0) return { key: toKey(key), end: null };
  return { key: toKey(key), end: end.length === 1 && end[0] === 0 ? '' : toKey(end) };
}

export function checkRange(request: RangeRequest): void {
  if (request.key.length === 0) throw refusals.emptyKey();
  const orders = [0, 1, 2];
  const targets = [0, 1, 2, 3, 4];
  if (!orders.includes(request.sort_order) || !targets.includes(request.sort_target)) throw refusals.invalidSort();
}

export function checkPut(request: PutRequest): void {
  if (request.key.length === 0) throw refusals.emptyKey();
  if (request.ignore_value && request.value.length !== 0) throw refusals.valueProvided();
  if (request.ignore_lease && toNumber(request.lease) !== 0) throw refusals.leaseProvided();
}

export function checkDelete(request: DeleteRangeRequest): void {
  if (request.key.length === 0) throw refusals.emptyKey();
}

/** `opsMax` bounds the operations of one list and, with nesting, the sum down any path. */
export function checkTxn(request: TxnRequest, opsMax: number): void {
  checkTxnShape(request, opsMax);
  checkIntervals(request.success);
  checkIntervals(request.failure);
}

function checkTxnShape(request: TxnRequest, opsMax: number): void {
  const ops = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (ops > opsMax) throw refusals.tooManyOps();
  if (request.compare.some((compare: Compare) => compare.key.length === 0)) throw refusals.emptyKey();
  for (const op of [...request.success, ...request.failure]) checkOp(op, opsMax - ops);
}

function checkOp(op: RequestOp, opsMax: number): void {
  switch (op.request) {
    case 'request_range':
      return checkRange(op.request_range);
    case 'request_put':
      return checkPut(op.request_put);
    case 'request_delete_range':
      return checkDelete(op.request_delete_range);
    case 'request_txn':
      return checkTxnShape(op.request_txn, opsMax);
    default:
      throw refusals.keyNotFound();
  }
}

interface Touched {
  puts: Set<string>;
  deletes: KeyRange[];
}

/** Refuses a list in which a key could be changed twice. Both branches of a nested txn may put it. */
function checkIntervals(ops: readonly RequestOp[]): Touched {
  const deletes = ops.flatMap((op) =>
    op.request === 'request_delete_range'
      ? [toRange(op.request_delete_range.key, op.request_delete_range.range_end)]
      : [],
  );
  const puts = new Set<string>();
  const addPut = (key: string, allowed: ReadonlySet<string>): void => {
    if (puts.has(key) && !allowed.has(key)) throw refusals.duplicateKey();
    if (deletes.some((range) => rangeHolds(range, key))) throw refusals.duplicateKey();
    puts.add(key);
  };
  const none: ReadonlySet<string> = new Set();
  for (const op of ops) {
    if (op.request !== 'request_txn') continue;
    const success = checkIntervals(op.request_txn.success);
    const failure = checkIntervals(op.request_txn.failure);
    for (const key of success.puts) addPut(key, none);
    for (const key of failure.puts) addPut(key, success.puts);
    deletes.push(...success.deletes, ...failure.deletes);
  }
  for (const op of ops) if (op.request === 'request_put') addPut(toKey(op.request_put.key), none);
  return { puts, deletes };
}
