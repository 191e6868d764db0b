// SPDX-License-Identifier: Apache-2.0
//
// Hosts with keys, as the API sees them: made, given other keys, taken away. What a key is made of comes in and never
// goes out again: it is stored wrapped by the cluster key (model/hosts.ts), and views say only which kinds there are.
//
// Invariants:  - a host that has keys never loses all of them unasked: who is attached to a volume is not forgotten, also
//                not by a request that runs beside the one that attaches it
//              - the same request twice has the effect of one

import type { HostKeysRequest, HostView } from '../model/api.js';
import type { KeyRing } from '../model/cluster-key.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import {
  checkHostKey,
  type HostKeyKind,
  type HostKeys,
  type HostObject,
  hostKeyKinds,
  unwrapHostKeys,
  wrapHostKey,
} from '../model/hosts.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type VolumeObject } from '../model/objects.js';
import type { Change, Condition, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { currentWrapper, type EncryptionDeps, nonceBytes } from './wrapping-key.js';

/** What a transaction does to a host beside what else it does. */
export interface HostPart {
  /** It gives the host keys; otherwise it only sees to it that the host stays. */
  readonly givesKeys: boolean;
  readonly conditions: readonly Condition[];
  readonly changes: readonly Change[];
}

const flags: Record<HostKeyKind, string> = {
  dhchapKey: 'dhchap-key',
  dhchapCtrlrKey: 'dhchap-ctrlr-key',
  tlsPsk: 'tls-psk',
};

/** True: made now. False: it was there already, with the same keys. @throws HOST_KEYS_DIFFER */
export function createHost(deps: EncryptionDeps, nqn: string, request: HostKeysRequest): Promise<boolean> {
  const wanted = wantedKeys(request);
  checkPair(wanted);
  if (Object.keys(wanted).length === 0)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'dhchapKey', problem: 'or tlsPsk is needed; name a key' });
  return attempt(deps.store, async ({ state }) => {
    const txn = await givenKeys(deps, state, { nqn, wanted });
    return { txn, result: state.get('hosts', nqn) === null };
  });
}

/** Other keys from now on; null takes the kind away, what is left out stays. @throws NOT_FOUND */
export function setHostKeys(deps: EncryptionDeps, nqn: string, request: HostKeysRequest): Promise<void> {
  const wanted = wantedKeys(request);
  return attempt<void>(deps.store, async ({ state }) => {
    const stored = requireHost(state, nqn);
    const before = await clearKeys(deps, stored.value);
    const after: HostKeys = { ...before, ...wanted };
    for (const kind of hostKeyKinds) if (request[kind] === null) delete after[kind];
    checkPair(after);
    if (sameKeys(before, after)) return { txn: null, result: undefined };
    return { txn: await put(deps, state, { nqn, wanted: after }), result: undefined };
  });
}

/** @throws BUSY while it is attached: without its keys it would be admitted by its name alone */
export function deleteHost(deps: Pick<EncryptionDeps, 'store'>, nqn: string): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    const stored = requireHost(state, nqn);
    const volumes = volumesOf(state, nqn);
    if (volumes.length > 0)
      throw new BasaltError('BUSY', { kind: 'host', name: nqn, detail: `attached to ${volumes.join(', ')}` });
    const conditions = [{ key: stored.key, modRevision: stored.revision }];
    return { txn: { conditions, changes: [{ kind: 'delete', key: stored.key }] }, result: undefined };
  });
}

/** @throws HOST_NEEDS_TLS where no controller of the volume would let it in */
export function assertWayFor(
  state: ClusterState,
  volume: VolumeObject,
  host: { nqn: string; givenPsk: boolean },
): void {
  // It is attached already: being told so again changes nothing.
  if (volume.hosts.includes(host.nqn)) return;
  if (host.givenPsk || state.get('hosts', host.nqn)?.tlsPsk !== undefined) return;
  const ways = volume.controllers.map((name) => state.lastLive(name)?.hosts ?? null);
  if (ways.length > 0 && ways.every((address) => address?.secure === true))
    throw new BasaltError('HOST_NEEDS_TLS', { nqn: host.nqn, volume: volume.name });
}

/** Which hosts of the volume a node that speaks TLS only does not let in; null: it lets in all. */
export function problemOfHosts(state: ClusterState, volume: VolumeObject, node: string): string | null {
  if (state.lastLive(node)?.hosts?.secure !== true) return null;
  const without = volume.hosts.filter((nqn) => state.get('hosts', nqn)?.tlsPsk === undefined);
  if (without.length === 0) return null;
  return `${without.join(', ')}: no key for TLS, and this node speaks nothing else`;
}

/** What attaching a host adds to its transaction: its keys, when some are given, and that it stays meanwhile. */
export async function attachedHost(
  deps: EncryptionDeps,
  state: ClusterState,
  at: { nqn: string; keys: HostKeysRequest },
): Promise<HostPart> {
  const wanted = wantedKeys(at.keys);
  checkPair(wanted);
  const stored = storedHost(state, at.nqn);
  if (Object.keys(wanted).length > 0) {
    const txn = await givenKeys(deps, state, { nqn: at.nqn, wanted });
    if (txn !== null) return { ...txn, givesKeys: true };
  }
  const conditions = [{ key: keys.host(at.nqn), modRevision: stored?.revision ?? 0 }];
  // Written as it is: whoever takes it away meanwhile finds that out.
  const changes: Change[] =
    stored === null ? [] : [{ kind: 'put', key: stored.key, value: codecs.host.encode(stored.value) }];
  return { conditions, changes, givesKeys: false };
}

