// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Etcd3 } from 'etcd3';
import { type StoreHarness, storeContract } from '../contract.js';
import { openEtcdStore } from '../etcd/etcd-store.js';
import { startEmbeddedStore } from './server.js';

storeContract('embedded', async (): Promise<StoreHarness> => {
  const directory = mkdtempSync(join(tmpdir(), 'basalt-store-'));
  const host = '127.0.0.1';
  let server = await startEmbeddedStore({ directory, host, port: 0 });
  const { endpoint } = server;
  return {
    connect: () => openEtcdStore({ endpoints: [endpoint] }),
    compact: async (revision) => {
      const client = new Etcd3({ hosts: endpoint });
      await client.kv.compact({ revision, physical: true });
      client.close();
    },
    stop: () => server.close(),
    start: async () => {
      server = await startEmbeddedStore({ directory, host, port: Number(new URL(endpoint).port) });
    },
    close: async () => {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
});
