// SPDX-License-Identifier: Apache-2.0

import type { CompiledConfig } from '../model/config.js';
import { openEtcdStore } from '../store/etcd/etcd-store.js';
import type { Store } from '../store/store.js';
import type { PinoLogger } from './daemon.js';

export function storeUrls(config: CompiledConfig): string[] {
  return config.store.endpoints.map((endpoint) => (endpoint.includes('://') ? endpoint : `http://${endpoint}`));
}

export function openStore(config: CompiledConfig, log: PinoLogger): Store {
  return openEtcdStore({ endpoints: storeUrls(config), logger: log });
}
