// SPDX-License-Identifier: Apache-2.0
//
// The fake's nvmf_* methods: subsystems, namespaces, listeners, hosts.

import type { KeyNames, Referral } from '../descriptions.js';
import type { AnaState } from '../engine.js';
import type { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { Refused } from './refusal.js';
import { FakeReservation } from './reservation.js';
import {
  discoveryNqn,
  type EngineState,
  type FakeListener,
  type FakeSubsystem,
  noSecrets,
  type Secrets,
} from './state.js';

const anaStates: readonly AnaState[] = ['optimized', 'non_optimized', 'inaccessible', 'change'];

interface Address {
  traddr: string;
  trsvcid: string;
}

function address(fields: Fields, field: 'listen_address' | 'address' = 'listen_address'): Address {
  const nested = fields.object(field);
  nested.choice('trtype', ['TCP']);
  if (nested.has('adrfam')) nested.choice('adrfam', ['IPv4', 'IPv6']);
  const traddr = nested.string('traddr');
  const trsvcid = nested.string('trsvcid');
  if (!/^\d{1,5}$/.test(trsvcid) || Number(trsvcid) > 65535) nested.refuse('trsvcid', 'must be a port from 0 to 65535');
  nested.end();
  return { traddr, trsvcid };
}

function nqnOf(fields: Fields, name = 'nqn'): string {
  const nqn = fields.string(name);
  if (!/^nqn\..{1,219}$/.test(nqn)) fields.refuse(name, 'must be an NQN: "nqn." and more, at most 223 bytes');
  return nqn;
}

export function makeSubsystem(nqn: string, with_: Partial<FakeSubsystem> = {}): FakeSubsystem {
  return {
    nqn,
    serial: '',
    model: 'Basalt',
    internal: false,
    discovery: nqn === discoveryNqn,
    nodeLink: false,
    cntlidMin: 1,
    cntlidMax: 0xffef,
    namespacesMax: 32,
    allowAnyHost: false,
    hosts: new Map(),
    secrets: new Map(),
    listeners: [],
    namespaces: new Map(),
    ...with_,
  };
}

function createSubsystem(state: EngineState, fields: Fields): true {
  const nqn = nqnOf(fields);
  const options = {
    serial: fields.stringOr('serial_number', '00000000000000000000'),
    model: fields.stringOr('model_number', 'Basalt'),
    allowAnyHost: fields.booleanOr('allow_any_host', false),
    cntlidMin: fields.naturalOr('min_cntlid', 1, 1, 0xffef),
    cntlidMax: fields.naturalOr('max_cntlid', 0xffef, 1, 0xffef),
    namespacesMax: fields.naturalOr('max_namespaces', 32, 1, 1024),
    internal: fields.booleanOr('internal', false),
    nodeLink: fields.booleanOr('node_link', false),
  };
  fields.booleanOr('ana_reporting', true);
  fields.booleanOr('one_active', false);
  fields.booleanOr('compare_write', true);
  if (options.serial.length > 20) fields.refuse('serial_number', 'must be at most 20 bytes');
  fields.end();
  if (state.subsystems.has(nqn)) throw new Refused('exists', `subsystem ${nqn} exists`);
  state.subsystems.set(nqn, makeSubsystem(nqn, options));
  return true;
}

function deleteSubsystem(state: EngineState, fields: Fields): true {
  const nqn = nqnOf(fields);
  fields.end();
  const subsystem = state.subsystem(nqn);
  for (const nsid of [...subsystem.namespaces.keys()]) dropNamespace(state, subsystem, nsid);
  state.subsystems.delete(nqn);
  state.engine.dropConnections(nqn);
  state.network.changed();
  return true;
}

function addNamespace(state: EngineState, fields: Fields): number {
  const nqn = nqnOf(fields);
  const nested = fields.object('namespace');
  const bdevName = nested.string('bdev_name');
  const wantedNsid = nested.has('nsid') ? nested.natural('nsid', 1, 1024) : 0;
  const nguid = nested.stringOr('nguid', '00000000-0000-0000-0000-000000000000');
  const uuid = nested.uuidOr('uuid', () => '');
  const anagrpid = nested.has('anagrpid') ? nested.natural('anagrpid', 1, 1024) : 0;
  const oneWriter = nested.booleanOr('one_writer', false);
  const gateEpoch = nested.has('gate_epoch') ? nested.epoch('gate_epoch') : null;
  if (gateEpoch !== null && !oneWriter) nested.refuse('gate_epoch', 'goes with one_writer only');
  const offered = nested.booleanOr('reservations', true);
  const shared = nested.booleanOr('shared_reservations', false);
  if (shared && (oneWriter || !offered))
    nested.refuse('shared_reservations', 'does not go with one_writer, nor without reservations');
  const timeoutMs = shared ? nested.naturalOr('reservation_timeout_ms', 10_000, 1, 600_000) : 10_000;
  nested.end();
  fields.end();
  const subsystem = state.subsystem(nqn);
  if (subsystem.nodeLink) throw new Refused('invalid', `nqn: a node link has no namespaces of its own`);
  let nsid = wantedNsid;
  if (nsid === 0) for (nsid = 1; subsystem.namespaces.has(nsid); ) nsid += 1;
  if (subsystem.namespaces.has(nsid)) throw new Refused('exists', `namespace ${nsid} of ${nqn} exists`);
  if (nsid > subsystem.namespacesMax)
    throw new Refused('invalid', `${nqn} takes ${subsystem.namespacesMax} namespaces`);
  // Behind the bdev's own gate nothing else may write.
  const alone = oneWriter && gateEpoch === null;
  if (alone && state.bdev(bdevName).product !== 'lvol')
    throw new Refused('unsupported', `${bdevName}: a ${state.bdev(bdevName).product} bdev keeps no attribute`);
  const user = namespaceUser(nqn, nsid);
  if (alone) state.claim([bdevName], user);
  const bdev = alone ? state.bdev(bdevName) : state.open(bdevName, user);
  const identity = { uuid: uuid === '' ? bdev.uuid : uuid, nguid };
  const { network, emit } = state;
  const read = (): Promise<unknown> => bdev.read(0, 1);
  const reservation = new FakeReservation({ nqn, nsid, shared, offered, timeoutMs, network, emit, read });
  const gate = gateEpoch === null ? null : { epoch: gateEpoch, holder: '' };
  const shape = { nsid, bdev, ...identity, anagrpid: anagrpid === 0 ? nsid : anagrpid, oneWriter, gate, reservation };
  subsystem.namespaces.set(nsid, shape);
  return nsid;
}

const namespaceUser = (nqn: string, nsid: number): string => `namespace ${nsid} of ${nqn}`;

function dropNamespace(state: EngineState, subsystem: FakeSubsystem, nsid: number): void {
  const namespace = subsystem.namespaces.get(nsid);
  if (namespace === undefined) throw new Refused('notFound', `namespace ${nsid} of ${subsystem.nqn} does not exist`);
  subsystem.namespaces.delete(nsid);
  if (namespace.oneWriter && namespace.gate === null) namespace.bdev.claimedBy = null;
  else state.closeUse(namespace.bdev, namespaceUser(subsystem.nqn, nsid));
}

function addListener(state: EngineState, fields: Fields): unknown {
  const nqn = nqnOf(fields);
  const secure = fields.booleanOr('secure_channel', false);
  const wanted = address(fields);
  fields.end();
  if (state.transport === null) throw new Refused('invalid', 'no TCP transport: call nvmf_create_transport first');
  if (!secure && !state.transport.trusted && !/^(127\.\d+\.\d+\.\d+|::1)$/.test(wanted.traddr))
    throw new Refused('permission', `traddr: ${wanted.traddr} is not a loopback address; others need secure_channel`);
  const subsystem = state.subsystem(nqn);
  const trsvcid = wanted.trsvcid === '0' ? state.network.freePort() : wanted.trsvcid;
  const at = { traddr: wanted.traddr, trsvcid };
  if (findListener(subsystem, at) !== undefined) throw new Refused('exists', `${nqn} listens there already`);
  const other = state.network.at(at.traddr, at.trsvcid);
  if (other !== null && other !== state.engine) throw new Refused('busy', `${at.traddr}:${trsvcid} is in use`);
  for (const each of state.subsystems.values()) {
    if (each.listeners.some((there) => matches(there, at) && there.secure !== secure))
      throw new Refused('busy', `listen_address: others listen there with${secure ? 'out' : ''} TLS`);
  }
  subsystem.listeners.push({ ...at, secure, anaState: 'optimized' });
  state.network.changed();
  return { trtype: 'TCP', ...at };
}

const matches = (listener: FakeListener, at: Address): boolean =>
  listener.traddr === at.traddr && listener.trsvcid === at.trsvcid;

function findListener(subsystem: FakeSubsystem, at: Address): FakeListener | undefined {
  return subsystem.listeners.find((each) => matches(each, at));
}

function needListener(subsystem: FakeSubsystem, at: Address): FakeListener {
  const found = findListener(subsystem, at);
  if (found === undefined)
    throw new Refused('notFound', `${subsystem.nqn} does not listen at ${at.traddr}:${at.trsvcid}`);
  return found;
}

function readReferral(fields: Fields): { key: string; referral: Required<Referral> } {
  const secure_channel = fields.booleanOr('secure_channel', false);
  const at = address(fields, 'address');
  if (at.trsvcid === '0') fields.refuse('address', 'must have a port');
  fields.end();
  const adrfam = at.traddr.includes(':') ? 'IPv6' : 'IPv4';
  return {
    key: `${at.traddr} ${at.trsvcid}`,
    referral: { address: { trtype: 'TCP', adrfam, ...at }, secure_channel },
  };
}

const policyNames = {
  dhchap_digests: ['sha256', 'sha384', 'sha512'],
  dhchap_dhgroups: ['null', 'ffdhe2048', 'ffdhe3072', 'ffdhe4096', 'ffdhe6144', 'ffdhe8192'],
};

export function readPolicy(fields: Fields): void {
  for (const [name, known] of Object.entries(policyNames)) {
    if (!fields.has(name)) continue;
    const names = fields.strings(name, 1, known.length);
    if (new Set(names).size !== names.length || names.some((each) => !known.includes(each)))
      fields.refuse(name, `must name some of ${known.join(', ')}, each once`);
  }
}

/** As whoever holds the keys keeps them, whatever becomes of the keyring. */
function keepSecret(state: EngineState, subsystem: FakeSubsystem, host: string): void {
  const before = subsystem.secrets.get(host) ?? noSecrets;
  const names = subsystem.hosts.get(host) ?? {};
  const now = secretsOf(state, names);
  const kept = (name: string | undefined, secret: string | null, old: string | null): string | null =>
    name === undefined ? null : (secret ?? old);
  const dhchap = kept(names.dhchap_key, now.dhchap, before.dhchap);
  subsystem.secrets.set(host, { dhchap, psk: kept(names.psk, now.psk, before.psk) });
}

export function secretsOf(state: EngineState, names: KeyNames): Secrets {
  const secret = (name: string | undefined): string | null =>
    name === undefined ? null : (state.keys.get(name)?.secret ?? null);
  return { dhchap: secret(names.dhchap_key), psk: secret(names.psk) };
}

export function keyNames(fields: Fields): KeyNames {
  const keys: KeyNames = {};
  if (fields.has('dhchap_key')) keys.dhchap_key = fields.string('dhchap_key');
  if (fields.has('dhchap_ctrlr_key')) keys.dhchap_ctrlr_key = fields.string('dhchap_ctrlr_key');
  if (keys.dhchap_key === undefined && keys.dhchap_ctrlr_key !== undefined)
    fields.refuse('dhchap_ctrlr_key', 'goes with dhchap_key only');
  if (fields.has('psk')) keys.psk = fields.string('psk');
  return keys;
}

/** Which key it is the fake does not know; two names of one key pass here. */
export function needKeys(state: EngineState, keys: KeyNames): void {
  for (const [field, name] of Object.entries(keys) as [string, string][]) {
    if (!state.keys.has(name)) throw new Refused('notFound', `${field}: key ${name} does not exist`);
  }
  if (keys.dhchap_key !== undefined && keys.dhchap_key === keys.dhchap_ctrlr_key)
    throw new Refused('invalid', 'dhchap_ctrlr_key: must be another key than dhchap_key');
}

function describe(subsystem: FakeSubsystem): unknown {
  return {
    nqn: subsystem.nqn,
    subtype: subsystem.discovery ? 'Discovery' : 'NVMe',
    listen_addresses: subsystem.listeners.map(({ traddr, trsvcid, anaState, secure }) => ({
      trtype: 'TCP',
      adrfam: traddr.includes(':') ? 'IPv6' : 'IPv4',
      traddr,
      trsvcid,
      ana_state: anaState,
      ...(secure ? { secure_channel: true } : {}),
    })),
    allow_any_host: subsystem.allowAnyHost,
    hosts: [...subsystem.hosts].map(([nqn, keys]) => ({ nqn, ...keys })),
    serial_number: subsystem.serial,
    model_number: subsystem.model,
    min_cntlid: subsystem.cntlidMin,
    max_cntlid: subsystem.cntlidMax,
    namespaces: [...subsystem.namespaces.values()].map((each) => ({
      nsid: each.nsid,
      bdev_name: each.bdev.name,
      nguid: each.nguid,
      uuid: each.uuid,
      anagrpid: each.anagrpid,
      one_writer: each.oneWriter,
    })),
  };
}

export const nvmfMethods: Record<string, Handler> = {
  nvmf_create_transport: (state, fields) => {
    fields.choice('trtype', ['TCP']);
    const trusted = fields.booleanOr('trusted_network', false);
    for (const name of ['max_io_qpairs_per_ctrlr', 'in_capsule_data_size', 'max_queue_depth'])
      fields.naturalOr(name, 1, 1);
    fields.end();
    if (state.transport !== null) throw new Refused('exists', 'the TCP transport exists');
    state.transport = { trusted };
    return true;
  },
  nvmf_get_transports: (state, fields) => {
    if (fields.has('trtype')) fields.choice('trtype', ['TCP']);
    fields.end();
    if (state.transport === null) return [];
    // Nothing connects to the fake by sockets, so nothing is refused either.
    const refused = { plaintext: 0, key: 0, handshake: 0, timeout: 0 };
    return [{ trtype: 'TCP', connections: 0, half_open: 0, tls: { established: 0, refused, refused_peers: [] } }];
  },
  nvmf_create_subsystem: createSubsystem,
  nvmf_delete_subsystem: deleteSubsystem,
  nvmf_subsystem_add_ns: addNamespace,
  nvmf_subsystem_remove_ns: (state, fields) => {
    const nqn = nqnOf(fields);
    const nsid = fields.natural('nsid', 1);
    fields.end();
    dropNamespace(state, state.subsystem(nqn), nsid);
    return true;
  },
  nvmf_subsystem_add_listener: addListener,
  nvmf_subsystem_remove_listener: (state, fields) => {
    const nqn = nqnOf(fields);
    const at = address(fields);
    fields.end();
    const subsystem = state.subsystem(nqn);
    subsystem.listeners.splice(subsystem.listeners.indexOf(needListener(subsystem, at)), 1);
    state.network.changed();
    return true;
  },
  nvmf_subsystem_listener_set_ana_state: (state, fields) => {
    const nqn = nqnOf(fields);
    const at = address(fields);
    const anaState = fields.choice('ana_state', anaStates);
    if (fields.has('anagrpid')) fields.natural('anagrpid', 1, 1024);
    fields.end();
    needListener(state.subsystem(nqn), at).anaState = anaState;
    return true;
  },
  nvmf_subsystem_add_host: (state, fields) => {
    const nqn = nqnOf(fields);
    const host = nqnOf(fields, 'host');
    const keys = keyNames(fields);
    fields.end();
    const subsystem = state.subsystem(nqn);
    needKeys(state, keys);
    if (subsystem.hosts.has(host)) throw new Refused('exists', `host ${host} is allowed already`);
    subsystem.hosts.set(host, keys);
    keepSecret(state, subsystem, host);
    return true;
  },
  nvmf_subsystem_set_keys: (state, fields) => {
    const nqn = nqnOf(fields);
    const host = nqnOf(fields, 'host');
    const keys = keyNames(fields);
    fields.end();
    const subsystem = state.subsystem(nqn);
    const { hosts } = subsystem;
    needKeys(state, keys);
    const before = hosts.get(host);
    if (before === undefined) throw new Refused('notFound', `host ${host} is not in the list`);
    // The kind of key that is not named stays.
    const pskOnly = keys.psk !== undefined && keys.dhchap_key === undefined;
    const kept = pskOnly ? before : before.psk === undefined ? {} : { psk: before.psk };
    hosts.set(host, { ...kept, ...keys });
    keepSecret(state, subsystem, host);
    return true;
  },
  nvmf_set_config: (_state, fields) => {
    readPolicy(fields);
    if (fields.has('discovery_access')) fields.choice('discovery_access', ['open', 'authenticated', 'off']);
    fields.end();
    return true;
  },
  nvmf_discovery_add_referral: (state, fields) => {
    const { key, referral } = readReferral(fields);
    if (state.referrals.has(key)) throw new Refused('exists', 'address: that referral is there already');
    state.referrals.set(key, referral);
    return true;
  },
  nvmf_discovery_remove_referral: (state, fields) => {
    const { key } = readReferral(fields);
    if (!state.referrals.delete(key)) throw new Refused('notFound', 'address: there is no such referral');
    return true;
  },
  nvmf_discovery_get_referrals: (state, fields) => {
    fields.end();
    return [...state.referrals.values()];
  },
  nvmf_subsystem_remove_host: (state, fields) => {
    const nqn = nqnOf(fields);
    const host = nqnOf(fields, 'host');
    fields.end();
    state.subsystem(nqn).secrets.delete(host);
    if (!state.subsystem(nqn).hosts.delete(host)) throw new Refused('notFound', `host ${host} is not in the list`);
    state.engine.dropConnections(nqn, host);
    return true;
  },
  nvmf_subsystem_allow_any_host: (state, fields) => {
    const nqn = nqnOf(fields);
    const allow = fields.boolean('allow_any_host');
    fields.end();
    state.subsystem(nqn).allowAnyHost = allow;
    return true;
  },
  nvmf_get_subsystems: (state, fields) => {
    const nqn = fields.has('nqn') ? nqnOf(fields) : null;
    fields.end();
    if (nqn !== null) return [describe(state.subsystem(nqn))];
    return [...state.subsystems.values()].map(describe);
  },
  nvmf_subsystem_get_controllers: (state, fields) => {
    const nqn = nqnOf(fields);
    fields.end();
    state.subsystem(nqn);
    return state.engine.connectionsTo(nqn).map((connection, index) => ({
      cntlid: index + 1,
      hostnqn: connection.hostnqn,
      hostid: connection.id,
      num_io_qpairs: 1,
    }));
  },
};
