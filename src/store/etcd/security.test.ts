// SPDX-License-Identifier: Apache-2.0
// Debian's etcd with TLS, certificates of clients, and users: who gets in, who may do what, and that a token that the
// store does not take any more is replaced unnoticed.

import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { compileConfig } from '../../model/config.js';
import { keys } from '../../model/keys.js';
import { mayWrite, roleCommands } from '../../model/store-roles.js';
import type { Store } from '../store.js';
import { type Certificate, TestAuthority } from '../testing/certificates.js';
import { EtcdProcess, requireProgram } from '../testing/etcd-process.js';
import { readStoreFiles, type StoreFiles } from './credentials.js';
import { openEtcdStore } from './etcd-store.js';

const run = promisify(execFile);
const passwords = {
  root: 'root-secret',
  writer: 'writer-secret',
  reader: 'reader-secret',
  node: 'node-secret',
  api: 'api-secret',
};

let folder: string;
let authority: TestAuthority;
let stranger: TestAuthority;
let etcd: EtcdProcess;
/** Names of their own; only `basalt` is a user's. */
let certificates: { basalt: Certificate; other: Certificate; stranger: Certificate };
const stores: Store[] = [];

beforeAll(async () => {
  requireProgram('etcdctl', 'etcd-client');
  folder = mkdtempSync(join(tmpdir(), 'basalt-etcd-tls-'));
  authority = await TestAuthority.create(folder, 'authority');
  stranger = await TestAuthority.create(folder, 'stranger');
  const server = await authority.sign('server');
  certificates = {
    basalt: await authority.sign('basalt'),
    other: await authority.sign('other'),
    stranger: await stranger.sign('basalt'),
  };
  etcd = await EtcdProcess.launch({ ca: authority.ca, server, client: certificates.other });
  for (const [name, password] of Object.entries(passwords)) {
    await etcdctl('user', 'add', `${name}:${password}`);
    writeFileSync(join(folder, name), `${password}\n`, { mode: 0o600 });
  }
  await etcdctl('user', 'add', 'basalt', '--no-password');
  await etcdctl('role', 'add', 'basalt');
  await etcdctl('role', 'grant-permission', 'basalt', 'readwrite', '/basalt/', '--prefix=true');
  await etcdctl('role', 'add', 'look');
  await etcdctl('role', 'grant-permission', 'look', 'read', '/basalt/', '--prefix=true');
  for (const user of ['basalt', 'writer']) await etcdctl('user', 'grant-role', user, 'basalt');
  await etcdctl('user', 'grant-role', 'reader', 'look');
  // As an operator pastes it.
  for (const line of roleCommands()) await etcdctl(...line.split(' ').slice(1));
  for (const role of ['node', 'api']) await etcdctl('user', 'grant-role', role, `basalt-${role}`);
  await etcdctl('user', 'grant-role', 'root', 'root');
  await etcdctl('auth', 'enable');
}, 120_000);

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
});

