// SPDX-License-Identifier: Apache-2.0
//
// What a failed gRPC call means to the caller. Pure.
//
// Invariant: a change counts as "not done" only when the server said so, or when the request never
// left. Every other failure of a change is an unknown outcome.

import { status } from '@grpc/grpc-js';
import { BasaltError } from '../../model/errors.js';

export interface CallFailure {
  readonly code: status;
  readonly details: string;
}

export interface CallContext {
  readonly endpoint: string;
  readonly operation: string;
  /** Whether the request changes something. */
  readonly changes: boolean;
  readonly leaseId?: string | null;
}

/** Said by a server that had taken the request: it may still go through. */
const undecidedTexts = [
  'etcdserver: request timed out',
  'etcdserver: server stopped',
  'etcdserver: leader changed',
  'etcdserver: request cancelled',
  'etcdserver: internal error',
];

/** HTTP/2 promises that a refused stream was not processed at all (RFC 9113, 8.7). */
const unprocessedText = 'Stream refused by server';

const transientCodes: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.INTERNAL,
  status.UNKNOWN,
  status.CANCELLED,
  status.ABORTED,
]);

/** The server's refusals that have a code of their own. */
const refusals: readonly { text: string; make: (context: CallContext, details: string) => BasaltError }[] = [
  {
    text: 'required revision has been compacted',
    make: () => new BasaltError('STORE_COMPACTED', { revision: null, compactRevision: null }),
  },
  {
    text: 'required revision is a future revision',
    make: () => new BasaltError('STORE_FUTURE_REVISION', { revision: null }),
  },
  {
    text: 'request is too large',
    make: ({ operation }, detail) => new BasaltError('STORE_TOO_LARGE', { what: operation, detail }),
  },
  {
    text: 'too many operations in txn request',
    make: ({ operation }, detail) => new BasaltError('STORE_TOO_LARGE', { what: operation, detail }),
  },
  {
    text: 'requested lease not found',
    make: ({ leaseId }) => new BasaltError('STORE_LEASE_LOST', { leaseId: leaseId ?? null }),
  },
  {
    text: 'database space exceeded',
    make: ({ endpoint }, detail) => new BasaltError('STORE_NO_SPACE', { endpoint, detail }),
  },
  {
    text: 'too many requests',
    make: ({ endpoint }, detail) => new BasaltError('STORE_UNREACHABLE', { endpoint, detail }),
  },
  ...['permission denied', 'authentication failed', 'invalid auth token', 'user name is empty'].map((text) => ({
    text,
    make: ({ endpoint, operation }: CallContext, detail: string) =>
      new BasaltError('STORE_DENIED', { endpoint, operation, detail }),
  })),
  { text: 'no leader', make: ({ endpoint }, detail) => new BasaltError('STORE_UNREACHABLE', { endpoint, detail }) },
];

export function toError(failure: CallFailure, context: CallContext): BasaltError {
  const { endpoint, operation, changes } = context;
  const detail = failure.details || status[failure.code] || String(failure.code);
  if (isRefusal(failure)) {
    const known = refusals.find(({ text }) => failure.details.includes(text));
    return known?.make(context, detail) ?? new BasaltError('STORE_REJECTED', { endpoint, operation, detail });
  }
  if (changes && !isUnprocessed(failure))
    return new BasaltError('STORE_UNKNOWN_OUTCOME', { operation, endpoint, detail });
  return new BasaltError('STORE_UNREACHABLE', { endpoint, detail });
}

/** True when asking again may help and asking twice does no harm. */
export function isTransient(failure: CallFailure, context: CallContext): boolean {
  if (isUnprocessed(failure)) return true;
  return !context.changes && !isRefusal(failure) && transientCodes.has(failure.code);
}

function isUnprocessed({ code, details }: CallFailure): boolean {
  return code === status.UNAVAILABLE && details === unprocessedText;
}

function isRefusal({ code, details }: CallFailure): boolean {
  if (details.startsWith('etcdserver: ')) return !undecidedTexts.some((text) => details.startsWith(text));
  return (
    code === status.UNIMPLEMENTED ||
    code === status.INVALID_ARGUMENT ||
    code === status.PERMISSION_DENIED ||
    code === status.UNAUTHENTICATED
  );
}
