// SPDX-License-Identifier: Apache-2.0

import type { Store } from '../store/store.js';
import { FollowedStore, readEverything, type StoreReading } from './followed-store.js';

/** Everything, as of one revision that is not older than the request: API servers decide on nothing that they remember. */
export function readState(store: Store): Promise<StoreReading> {
  return store instanceof FollowedStore ? store.read() : readEverything(store);
}
