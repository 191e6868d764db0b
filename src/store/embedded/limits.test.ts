// SPDX-License-Identifier: Apache-2.0
//
// Goal: nothing that a client sends makes the embedded store allocate, queue or hold without bound; each
// refusal has its exact status, and the server serves on.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RawClient } from '../testing/raw-client.js';
import type { StoreLimits } from './core.js';
import { type EmbeddedStore, startEmbeddedStore } from './server.js';

const key = Buffer.from('/k');
const kibibytes = (count: number): Buffer => Buffer.alloc(count * 1024, 1);

describe('embedded store limits', () => {
  let directory: string;
  let server: EmbeddedStore;
  let client: RawClient;

  const serve = async (limits: Partial<StoreLimits> = {}): Promise<void> => {
    server = await startEmbeddedStore({ directory, host: '127.0.0.1', port: 0, limits });
    client = new RawClient(server.endpoint);
  };
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'basalt-store-'));
  });
  afterEach(async () => {
    expect(await client.call('Maintenance', 'status', {}), 'serves on').toMatchObject({ code: 'OK' });
    client.close();
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it('refuses a change beyond 1.5 MiB, and a message that is larger still', async () => {
    await serve();
    expect(await client.call('KV', 'put', { key, value: kibibytes(1536) })).toEqual({
      code: 'INVALID_ARGUMENT',
      details: 'etcdserver: request is too large',
    });
    expect(await client.call('KV', 'put', { key, value: kibibytes(3000) })).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    expect(await client.call('KV', 'put', { key, value: kibibytes(1535) })).toMatchObject({ code: 'OK' });
  });

  it('refuses more than 128 operations in a txn, at any depth', async () => {
    await serve();
    const ops = (count: number): object[] => Array.from({ length: count }, () => ({ request_range: { key } }));
    const tooMany = { code: 'INVALID_ARGUMENT', details: 'etcdserver: too many operations in txn request' };
    expect(await client.call('KV', 'txn', { success: ops(128) })).toMatchObject({ code: 'OK' });
    expect(await client.call('KV', 'txn', { success: ops(129) })).toEqual(tooMany);
    expect(await client.call('KV', 'txn', { success: [{ request_txn: { failure: ops(128) } }] })).toEqual(tooMany);
  });

  it('answers bytes that are no protobuf with INTERNAL', async () => {
    await serve();
    const session = connect(server.endpoint);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/etcdserverpb.KV/Range',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const trailers = once(stream, 'trailers').then(([headers]) => headers as Record<string, string>);
    const heads = once(stream, 'response').then(([headers]) => headers as Record<string, string>);
    stream.end(Buffer.from([0, 0, 0, 0, 2, 0x0a, 0xff]));
    const status = (await heads)['grpc-status'] ?? (await trailers)['grpc-status'];
    expect(String(status)).toBe('13');
    trailers.catch(() => {});
    session.destroy();
  });

  it('refuses new data when full, and takes it again after deletion and compaction', async () => {
    await serve({ dataBytesMax: 64 * 1024 });
    expect(await client.call('KV', 'put', { key, value: kibibytes(100) })).toMatchObject({ code: 'OK' });
    const noSpace = { code: 'RESOURCE_EXHAUSTED', details: 'etcdserver: mvcc: database space exceeded' };
    expect(await client.call('KV', 'put', { key, value: key })).toEqual(noSpace);
    expect(await client.call('KV', 'txn', { success: [{ request_put: { key, value: key } }] })).toEqual(noSpace);
    expect(await client.call('Lease', 'leaseGrant', { TTL: 60 })).toEqual(noSpace);
    const deleted = await client.call('KV', 'deleteRange', { key });
    expect(deleted).toMatchObject({ code: 'OK', body: { deleted: '1', header: { revision: '3' } } });
    expect(await client.call('KV', 'compact', { revision: 3, physical: true })).toMatchObject({ code: 'OK' });
    expect(await client.call('KV', 'put', { key, value: key })).toMatchObject({ code: 'OK' });
  });

  it('refuses watchers and leases beyond their number', async () => {
    await serve({ watchersMax: 2, leasesMax: 1 });
    const watch = client.watch();
    for (let i = 0; i < 3; i++) watch.write({ create_request: { key } });
    const answers: unknown[] = [];
    for await (const answer of watch) {
      answers.push([answer['watch_id'], answer['created'], answer['canceled'], answer['cancel_reason']]);
      if (answers.length === 3) break;
    }
    expect(answers).toEqual([
      ['0', true, false, ''],
      ['1', true, false, ''],
      ['-1', true, true, 'etcdserver: too many requests'],
    ]);
    expect(await client.call('Lease', 'leaseGrant', { TTL: 60 })).toMatchObject({ code: 'OK' });
    expect(await client.call('Lease', 'leaseGrant', { TTL: 60 })).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });

  it('forgets old history by itself when nobody compacts, and keeps the newest', async () => {
    await serve({ historyRevisionsMax: 100 });
    for (let i = 0; i < 260; i += 20) {
      await Promise.all(Array.from({ length: 20 }, () => client.call('KV', 'put', { key, value: key })));
    }
    expect(await client.call('KV', 'range', { key, revision: 100 })).toMatchObject({ code: 'OUT_OF_RANGE' });
    expect(await client.call('KV', 'range', { key, revision: 230 })).toMatchObject({ code: 'OK' });
    expect(await client.call('KV', 'range', { key })).toMatchObject({ body: { kvs: [{ version: '260' }] } });
  });

  it('lets a watcher that does not read fall behind, then gives it everything in order', {
    timeout: 20_000,
  }, async () => {
    await serve();
    const watch = client.watch();
    watch.write({ create_request: { key, start_revision: 2 } });
    const rounds = 30;
    for (let i = 0; i < rounds; i++) {
      expect(await client.call('KV', 'put', { key, value: kibibytes(512) })).toMatchObject({ code: 'OK' });
    }
    const revisions: number[] = [];
    for await (const answer of watch) {
      for (const event of answer['events'] as { kv: { mod_revision: string } }[])
        revisions.push(Number(event.kv.mod_revision));
      if (revisions.length >= rounds) break;
    }
    expect(revisions).toEqual(Array.from({ length: rounds }, (_, index) => index + 2));
  });
});
