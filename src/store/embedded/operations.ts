// SPDX-License-Identifier: Apache-2.0
//
// Range, Put, DeleteRange and Txn carried out on the state in memory. Synchronous: one call is one
// atomic step. Durability is the caller's business (see core.ts).
//
// Invariants:  - everything that can be refused is refused before the first change
//              - the compares of a txn and of all txns nested in it see the state before the txn

import { toKey, toNumber, toRange } from './checks.js';
import type { Lessor } from './lessor.js';
import type {
  Compare,
  DeleteRangeRequest,
  KeyValue,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from './messages.js';
import type { Mvcc, Version, Writer } from './mvcc.js';
import { refusals } from './status.js';

interface Revised {
  revision: number;
}
export interface RangeAnswer extends Revised {
  kvs: KeyValue[];
  more: boolean;
  count: number;
}
export interface PutAnswer extends Revised {
  prev_kv: KeyValue | null;
}
export interface DeleteAnswer extends Revised {
  deleted: number;
  prev_kvs: KeyValue[];
}
export interface TxnAnswer extends Revised {
  succeeded: boolean;
  responses: object[];
}

const valueNone: Buffer = Buffer.alloc(0);
const sortFields = ['key', 'version', 'createRevision', 'modRevision', 'value'] as const;

export function toKeyValue(version: Version, keysOnly = false): KeyValue {
  return {
    key: Buffer.from(version.key, 'latin1'),
    create_revision: version.createRevision,
    mod_revision: version.modRevision,
    version: version.version,
    value: keysOnly || version.value === null ? valueNone : version.value,
    lease: version.lease,
  };
}

export class Operations {
  readonly #mvcc: Mvcc;
  readonly #lessor: Lessor;

  constructor(mvcc: Mvcc, lessor: Lessor) {
    this.#mvcc = mvcc;
    this.#lessor = lessor;
  }

  /** `writer` is given inside a txn: its changes are seen. */
  range(request: RangeRequest, writer: Writer | null = null): RangeAnswer {
    if (writer === null) this.#checkRevision(request);
    const asked = toNumber(request.revision);
    const newest = writer === null ? this.#mvcc.revision : writer.revision;
    const all = this.#mvcc.range(toRange(request.key, request.range_end), asked > 0 ? asked : newest);
    const revision = writer === null ? this.#mvcc.revision : writer.reportedRevision;
    if (request.count_only) return { revision, kvs: [], more: false, count: all.length };
    const limit = toNumber(request.limit);
    const found = sortVersions(firstVersions(filterVersions(all, request), request, limit), request);
    const shown = limit > 0 ? found.slice(0, limit) : found;
    return {
      revision,
      kvs: shown.map((version) => toKeyValue(version, request.keys_only)),
      more: shown.length < found.length,
      count: all.length,
    };
  }

  checkPut(request: PutRequest): void {
    this.#checkPutLease(request);
    this.#checkPutPresent(request);
  }

  put(request: PutRequest, writer: Writer): PutAnswer {
    const key = toKey(request.key);
    const present = this.#mvcc.at(key, writer.revision);
    const value = request.ignore_value ? (present?.value ?? valueNone) : request.value;
    const lease = request.ignore_lease ? (present?.lease ?? '0') : String(request.lease);
    const { previous, made } = writer.put(key, value, lease);
    this.#lessor.move(key, previous?.lease ?? '0', made.lease);
    const prevKv = request.prev_kv && previous !== null ? toKeyValue(previous) : null;
    return { revision: writer.revision, prev_kv: prevKv };
  }

  delete(request: DeleteRangeRequest, writer: Writer): DeleteAnswer {
    const victims = writer.delete(toRange(request.key, request.range_end));
    for (const victim of victims) this.#lessor.move(victim.key, victim.lease, '0');
    return {
      revision: writer.reportedRevision,
      deleted: victims.length,
      prev_kvs: request.prev_kv ? victims.map((version) => toKeyValue(version)) : [],
    };
  }

  /** Decides all branches, then checks what was chosen: puts first, then reads. The plan is for `txn`. */
  planTxn(request: TxnRequest): TxnPlan {
    const plan = this.#decide(request);
    const chosen = [...chosenOps(plan)];
    for (const op of chosen) if (op.request === 'request_put') this.#checkTxnPut(op.request_put);
    for (const op of chosen) if (op.request === 'request_range') this.#checkTxnRevision(op.request_range);
    return { ...plan, writes: chosen.some(isWrite) };
  }

  txn(plan: TxnPlan, writer: Writer): TxnAnswer {
    const nested = plan.nested[Symbol.iterator]();
    const responses = plan.ops.map((op) => {
      switch (op.request) {
        case 'request_range':
          return { response_range: withHeader(this.range(op.request_range, writer)) };
        case 'request_put':
          return { response_put: withHeader(this.put(op.request_put, writer)) };
        case 'request_delete_range':
          return { response_delete_range: withHeader(this.delete(op.request_delete_range, writer)) };
        case 'request_txn':
          return { response_txn: { ...this.txn(nested.next().value as TxnPlan, writer), header: {} } };
        default:
          throw refusals.keyNotFound();
      }
    });
    return { revision: writer.reportedRevision, succeeded: plan.succeeded, responses };
  }

  /** The same as checkPut; which refusal comes first is as etcd has it. */
  #checkTxnPut(request: PutRequest): void {
    this.#checkPutPresent(request);
    this.#checkPutLease(request);
  }

  #checkPutLease(request: PutRequest): void {
    if (toNumber(request.lease) !== 0 && !this.#lessor.has(request.lease)) throw refusals.leaseNotFound();
  }

  #checkPutPresent(request: PutRequest): void {
    if (!request.ignore_value && !request.ignore_lease) return;
    if (this.#mvcc.at(toKey(request.key), this.#mvcc.revision) === null) throw refusals.keyNotFound();
  }

  #decide(request: TxnRequest): TxnPlan {
    const succeeded = request.compare.every((compare) => this.#holds(compare));
    const ops = succeeded ? request.success : request.failure;
    const nested = ops.flatMap((op) => (op.request === 'request_txn' ? [this.#decide(op.request_txn)] : []));
    return { succeeded, ops, nested, writes: false };
  }

  #checkRevision(request: RangeRequest): void {
    const revision = toNumber(request.revision);
    if (revision > this.#mvcc.revision) throw refusals.futureRevision();
    if (revision > 0 && revision < this.#mvcc.compactRevision) throw refusals.compacted();
  }

  /** Within a txn a negative revision does not stand for the present one. */
  #checkTxnRevision(request: RangeRequest): void {
    const revision = toNumber(request.revision);
    if (revision < 0 && revision < this.#mvcc.compactRevision) throw refusals.compacted();
    this.#checkRevision(request);
  }

  #holds(compare: Compare): boolean {
    const found = this.#mvcc.range(toRange(compare.key, compare.range_end), this.#mvcc.revision);
    if (found.length > 0) return found.every((version) => compareHolds(compare, version));
    // A missing key has no value to compare with, but all its numbers are 0.
    return compare.target === 3 ? false : compareHolds(compare, null);
  }
}

/** What a txn will do, branches chosen. */
export interface TxnPlan {
  readonly succeeded: boolean;
  readonly ops: readonly RequestOp[];
  readonly nested: readonly TxnPlan[];
  readonly writes: boolean;
}

/** The operations that will be carried out, nested ones included, in order. */
function* chosenOps(plan: TxnPlan): Generator<RequestOp> {
  const nested = plan.nested[Symbol.iterator]();
  for (const op of plan.ops) {
    if (op.request === 'request_txn') yield* chosenOps(nested.next().value as TxnPlan);
    else yield op;
  }
}

function isWrite(op: RequestOp): boolean {
  return op.request === 'request_put' || op.request === 'request_delete_range';
}

function withHeader<T extends Revised>(answer: T): object {
  const { revision, ...rest } = answer;
  return { ...rest, header: { revision } };
}

function compareHolds(compare: Compare, version: Version | null): boolean {
  const order = compareOrder(compare, version);
  switch (compare.result) {
    case 0:
      return order === 0;
    case 1:
      return order > 0;
    case 2:
      return order < 0;
    default:
      return order !== 0;
  }
}

function compareOrder(compare: Compare, version: Version | null): number {
  switch (compare.target) {
    case 0:
      return (version?.version ?? 0) - toNumber(compare.version);
    case 1:
      return (version?.createRevision ?? 0) - toNumber(compare.create_revision);
    case 2:
      return (version?.modRevision ?? 0) - toNumber(compare.mod_revision);
    case 3:
      return Buffer.compare(version?.value ?? valueNone, compare.value ?? valueNone);
    default:
      return compareBig(BigInt(version?.lease ?? '0'), BigInt(compare.lease ?? '0'));
  }
}

function compareBig(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function filterVersions(versions: Version[], request: RangeRequest): Version[] {
  const bounds = [
    { max: toNumber(request.max_mod_revision), min: toNumber(request.min_mod_revision), field: 'modRevision' },
    { max: toNumber(request.max_create_revision), min: toNumber(request.min_create_revision), field: 'createRevision' },
  ] as const;
  return versions.filter((version) =>
    bounds.every(({ max, min, field }) => (max === 0 || version[field] <= max) && (min === 0 || version[field] >= min)),
  );
}

/** As in etcd: without a named order, only the first by key, one more than asked for, are sorted. */
function firstVersions(versions: Version[], request: RangeRequest, limit: number): Version[] {
  const bounds = [
    request.min_mod_revision,
    request.max_mod_revision,
    request.min_create_revision,
    request.max_create_revision,
  ];
  const all = limit <= 0 || request.sort_order !== 0 || bounds.some((bound) => toNumber(bound) !== 0);
  return all ? versions : versions.slice(0, limit + 1);
}

/** Any target other than the key sorts upwards unless told otherwise. */
function sortVersions(versions: Version[], request: RangeRequest): Version[] {
  const field = sortFields[request.sort_target] ?? 'key';
  if (field === 'key') return request.sort_order === 2 ? versions.reverse() : versions;
  const sign = request.sort_order === 2 ? -1 : 1;
  return versions.sort((a, b) => sign * compareField(a, b, field));
}

function compareField(a: Version, b: Version, field: 'version' | 'createRevision' | 'modRevision' | 'value'): number {
  if (field === 'value') return Buffer.compare(a.value ?? valueNone, b.value ?? valueNone);
  return a[field] - b[field];
}