afterAll(async () => {
  await etcd?.close();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

async function etcdctl(...args: string[]): Promise<void> {
  const { cert, key } = certificates.other;
  const tls = [`--endpoints=${etcd.endpoint}`, `--cacert=${authority.ca}`, `--cert=${cert}`, `--key=${key}`];
  await run('etcdctl', [...tls, '--command-timeout=60s', ...args], { env: { ...process.env, ETCDCTL_API: '3' } });
}

async function connect(files: Partial<StoreFiles>, endpoint = etcd.endpoint): Promise<Store> {
  const all = { ca: null, cert: null, key: null, username: null, passwordFile: null, ...files };
  const store = openEtcdStore({ endpoints: [endpoint], timeoutMs: 30_000, ...(await readStoreFiles(all)) });
  stores.push(store);
  return store;
}

const byCertificate = (certificate: Certificate): Partial<StoreFiles> => ({ ca: authority.ca, ...certificate });
const asUser = (username: string, passwordFile = join(folder, username)): Partial<StoreFiles> => ({
  ...byCertificate(certificates.other),
  username,
  passwordFile,
});

describe('a store with TLS and users', { timeout: 120_000 }, () => {
  it('knows a user by the name on the certificate, and lets it do what it may', async () => {
    const store = await connect(byCertificate(certificates.basalt));
    await store.put('/basalt/a', '1');
    expect((await store.get('/basalt/a')).entry?.value.toString()).toBe('1');
    const lease = await store.grantLease({ ttlSeconds: 30 });
    await store.put('/basalt/leased', '1', { leaseId: lease.id });
    await lease.revoke();
    const watch = store.watch('/basalt/', 1);
    for await (const batch of watch) {
      expect(batch).toBeDefined();
      break;
    }
    const txn = { conditions: [], changes: [{ kind: 'put' as const, key: '/other', value: '1' }] };
    await expect(store.txn(txn)).rejects.toMatchObject({ code: 'STORE_DENIED' });
    await expect(store.put('/other', '1')).rejects.toMatchObject({ code: 'STORE_DENIED' });
    await expect(store.get('/other')).rejects.toMatchObject({ code: 'STORE_DENIED' });
  });

  it('knows users by name and password; one who only reads writes nothing', async () => {
    const writer = await connect(asUser('writer'));
    await writer.put('/basalt/b', '2');
    const reader = await connect(asUser('reader'));
    expect((await reader.get('/basalt/b')).entry?.value.toString()).toBe('2');
    await expect(reader.put('/basalt/b', '3')).rejects.toMatchObject({ code: 'STORE_DENIED' });
    expect((await writer.list('/basalt/b')).entries.map((entry) => entry.value.toString())).toEqual(['2']);
  });

  it('with a role for each component: a node reads everything and writes nothing that says who may come in', async () => {
    const [node, api] = [await connect(asUser('node')), await connect(asUser('api'))];
    const own = [keys.cluster, keys.placement, keys.volume('v'), keys.leadership('v'), keys.job('j'), keys.disk('d')];
    for (const key of own) {
      expect(mayWrite('node', key)).toBe(true);
      await node.put(key, '1');
      await node.delete(key);
    }
    const lease = await node.grantLease({ ttlSeconds: 30 });
    const live = { kind: 'put' as const, key: keys.live('n1'), value: '1', leaseId: lease.id };
    expect(await node.txn({ conditions: [{ key: live.key, modRevision: 0 }], changes: [live] })).toMatchObject({
      outcome: 'committed',
    });
    await lease.revoke();
    const others = [keys.token('root'), keys.host('nqn.x'), keys.clusterKey, keys.idempotency('d'), keys.pool('p')];
    for (const key of [...others, keys.volumeName('v'), keys.poolName('p'), '/basalt/v2/volumes/v', '/other']) {
      expect(mayWrite('node', key)).toBe(false);
      await expect(node.put(key, '1'), key).rejects.toMatchObject({ code: 'STORE_DENIED' });
      await expect(node.delete(key), key).rejects.toMatchObject({ code: 'STORE_DENIED' });
      // Nor beside something that it may.
      const beside = { kind: 'put' as const, key: keys.volume('w'), value: '1' };
      const both = { conditions: [], changes: [beside, { kind: 'put' as const, key, value: '1' }] };
      await expect(node.txn(both), key).rejects.toMatchObject({ code: 'STORE_DENIED' });
    }
    for (const key of others) {
      await api.put(key, 'by the API');
      expect((await node.get(key)).entry?.value.toString()).toBe('by the API');
    }
    expect((await node.list(keys.root)).entries.map((entry) => entry.key).sort()).toEqual([...others].sort());
    for (const key of others) await api.delete(key);
    await expect(api.put('/other', '1')).rejects.toMatchObject({ code: 'STORE_DENIED' });
  });

  it('lets nobody in with a wrong password, a name that is no user, or neither; no error shows a password', async () => {
    const wrong = join(folder, 'wrong');
    writeFileSync(wrong, 'hunter2', { mode: 0o600 });
    for (const files of [asUser('writer', wrong), asUser('nobody', wrong), byCertificate(certificates.other)]) {
      const error: Error = await (await connect(files)).put('/basalt/c', '1').then(
        () => new Error('it was taken'),
        (refusal: Error) => refusal,
      );
      expect(error).toMatchObject({ code: 'STORE_DENIED' });
      expect(`${error.message} ${error.stack}`).not.toMatch(/hunter2/);
    }
  });

  it('is reached with the right certificates only', async () => {
    const wrong: [string, Partial<StoreFiles>, string][] = [
      ['no certificate', { ca: authority.ca }, etcd.endpoint],
      ["a stranger's certificate", byCertificate(certificates.stranger), etcd.endpoint],
      ['a store signed by a stranger', { ca: stranger.ca, ...certificates.basalt }, etcd.endpoint],
      ['no TLS', {}, etcd.endpoint.replace('https', 'http')],
    ];
    for (const [what, files, endpoint] of wrong) {
      const store = await connect(files, endpoint);
      const put = store.put('/basalt/d', '1', { timeoutMs: 2_000 });
      await expect(put, what).rejects.toMatchObject({ code: expect.stringMatching(/^STORE_/) });
    }
    const right = await connect(byCertificate(certificates.basalt));
    expect((await right.get('/basalt/d')).entry).toBeNull();
  });

  it('is asked for another token when it does not take one any more, for calls and watches alike', async () => {
    const store = await connect(asUser('writer'));
    const { revision } = await store.put('/basalt/e', '1');
    const seen: string[] = [];
    // It asks for nothing else, so nothing else brings it another token.
    const watcher = await connect(asUser('writer'));
    const following = (async () => {
      for await (const batch of watcher.watch('/basalt/e', revision + 1)) {
        if (batch.kind === 'events') for (const { kind } of batch.events) seen.push(kind);
        if (seen.length >= 2) return;
      }
    })();
    const again = async (): Promise<void> => {
      // The same password once more: every token of the user is void.
      await run(
        'sh',
        [
          '-c',
          `printf '%s\n%s\n' "$0" "$0" | etcdctl "$@"`,
          passwords.writer,
          ...rootArgs(),
          'user',
          'passwd',
          'writer',
        ],
        {
          env: { ...process.env, ETCDCTL_API: '3' },
        },
      );
    };
    await store.put('/basalt/e', '2');
    await expect.poll(() => seen.length, { timeout: 60_000 }).toBe(1);
    await again();
    await store.put('/basalt/f', '2');
    await again();
    const { revision: read } = await store.get('/basalt/e');
    expect(read).toBeGreaterThan(revision);
    await again();
    await etcd.kill();
    await etcd.start();
    // The watch comes back with the old token, too.
    await store.put('/basalt/e', '3', { timeoutMs: 60_000 });
    await following;
    expect(seen).toEqual(['put', 'put']);
  });

  it('is not asked with a key or password that others can read', async () => {
    const open = join(folder, 'open');
    writeFileSync(open, passwords.writer);
    chmodSync(open, 0o644);
    await expect(connect(asUser('writer', open))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/^store\.passwordFile: .*0600/),
    });
    await expect(connect({ ca: join(folder, 'absent') })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

function rootArgs(): string[] {
  const { cert, key } = certificates.other;
  return [
    `--endpoints=${etcd.endpoint}`,
    `--cacert=${authority.ca}`,
    `--cert=${cert}`,
    `--key=${key}`,
    `--user=root:${passwords.root}`,
    '--command-timeout=60s',
  ];
}

describe('the configuration of the store', () => {
  const compile = (store: object) => compileConfig({ store });
  const endpoints = ['10.0.0.1:2379'];

  it('wants TLS for every store elsewhere, and whole pairs', () => {
    expect(compile({ endpoints: ['127.0.0.1:2379'] }).store.security.ca).toBeNull();
    expect(compile({ endpoints, ca: '/ca' }).store).toMatchObject({ endpoints, security: { ca: '/ca', cert: null } });
    const wrong: [object, RegExp][] = [
      [{ endpoints }, /endpoints\[0\].*loopback/],
      [{ endpoints: ['etcd.example:2379'] }, /endpoints\[0\].*loopback/],
      [{ endpoints, ca: '/ca', cert: '/c' }, /store\.key: is missing/],
      [{ endpoints, cert: '/c', key: '/k' }, /store\.ca: is missing/],
      [{ endpoints, ca: '/ca', username: 'u' }, /passwordFile: is missing/],
      [{ endpoints, ca: '/ca', passwordFile: '/p' }, /username: is missing/],
      [{ ca: '/ca' }, /embedded store/],
      [{ username: 'u', passwordFile: '/p' }, /embedded store/],
    ];
    for (const [store, message] of wrong) expect(() => compile(store)).toThrow(message);
  });
});
