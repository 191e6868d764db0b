// SPDX-License-Identifier: Apache-2.0
import { type StoreHarness, storeContract } from '../contract.js';
import { MemoryServer } from './memory-store.js';

storeContract('memory', async (): Promise<StoreHarness> => {
  const server = new MemoryServer();
  return {
    connect: () => server.connect(),
    compact: async (revision) => server.compact(revision),
    stop: async () => {
      server.away = true;
    },
    start: async () => {
      server.away = false;
    },
    close: async () => {},
  };
});
