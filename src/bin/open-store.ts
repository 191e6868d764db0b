// SPDX-License-Identifier: Apache-2.0

import type { CompiledConfig } from '../model/config.js';
import { readStoreFiles } from '../store/etcd/credentials.js';
import { openEtcdStore } from '../store/etcd/etcd-store.js';
import type { Store } from '../store/store.js';
import type { PinoLogger } from './daemon.js';

export function storeUrls(config: CompiledConfig): string[] {
  const scheme = config.store.security.ca === null ? 'http' : 'https';
  return config.store.endpoints.map((endpoint) => `${scheme}://${endpoint}`);
}

/** @throws INVALID_ARGUMENT when a file that the configuration names cannot be read */
export async function openStore(config: CompiledConfig, log: PinoLogger): Promise<Store> {
  return openEtcdStore({
    endpoints: storeUrls(config),
    logger: log,
    ...(await readStoreFiles(config.store.security)),
  });
}
