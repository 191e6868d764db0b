// SPDX-License-Identifier: Apache-2.0

import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import type { Store } from '../store/store.js';

const readTimeoutMs = 5_000;

/** Everything, as of one revision: API servers keep nothing between requests. */
export async function readState(store: Store): Promise<{ state: ClusterState; placementRevision: number }> {
  const { entries } = await store.list(keys.root, { timeoutMs: readTimeoutMs });
  const state = new ClusterState();
  state.replace(
    entries.map((entry) => ({ key: entry.key, value: entry.value.toString(), revision: entry.modRevision })),
  );
  const placementRevision = entries.find((entry) => entry.key === keys.placement)?.modRevision ?? 0;
  return { state, placementRevision };
}
