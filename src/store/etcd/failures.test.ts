// SPDX-License-Identifier: Apache-2.0
import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { isTransient, toError } from './failures.js';

const change = { endpoint: 'http://127.0.0.1:1', operation: 'put k', changes: true };
const read = { ...change, operation: 'get k', changes: false };

describe('failures of calls', () => {
  const undecided: [status, string][] = [
    [status.UNAVAILABLE, 'Connection dropped'],
    [status.UNAVAILABLE, 'etcdserver: request timed out, possibly due to connection lost'],
    [status.UNAVAILABLE, 'etcdserver: leader changed'],
    [status.UNAVAILABLE, 'etcdserver: server stopped'],
    [status.DEADLINE_EXCEEDED, 'Deadline exceeded'],
    [status.CANCELLED, 'Cancelled on client'],
    [status.INTERNAL, 'Received RST_STREAM with code 2'],
    [status.UNKNOWN, ''],
    [status.RESOURCE_EXHAUSTED, 'Received message larger than max (9 vs. 5)'],
  ];
  it.each(undecided)('leave the outcome of a change unknown: %s %s', (code, details) => {
    expect(toError({ code, details }, change).code).toBe('STORE_UNKNOWN_OUTCOME');
    expect(isTransient({ code, details }, change)).toBe(false);
    expect(toError({ code, details }, read).code).toBe('STORE_UNREACHABLE');
  });

  const decided: [status, string, string][] = [
    [status.INVALID_ARGUMENT, 'etcdserver: request is too large', 'STORE_TOO_LARGE'],
    [status.INVALID_ARGUMENT, 'etcdserver: duplicate key given in txn request', 'STORE_REJECTED'],
    [status.NOT_FOUND, 'etcdserver: requested lease not found', 'STORE_LEASE_LOST'],
    [status.RESOURCE_EXHAUSTED, 'etcdserver: mvcc: database space exceeded', 'STORE_NO_SPACE'],
    [status.RESOURCE_EXHAUSTED, 'etcdserver: too many requests', 'STORE_UNREACHABLE'],
    [status.UNAVAILABLE, 'etcdserver: no leader', 'STORE_UNREACHABLE'],
    [status.PERMISSION_DENIED, 'etcdserver: permission denied', 'STORE_DENIED'],
    [status.INVALID_ARGUMENT, 'etcdserver: authentication failed, invalid user ID or password', 'STORE_DENIED'],
    [status.INVALID_ARGUMENT, 'etcdserver: user name is empty', 'STORE_DENIED'],
    [status.UNAUTHENTICATED, 'etcdserver: invalid auth token', 'STORE_DENIED'],
    [status.UNIMPLEMENTED, 'unknown service', 'STORE_REJECTED'],
    [status.UNAVAILABLE, 'Stream refused by server', 'STORE_UNREACHABLE'],
  ];
  it.each(decided)('say that a change was not done: %s %s is %s', (code, details, expected) => {
    expect(toError({ code, details }, change).code).toBe(expected);
  });

  it('let a change be sent again only when it was certainly not processed', () => {
    expect(isTransient({ code: status.UNAVAILABLE, details: 'Stream refused by server' }, change)).toBe(true);
    expect(isTransient({ code: status.UNAVAILABLE, details: 'Connection dropped' }, read)).toBe(true);
  });
});
