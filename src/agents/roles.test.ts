// SPDX-License-Identifier: Apache-2.0
//
// Goal: with an etcd that has users, nodes and API servers do their work with the roles that are made for them, and no more.
// Method: Debian's etcd with the roles as they are printed for operators; a cluster of real agents on fake engines, each of
// whose stores is a user's; whatever etcd refuses is counted.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { drain } from '../api/cordons.js';
import { showJob } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import type { ApiDeps } from '../api/routes/route.js';
import { createSnapshot } from '../api/snapshots.js';
import { createToken } from '../api/tokens.js';
import { volumeView } from '../api/views.js';
import { attachVolume, createVolume, requireVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { roleCommands } from '../model/store-roles.js';
import { readStoreFiles } from '../store/etcd/credentials.js';
import { openEtcdStore } from '../store/etcd/etcd-store.js';
import type { Store } from '../store/store.js';
import { EtcdProcess, requireProgram } from '../store/testing/etcd-process.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

const run = promisify(execFile);
const MiB = 1024 * 1024;

let folder: string;
let etcd: EtcdProcess;
let bed: ClusterBed;
let deps: ApiDeps;
const stores: Store[] = [];
const denied: string[] = [];

beforeAll(async () => {
  requireProgram('etcdctl', 'etcd-client');
  folder = mkdtempSync(join(tmpdir(), 'basalt-roles-'));
  etcd = await EtcdProcess.launch();
  for (const user of ['root', 'node', 'api']) {
    await etcdctl('user', 'add', `${user}:${user}-secret`);
    writeFileSync(join(folder, user), `${user}-secret\n`, { mode: 0o600 });
  }
  for (const line of roleCommands()) await etcdctl(...line.split(' ').slice(1));
  for (const role of ['node', 'api']) await etcdctl('user', 'grant-role', role, `basalt-${role}`);
  await etcdctl('user', 'grant-role', 'root', 'root');
  await etcdctl('auth', 'enable');
  bed = new ClusterBed();
  const api = await connect('api');
  deps = { ...bed.api, store: api };
  const ofNodes = new Map<string, Store>();
  for (const name of ['a1', 'a2', 'a3', 'c1', 'c2']) ofNodes.set(name, await connect('node'));
  bed.wrapStore = (store, name) => ofNodes.get(name) ?? store;
}, 120_000);

afterAll(async () => {
  await bed?.close();
  await Promise.all(stores.map((store) => store.close()));
  await etcd?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

async function etcdctl(...args: string[]): Promise<void> {
  const at = [`--endpoints=${etcd.endpoint}`, '--command-timeout=60s'];
  await run('etcdctl', [...at, ...args], { env: { ...process.env, ETCDCTL_API: '3' } });
}

/** A store of a user of etcd's that notes what it was refused. */
async function connect(username: string): Promise<Store> {
  const files = { ca: null, cert: null, key: null, username, passwordFile: join(folder, username) };
  const store = openEtcdStore({ endpoints: [etcd.endpoint], timeoutMs: 30_000, ...(await readStoreFiles(files)) });
  stores.push(store);
  const noted = async <T>(what: string, made: Promise<T>): Promise<T> => {
    return made.catch((error: Error & { code?: string }) => {
      if (error.code === 'STORE_DENIED') denied.push(`${username}: ${what}: ${error.message}`);
      throw error;
    });
  };
  return {
    get: (key, options) => noted(key, store.get(key, options)),
    list: (prefix, options) => noted(prefix, store.list(prefix, options)),
    put: (key, value, options) => noted(key, store.put(key, value, options)),
    delete: (key, options) => noted(key, store.delete(key, options)),
    txn: (txn, options) => noted(txn.changes.map(({ key }) => key).join(), store.txn(txn, options)),
    watch: (prefix, fromRevision, options) => store.watch(prefix, fromRevision, options),
    grantLease: (options) => noted('lease', store.grantLease(options)),
    close: () => store.close(),
  };
}

async function view(name: string): Promise<VolumeView> {
  const { state } = await readState(deps.store);
  return volumeView(state, requireVolume(state, name).value);
}

it('a cluster works with them: volumes, hosts, snapshots, a failover, a drain, tokens', {
  timeout: 180_000,
}, async () => {
  // The first node by name runs jobs and plans maps: one that only has disks.
  for (const name of ['a1', 'a2', 'a3']) await bed.startDiskNode(name);
  for (const name of ['c1', 'c2']) await bed.startController(name);
  await createVolume(deps, { name: 'v', sizeBytes: 4 * MiB, legs: 2, copies: 2, controllers: ['c1', 'c2'] });
  await eventually('v is redundant', async () => (await view('v')).health === 'redundant');
  await attachVolume(deps, 'v', { host: 'nqn.2026-01.io.basalt:host' });
  await createSnapshot(deps, systemClock, { volume: 'v', request: { name: 's1' } });
  await eventually(
    's1 is there',
    async () => (await readState(deps.store)).state.all('snapshots')[0]?.phase === 'ready',
  );
  await createToken({ ...deps, clock: systemClock }, { name: 'root', role: 'admin' });
  await bed.acquainted('c1', 'c2');
  const driver = (await view('v')).controller ?? '';
  await bed.kill(driver);
  await eventually('the other one drives v', async () => {
    const { controller, health } = await view('v');
    return controller !== driver && health === 'redundant';
  });
  const disk = (await view('v')).legs[0]?.[0]?.disk ?? '';
  const drained = await drain(deps, { kind: 'disk', name: disk });
  await eventually('the drain ends', async () => (await showJob(deps, drained.id)).endedAtMs !== null);
  expect(await showJob(deps, drained.id)).toMatchObject({ state: 'done' });
  expect(denied).toEqual([]);
});
