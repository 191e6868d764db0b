// SPDX-License-Identifier: Apache-2.0
//
// The cluster key that wraps what is new: data keys of volumes, keys of hosts.

import type { Random } from '../env/random.js';
import { type ClusterKey, type KeyRing, type KeySource, missingKey } from '../model/cluster-key.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion } from '../model/objects.js';
import type { Change, Condition, Store } from '../store/store.js';

export interface KeyStore extends KeySource {
  /** Draws a key; in the file, durably, when it resolves. */
  add(): Promise<ClusterKey>;
  remove(ids: ReadonlySet<string>): Promise<void>;
}

export interface EncryptionDeps {
  readonly store: Store;
  readonly random: Random;
  /** null: this server was given no key file. */
  readonly keys?: KeyStore | null;
}

export const currentId = 'current';
export const nonceBytes = 12;

/** The key, and what its transaction needs so that this is still so. @throws CLUSTER_KEY_MISSING */
export async function currentWrapper(
  deps: EncryptionDeps,
  state: ClusterState,
  what: string,
): Promise<{ key: ClusterKey; conditions: Condition[]; changes: Change[] }> {
  const ring = await ringOf(deps);
  const current = state.stored('clusterKeys', currentId);
  const key = current === null ? ring.newest : ring.find(current.value.keyId);
  if (key === null) throw missingKey(what, current?.value.keyId ?? '', ring);
  return {
    key,
    conditions: [{ key: keys.clusterKey, modRevision: current?.revision ?? 0 }],
    changes: current === null ? [putCurrent(key.id)] : [],
  };
}

export function putCurrent(keyId: string): Change {
  return { kind: 'put', key: keys.clusterKey, value: codecs.clusterKey.encode({ format: formatVersion, keyId }) };
}

export async function ringOf(deps: EncryptionDeps): Promise<KeyRing> {
  return keyStoreOf(deps).ring();
}

export function keyStoreOf(deps: EncryptionDeps): KeyStore {
  if (deps.keys !== undefined && deps.keys !== null) return deps.keys;
  throw new BasaltError('CLUSTER_KEY_FILE', {
    path: 'clusterKey.file',
    problem: 'is not configured for this API server',
  });
}
