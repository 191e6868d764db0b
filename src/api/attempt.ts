// SPDX-License-Identifier: Apache-2.0
//
// A change of the store by an API request: planned on one reading, done in one transaction on exactly that reading.

import type { ClusterState } from '../model/cluster-state.js';
import { committedRevision, type Store, type Txn } from '../store/store.js';
import { readState } from './read-state.js';

/** Somebody else wins each time that one is lost: with a few servers this is far more than it takes. */
const attemptsMax = 30;

/** A null `txn`: there is nothing to change. */
export interface Planned<T> {
  readonly txn: Txn | null;
  readonly result: T;
}

export interface Reading {
  readonly state: ClusterState;
  readonly placementRevision: number;
}

/** Plans on a fresh reading and tries again when someone else changed it in between. */
export async function attempt<T>(store: Store, plan: (reading: Reading) => Promise<Planned<T>>): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    const { txn, result } = await plan(await readState(store));
    if (txn === null) return result;
    const outcome = await store.txn(txn);
    if (outcome.outcome === 'committed') return result;
    if (outcome.outcome === 'unknown' || attempts >= attemptsMax) committedRevision(txn, outcome);
  }
}
