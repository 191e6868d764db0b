// SPDX-License-Identifier: Apache-2.0
// Requests repeated under one key, over whole servers on one store: what happens, and what is answered.

import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { faultyStore, type TxnFault } from '../agents/testing/faulty-store.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { IdempotentRequests } from './idempotency.js';
import { buildApp } from './server.js';

const MiB = 2 ** 20;

describe('a request with an idempotency key', () => {
  let bed: ClusterBed;
  let first: FastifyInstance;
  let second: FastifyInstance;
  let fault: (isClaim: boolean) => TxnFault = () => 'pass';

  beforeAll(async () => {
    bed = new ClusterBed();
    await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
    await bed.startController('c1');
    const options = { ...bed.api, listen: '127.0.0.1:0', log: quietLog };
    const store = faultyStore(bed.connect(), (txn) =>
      fault(txn.changes.some((change) => change.key.startsWith(keys.idempotencies))),
    );
    first = buildApp({ ...options, store });
    second = buildApp({ ...options, store: bed.connect() });
  });
  afterAll(async () => {
    await first.close();
    await second.close();
    await bed.close();
  });

  const post = async (app: FastifyInstance, at: { key?: string; url?: string; body: object }) => {
    const key = at.key === undefined ? {} : { 'idempotency-key': at.key };
    const headers = { host: '127.0.0.1', 'content-type': 'application/json', ...key };
    const url = at.url ?? '/v1/volumes';
    const response = await app.inject({ method: 'POST', url, headers, payload: JSON.stringify(at.body) });
    return { status: response.statusCode, body: response.json() };
  };

  it('has the answer of the first time, from whichever server, also when things have changed since', async () => {
    const body = { name: 'v1', sizeBytes: 4 * MiB, legs: 1 };
    const answer = await post(first, { key: 'k1', body });
    expect(answer.status).toBe(201);
    await bed.served('v1', 'c1');
    expect(await post(second, { key: 'k1', body })).toEqual(answer);
    expect(await post(second, { body })).toMatchObject({ status: 200 });
  });

  it('is a conflict when the key was used for another one, and nothing is done', async () => {
    const body = { name: 'other', sizeBytes: 4 * MiB, legs: 1 };
    const refusal = { status: 409, body: { code: 'IDEMPOTENCY_CONFLICT' } };
    expect(await post(second, { key: 'k1', body })).toMatchObject(refusal);
    const elsewhere = { key: 'k1', url: '/v1/pools', body: { name: 'v1', sizeBytes: 4 * MiB, legs: 1 } };
    expect(await post(first, elsewhere)).toMatchObject(refusal);
    expect(bed.server.list(keys.volumeName('other'))).toHaveLength(0);
  });

  it('can be asked for again after it was refused', async () => {
    const body = { name: 'big', sizeBytes: 2 ** 49, legs: 1 };
    expect(await post(first, { key: 'k2', body })).toMatchObject({ status: 422 });
    const smaller = { ...body, sizeBytes: 4 * MiB };
    expect(await post(first, { key: 'k2', body: smaller })).toMatchObject({ status: 201 });
  });

  it('happens once when its answer was lost, and when many copies of it come at once', async () => {
    fault = (isClaim) => (isClaim ? 'pass' : 'lost-after');
    const body = { name: 'lost', sizeBytes: 4 * MiB, legs: 1 };
    expect(await post(first, { key: 'k3', body })).toMatchObject({ status: 503 });
    fault = () => 'pass';
    const copies = await Promise.all(Array.from({ length: 8 }, () => post(first, { key: 'k3', body })));
    expect(new Set(copies.map((copy) => JSON.stringify([copy.status, copy.body.id]))).size).toBe(1);
    expect(await bed.view('lost')).toMatchObject({ id: copies[0]?.body.id });
  });

  it('keeps the answer that one server gave when another one was refused later', async () => {
    const [refused, answered] = [new IdempotentRequests(bed.connect()), new IdempotentRequests(bed.connect())];
    const request = { key: 'k4', method: 'POST', url: '/v1/volumes', body: {} };
    const answer = { status: 201, body: { id: 'x' } };
    const late = refused.run(request, async () => {
      expect(await answered.run(request, async () => answer)).toEqual(answer);
      throw new BasaltError('NOT_FOUND', { kind: 'volume', name: 'x' });
    });
    await expect(late).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const again = refused.run(request, async () => ({ status: 200, body: {} }));
    expect(await again).toEqual(answer);
  });

  it.each(['', 'x'.repeat(256)])('is refused when the key is none', async (key) => {
    const body = { name: 'v9', sizeBytes: 4 * MiB };
    expect(await post(first, { key, body })).toMatchObject({ status: 400, body: { code: 'INVALID_ARGUMENT' } });
  });
});