export function hostView(state: ClusterState, nqn: string): HostView {
  const host = state.get('hosts', nqn);
  return {
    nqn,
    dhchapKey: host?.dhchapKey !== undefined,
    dhchapCtrlrKey: host?.dhchapCtrlrKey !== undefined,
    tlsPsk: host?.tlsPsk !== undefined,
    wrappedBy: host === null ? [] : [...wrappersOf(host)],
    volumes: volumesOf(state, nqn),
  };
}

/** Those with keys, and those that volumes name. */
export function hostViews(state: ClusterState): HostView[] {
  const nqns = new Set([
    ...state.all('hosts').map((host) => host.nqn),
    ...state.all('volumes').flatMap((volume) => (volume.phase === 'live' ? volume.hosts : [])),
  ]);
  return [...nqns].sort().map((nqn) => hostView(state, nqn));
}

/** The keys of a host, wrapped by the present cluster key; null: they are already. */
export async function rewrapHost(deps: EncryptionDeps, nqn: string, keyId: string): Promise<boolean> {
  return attempt(deps.store, async ({ state }) => {
    const stored = state.stored('hosts', nqn);
    if (stored === null || !isHostBehind(stored.value, keyId)) return { txn: null, result: false };
    const wanted = await clearKeys(deps, stored.value);
    const txn = await put(deps, state, { nqn, wanted, version: stored.value.version });
    return { txn, result: true };
  });
}

export function isHostBehind(host: HostObject, keyId: string): boolean {
  return [...wrappersOf(host)].some((id) => id !== keyId);
}

/** The cluster keys that its keys are wrapped by. */
export function wrappersOf(host: HostObject): Set<string> {
  return new Set(hostKeyKinds.flatMap((kind) => host[kind]?.keyId ?? []));
}

/** @throws HOST_NOT_ADMITTED when there is one that this version cannot read */
function storedHost(state: ClusterState, nqn: string): Stored<HostObject> | null {
  const problem = state.unreadable.get(keys.host(nqn));
  if (problem !== undefined) throw new BasaltError('HOST_NOT_ADMITTED', { nqn, problem });
  return state.stored('hosts', nqn);
}

function requireHost(state: ClusterState, nqn: string): Stored<HostObject> {
  const stored = storedHost(state, nqn);
  if (stored === null) throw new BasaltError('NOT_FOUND', { kind: 'host with keys', name: nqn });
  return stored;
}

/** Null: the host has them already. @throws HOST_KEYS_DIFFER */
async function givenKeys(
  deps: EncryptionDeps,
  state: ClusterState,
  at: { nqn: string; wanted: HostKeys },
): Promise<Txn | null> {
  const stored = storedHost(state, at.nqn);
  if (stored === null) return put(deps, state, at);
  if (!sameKeys(await clearKeys(deps, stored.value), at.wanted))
    throw new BasaltError('HOST_KEYS_DIFFER', { nqn: at.nqn });
  return null;
}

async function put(
  deps: EncryptionDeps,
  state: ClusterState,
  at: { nqn: string; wanted: HostKeys; version?: string },
): Promise<Txn> {
  const { key, conditions, changes } = await currentWrapper(deps, state, `the keys of host ${at.nqn}`);
  const object: HostObject = { format: formatVersion, nqn: at.nqn, version: at.version ?? deps.random.uuid() };
  for (const kind of hostKeyKinds) {
    const text = at.wanted[kind];
    if (text === undefined) continue;
    object[kind] = wrapHostKey({ key, nonce: deps.random.bytes(nonceBytes) }, { nqn: at.nqn, kind }, text);
  }
  const stored = state.stored('hosts', at.nqn);
  return {
    conditions: [{ key: keys.host(at.nqn), modRevision: stored?.revision ?? 0 }, ...conditions],
    changes: [{ kind: 'put', key: keys.host(at.nqn), value: codecs.host.encode(object) }, ...changes],
  };
}

async function clearKeys(deps: EncryptionDeps, host: HostObject): Promise<HostKeys> {
  const ring: KeyRing | null = (await deps.keys?.ring()) ?? null;
  return unwrapHostKeys(ring, host);
}

function wantedKeys(request: HostKeysRequest): HostKeys {
  const wanted: HostKeys = {};
  for (const kind of hostKeyKinds) {
    const given = request[kind];
    if (given !== undefined && given !== null) wanted[kind] = checkHostKey(kind, given, kind);
  }
  return wanted;
}

function checkPair(wanted: HostKeys): void {
  if (wanted.dhchapCtrlrKey === undefined) return;
  const refuse = (problem: string): BasaltError =>
    new BasaltError('INVALID_ARGUMENT', { field: 'dhchapCtrlrKey', problem });
  if (wanted.dhchapKey === undefined) throw refuse(`goes with a ${flags.dhchapKey} only`);
  // Of the same bytes, whatever hash they name.
  if (keyBytes(wanted.dhchapKey) === keyBytes(wanted.dhchapCtrlrKey))
    throw refuse(`must be another key than the ${flags.dhchapKey}`);
}

function keyBytes(text: string): string {
  return text.split(':')[2] ?? '';
}

function sameKeys(one: HostKeys, other: HostKeys): boolean {
  return hostKeyKinds.every((kind) => one[kind] === other[kind]);
}

function volumesOf(state: ClusterState, nqn: string): string[] {
  return state.all('volumes').flatMap((volume) => (volume.hosts.includes(nqn) ? [volume.name] : []));
}
