// SPDX-License-Identifier: Apache-2.0
//
// Goal: a store directory is opened only by a version that understands it, and otherwise not touched.
// testdata/v1 was written by format version 1 and must open for ever.

import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { failureOf } from '../contract.js';
import { openEtcdStore } from '../etcd/etcd-store.js';
import { RawClient } from '../testing/raw-client.js';
import { type EmbeddedStore, startEmbeddedStore } from './server.js';

const golden = fileURLToPath(new URL('./testdata/v1', import.meta.url));

describe('store directory', () => {
  let parent: string;
  let directory: string;

  const start = (): Promise<EmbeddedStore> => startEmbeddedStore({ directory, host: '127.0.0.1', port: 0 });
  const unpackGolden = (): void => {
    mkdirSync(join(directory, 'data'), { recursive: true });
    cpSync(join(golden, 'FORMAT'), join(directory, 'FORMAT'));
    writeFileSync(join(directory, 'data', 'data.mdb'), gunzipSync(readFileSync(join(golden, 'data.mdb.gz'))));
  };
  const editFormat = (change: object): void => {
    const path = join(directory, 'FORMAT');
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }));
  };

  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'basalt-store-'));
    directory = join(parent, 'made', 'when', 'missing');
  });
  afterEach(() => rmSync(parent, { recursive: true, force: true }));

  it('of format version 1 opens with all it held: keys, history, leases and the compacted revision', async () => {
    unpackGolden();
    const server = await start();
    const store = openEtcdStore({ endpoints: [server.endpoint] });
    const client = new RawClient(server.endpoint);
    const { entries, revision } = await store.list('');
    expect(revision).toBe(7);
    expect(
      entries.map((e) => [e.key, e.value.toString('latin1'), e.createRevision, e.modRevision, e.version, e.leaseId]),
    ).toEqual([
      ['/a', 'three', 2, 7, 3, null],
      ['/b', '\x00\xff', 7, 7, 1, null],
      ['/leased', 'y', 6, 6, 1, '77'],
    ]);
    expect(await client.call('KV', 'range', { key: Buffer.from('/a'), revision: 6 })).toMatchObject({
      body: { kvs: [{ value: Buffer.from('two') }] },
    });
    expect(await client.call('KV', 'range', { key: Buffer.from('/a'), revision: 3 })).toMatchObject({
      code: 'OUT_OF_RANGE',
      details: 'etcdserver: mvcc: required revision has been compacted',
    });
    expect(await client.call('Lease', 'leaseTimeToLive', { ID: '77', keys: true })).toMatchObject({
      body: { grantedTTL: '3600', keys: [Buffer.from('/leased')] },
    });
    expect(await client.call('Maintenance', 'status', {})).toMatchObject({
      body: { header: { cluster_id: '4774451407313060418' } },
    });
    await store.put('/new', 'x');
    client.close();
    await store.close();
    await server.close();
  });

  const foreign: [string, () => void][] = [
    ['with an unknown version', () => editFormat({ version: 2 })],
    ['with an unknown incompatible feature', () => editFormat({ incompatible: 4 })],
    ['with another magic', () => editFormat({ magic: 'other-store' })],
    ['with a feature word that is no number', () => editFormat({ compatible: 'x' })],
    ['with a FORMAT that is no JSON', () => writeFileSync(join(directory, 'FORMAT'), '{"magic":')],
    ['that holds something else', () => rmSync(join(directory, 'FORMAT'))],
  ];
  it.each(foreign)('%s is refused and left as it was', async (_, spoil) => {
    unpackGolden();
    spoil();
    const before = contents(directory);
    expect((await failureOf(start())).code).toBe('STORE_FORMAT_UNKNOWN');
    expect(contents(directory)).toEqual(before);
  });

  it('with an unknown compatible feature opens, and keeps the feature', async () => {
    unpackGolden();
    editFormat({ compatible: 8 });
    await (await start()).close();
    expect(JSON.parse(readFileSync(join(directory, 'FORMAT'), 'utf8'))).toMatchObject({ compatible: 8 });
  });

  const damages: [string, () => void][] = [
    ['whose data file is gone', () => rmSync(join(directory, 'data'), { recursive: true })],
    ['whose data belongs to another store', () => editFormat({ storeId: 'another' })],
    ['with a rotten record', () => rot(join(directory, 'data', 'data.mdb'), 'three')],
    ['whose data file is empty', () => truncateSync(join(directory, 'data', 'data.mdb'), 0)],
  ];
  it.each(damages)('%s is refused as damaged', async (_, damage) => {
    unpackGolden();
    damage();
    expect((await failureOf(start())).code).toBe('STORE_DAMAGED');
  });

  it('whose making was cut short is made anew', async () => {
    unpackGolden();
    editFormat({ state: 'creating' });
    const server = await start();
    const store = openEtcdStore({ endpoints: [server.endpoint] });
    expect((await store.list('')).entries).toEqual([]);
    await store.close();
    await server.close();
    expect(JSON.parse(readFileSync(join(directory, 'FORMAT'), 'utf8'))).toMatchObject({ state: 'ready' });
  });

  it('is served on loopback only', async () => {
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'localhost', 'example.org', '']) {
      const failure = await failureOf(startEmbeddedStore({ directory, host, port: 0 }));
      expect(failure.code).toBe('STORE_ADDRESS_REFUSED');
    }
    expect(readdirSync(parent)).toEqual([]);
  });

  it('is free again when it could not be served because the port was taken', async () => {
    const server = await start();
    const other = join(parent, 'other');
    const port = Number(new URL(server.endpoint).port);
    expect((await failureOf(startEmbeddedStore({ directory: other, host: '127.0.0.1', port }))).code).toBe(
      'STORE_LISTEN_FAILED',
    );
    await (await startEmbeddedStore({ directory: other, host: '127.0.0.1', port: 0 })).close();
    await server.close();
  });
});

/** Every file with its bytes and its times. */
function contents(directory: string): unknown[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
  return names.map((name) => {
    const path = join(directory, name);
    const stat = statSync(path);
    return [name, stat.mtimeMs, stat.isFile() ? readFileSync(path).toString('base64') : null];
  });
}

/** Changes one bit where `text` stands. */
function rot(path: string, text: string): void {
  const bytes = readFileSync(path);
  const at = bytes.lastIndexOf(text);
  expect(at).toBeGreaterThan(0);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
}
