// SPDX-License-Identifier: Apache-2.0
import { Etcd3 } from 'etcd3';
import { type StoreHarness, storeContract } from '../contract.js';
import { EtcdProcess } from '../testing/etcd-process.js';
import { openEtcdStore } from './etcd-store.js';

storeContract("Debian's etcd", async (): Promise<StoreHarness> => {
  const etcd = await EtcdProcess.launch();
  return {
    connect: () => openEtcdStore({ endpoints: [etcd.endpoint] }),
    compact: async (revision) => {
      const client = new Etcd3({ hosts: etcd.endpoint });
      await client.kv.compact({ revision, physical: true });
      client.close();
    },
    stop: () => etcd.kill(),
    start: () => etcd.start(),
    close: () => etcd.close(),
  };
});
