// SPDX-License-Identifier: Apache-2.0
//
// The cluster key as the API sees it: data keys of new volumes, and the change to a new cluster key, which wraps the keys
// of hosts too.
//
// The store names the cluster key that new volumes use (`keys.clusterKey`), and with every encrypted volume the one that
// wraps its data key. A change of the key is: a new key in the file → the store names it → volume by volume and host
// by host, what it wraps is wrapped anew. Data is not touched, and nothing that serves a volume notices.
//
// Invariants:  - a key is in the file, durably, before the store names it
//              - at every point in between, each volume is readable with what the file holds, and calling rotate again
//                goes on where it ended
//              - an old key leaves the file only when nothing stored needs it (and nobody but `prune` takes it out)

import type { ClusterKeyView } from '../model/api.js';
import type { ClusterKey, KeyRing } from '../model/cluster-key.js';
import { dataKeyBytes, missingKey, unwrapDataKey, wrapDataKey } from '../model/cluster-key.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type VolumeEncryption, type VolumeObject } from '../model/objects.js';
import type { Change, Condition } from '../store/store.js';
import { attempt } from './attempt.js';
import { isHostBehind, rewrapHost, wrappersOf } from './hosts.js';
import { readState } from './read-state.js';
import {
  currentId,
  currentWrapper,
  type EncryptionDeps,
  type KeyStore,
  keyStoreOf,
  nonceBytes,
  putCurrent,
  ringOf,
} from './wrapping-key.js';

/** What the transaction that makes an encrypted volume needs beside the volume. */
export interface NewEncryption {
  readonly encryption: VolumeEncryption;
  readonly conditions: readonly Condition[];
  readonly changes: readonly Change[];
}

/** @throws CLUSTER_KEY_MISSING */
export async function encryptNew(deps: EncryptionDeps, state: ClusterState, volumeId: string): Promise<NewEncryption> {
  const { key, ...part } = await currentWrapper(deps, state, 'a new encrypted volume');
  const dataKey = deps.random.bytes(dataKeyBytes);
  const encryption = wrapDataKey(key, volumeId, { dataKey, nonce: deps.random.bytes(nonceBytes) });
  dataKey.fill(0);
  return { encryption, ...part };
}

/** @throws CLUSTER_KEY_MISSING when the file lacks a key that is still needed */
export async function rotateClusterKey(deps: EncryptionDeps): Promise<{ keyId: string; rewrapped: number }> {
  const store = keyStoreOf(deps);
  const keyId = await startRotation(deps, store);
  const { state } = await readState(deps.store);
  let rewrapped = 0;
  for (const volume of state.all('volumes')) {
    if (isBehind(volume, keyId) && (await rewrap(deps, volume.id, keyId))) rewrapped++;
  }
  for (const host of state.all('hosts')) if (isHostBehind(host, keyId)) await rewrapHost(deps, host.nqn, keyId);
  return { keyId, rewrapped };
}

/** The key to change to: of a change that did not end, or else a new one. */
async function startRotation(deps: EncryptionDeps, store: KeyStore): Promise<string> {
  const { state } = await readState(deps.store);
  const current = state.get('clusterKeys', currentId)?.keyId ?? null;
  if (current !== null && anythingBehind(state, current)) return current;
  const ring = await store.ring();
  if (current !== null && ring.find(current) === null) throw missingKey('the cluster', current, ring);
  // A newer one that is in the file already is meant: it was brought there, or a change ended right after making it.
  const next = current === null || ring.newest.id !== current ? ring.newest : await store.add();
  return attempt(deps.store, async ({ state: now }) => {
    const stored = now.stored('clusterKeys', currentId);
    if ((stored?.value.keyId ?? null) !== current) return { txn: null, result: stored?.value.keyId ?? next.id };
    const conditions = [{ key: keys.clusterKey, modRevision: stored?.revision ?? 0 }];
    return { txn: { conditions, changes: [putCurrent(next.id)] }, result: next.id };
  });
}

function anythingBehind(state: ClusterState, keyId: string): boolean {
  const volumes = state.all('volumes').some((volume) => isBehind(volume, keyId));
  return volumes || state.all('hosts').some((host) => isHostBehind(host, keyId));
}

async function rewrap(deps: EncryptionDeps, volumeId: string, keyId: string): Promise<boolean> {
  const ring = await ringOf(deps);
  const key = ring.find(keyId);
  if (key === null) throw missingKey('the cluster', keyId, ring);
  return attempt(deps.store, async ({ state }) => {
    const stored = state.stored('volumes', volumeId);
    if (stored === null || !isBehind(stored.value, keyId)) return { txn: null, result: false };
    const encryption = wrappedBy(deps, { ring, key }, stored);
    const value = codecs.volume.encode({ ...stored.value, encryption });
    const conditions = [{ key: stored.key, modRevision: stored.revision }];
    return { txn: { conditions, changes: [{ kind: 'put', key: stored.key, value }] }, result: true };
  });
}

function wrappedBy(
  deps: EncryptionDeps,
  by: { ring: KeyRing; key: ClusterKey },
  stored: Stored<VolumeObject>,
): VolumeEncryption {
  const { id, name, encryption } = stored.value;
  if (encryption === undefined) throw new BasaltError('INTERNAL', { detail: `volume ${name} is not encrypted` });
  const dataKey = unwrapDataKey(by.ring, { id, name, encryption });
  try {
    return wrapDataKey(by.key, id, { dataKey, nonce: deps.random.bytes(nonceBytes) });
  } finally {
    dataKey.fill(0);
  }
}

/** Takes keys that nothing needs any more out of this machine's file. */
export async function pruneClusterKeys(deps: EncryptionDeps): Promise<{ removed: string[] }> {
  const store = keyStoreOf(deps);
  const { state } = await readState(deps.store);
  const current = state.get('clusterKeys', currentId)?.keyId ?? null;
  if (current === null) return { removed: [] };
  const needed = new Set([
    ...state.all('volumes').flatMap((volume) => volume.encryption?.keyId ?? []),
    ...state.all('hosts').flatMap((host) => [...wrappersOf(host)]),
  ]);
  const ring = await store.ring();
  const at = ring.keys.findIndex((key) => key.id === current);
  // Those after the current one are being brought to all machines for the next change.
  const removed = ring.keys.slice(0, Math.max(at, 0)).flatMap((key) => (needed.has(key.id) ? [] : [key.id]));
  await store.remove(new Set(removed));
  return { removed };
}

export async function clusterKeyView(deps: EncryptionDeps): Promise<ClusterKeyView> {
  const { state } = await readState(deps.store);
  const wrapping = state.all('volumes').flatMap((volume) => volume.encryption?.keyId ?? []);
  const ofHosts = state.all('hosts').flatMap((host) => [...wrappersOf(host)]);
  const held = deps.keys === undefined || deps.keys === null ? [] : (await deps.keys.ring()).keys.map((key) => key.id);
  const current = state.get('clusterKeys', currentId)?.keyId ?? null;
  const ids = new Set([...held, ...wrapping, ...ofHosts, ...(current === null ? [] : [current])]);
  return {
    current,
    keys: [...ids].map((id) => ({
      id,
      held: held.includes(id),
      volumes: wrapping.filter((other) => other === id).length,
      hosts: ofHosts.filter((other) => other === id).length,
    })),
  };
}

function isBehind(volume: VolumeObject, keyId: string): boolean {
  // One that is being deleted is read by nobody any more.
  return volume.phase === 'live' && volume.encryption !== undefined && volume.encryption.keyId !== keyId;
}
