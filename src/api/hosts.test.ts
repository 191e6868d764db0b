// SPDX-License-Identifier: Apache-2.0
// Hosts with keys, over the API and a whole cluster on fake engines: who is admitted with what, and where keys show.

import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { MemoryKeys } from '../agents/testing/memory-keys.js';
import { systemClock } from '../env/clock.js';
import { keys, nqns } from '../model/keys.js';
import { pruneClusterKeys, rotateClusterKey } from './encryption.js';
import { buildApp } from './server.js';

const secrets = {
  host: 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:',
  controller: 'DHHC-1:03:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWWl5iZmpucnZ6foKGio8FPdnY=:',
  other: 'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:',
  psk: 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:',
};
const canaries = Object.values(secrets).map((text) => text.slice(text.indexOf(':', 8) + 3, -12));

let bed: ClusterBed;
let app: FastifyInstance;
let count = 0;
let host: string;
let volume: string;
/** Everything that was ever answered. */
const answers: string[] = [];

beforeAll(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  app = buildApp({ ...bed.api, listen: '127.0.0.1:0', log: quietLog });
});

afterAll(async () => {
  await app.close();
  await bed.close();
});

beforeEach(async () => {
  count += 1;
  host = `nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-${String(count).padStart(12, '0')}`;
  volume = `v${count}`;
  await bed.create({ name: volume, legs: 1, controllers: ['c1', 'c2'] });
});

// biome-ignore lint/suspicious/noExplicitAny: answers are looked at field by field
type Answer = { status: number; body: any };

async function call(method: 'GET' | 'POST' | 'DELETE', url: string, payload?: unknown): Promise<Answer> {
  const json = payload === undefined ? {} : { payload: JSON.stringify(payload) };
  const headers = { host: '127.0.0.1', ...(payload === undefined ? {} : { 'content-type': 'application/json' }) };
  const response = await app.inject({ method, url, headers, ...json });
  answers.push(response.body);
  return { status: response.statusCode, body: response.json() };
}

const attach = (keys?: object): Promise<Answer> =>
  call('POST', `/v1/volumes/${volume}/attach`, { host, ...(keys === undefined ? {} : { keys }) });
const at = (nqn: string): string => `/v1/hosts/${encodeURIComponent(nqn)}`;

/** How a node's engine admits the host; null: it does not. */
async function admission(node: string): Promise<Record<string, string> | null> {
  const { id } = await bed.view(volume);
  const [shown] = await bed.node(node).engine.rpc('nvmf_get_subsystems', { nqn: nqns.volume(id) });
  answers.push(JSON.stringify(shown));
  return (shown?.hosts.find((each) => each.nqn === host) as Record<string, string> | undefined) ?? null;
}

async function until<T>(what: string, look: () => Promise<T>, holds: (seen: T) => boolean): Promise<T> {
  const endMs = systemClock.now() + 30_000;
  for (;;) {
    const seen = await look().catch((error: unknown) => String(error) as T);
    if (holds(seen)) return seen;
    if (systemClock.now() > endMs) throw new Error(`not ${what}: ${JSON.stringify(seen)}`);
    await systemClock.sleep(5);
  }
}

const kindsOf = (seen: unknown): string =>
  typeof seen === 'object' && seen !== null ? Object.keys(seen).sort().join(' ') : String(seen);

function admitted(node: string, kinds: string): Promise<Record<string, string> | null> {
  return until(
    `${kinds} on ${node}`,
    () => admission(node),
    (seen) => kindsOf(seen) === kinds,
  );
}

describe('a host with keys', () => {
  it('is asked for them by the active controller and the standby, and by those that come later', async () => {
    const made = await call('POST', '/v1/hosts', { nqn: host, dhchapKey: secrets.host });
    expect(made).toMatchObject({ status: 201, body: { dhchapKey: true, dhchapCtrlrKey: false, tlsPsk: false } });
    expect((await call('POST', '/v1/hosts', { nqn: host, dhchapKey: secrets.host })).status).toBe(200);
    expect((await attach()).body.hosts).toEqual([host]);
    await admitted('c1', 'dhchap_key nqn');
    await admitted('c2', 'dhchap_key nqn');
    expect((await call('GET', at(host))).body).toMatchObject({ nqn: host, volumes: [volume] });
    expect(await bed.node('c1').engine.rpc('keyring_get_keys')).toEqual([]);
  });

  it('gets them with the attachment, and loses none of them to a later one', async () => {
    await attach();
    await admitted('c1', 'nqn');
    // It is attached already: its keys count all the same.
    const given = { dhchapKey: secrets.host, dhchapCtrlrKey: secrets.controller };
    expect((await attach(given)).status).toBe(200);
    const before = await admitted('c1', 'dhchap_ctrlr_key dhchap_key nqn');
    expect((await attach(given)).status).toBe(200);
    expect((await attach()).status).toBe(200);
    const differing = await attach({ dhchapKey: secrets.other });
    expect(differing).toMatchObject({ status: 409, body: { code: 'HOST_KEYS_DIFFER' } });
    expect(await admission('c1')).toEqual(before);
  });

  it('gets other ones, loses a kind, and is not forgotten while it is attached', async () => {
    await attach({ dhchapKey: secrets.host, dhchapCtrlrKey: secrets.controller });
    const before = await admitted('c2', 'dhchap_ctrlr_key dhchap_key nqn');
    expect((await call('POST', `${at(host)}/keys`, { dhchapKey: secrets.other })).status).toBe(200);
    await until(
      'a change',
      () => admission('c2'),
      (seen) => seen?.['dhchap_key'] !== before?.['dhchap_key'],
    );
    await call('POST', `${at(host)}/keys`, { dhchapCtrlrKey: null });
    await admitted('c2', 'dhchap_key nqn');
    expect(await call('DELETE', at(host))).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    await call('POST', `/v1/volumes/${volume}/detach`, { host });
    await until(
      'gone',
      () => admission('c2'),
      (seen) => seen === null,
    );
    expect((await call('DELETE', at(host))).status).toBe(200);
    expect(await call('DELETE', at(host))).toMatchObject({ status: 404 });
  });

  it('comes by TLS on a listener that is there while it is needed', async () => {
    await attach();
    expect((await bed.view(volume)).paths.every((path) => path.tlsAddress === null)).toBe(true);
    await call('POST', '/v1/hosts', { nqn: host, tlsPsk: secrets.psk });
    const view = await bed.until(volume, 'open for TLS', ({ paths }) => {
      return paths.length === 2 && paths.every((path) => path.tlsAddress !== null);
    });
    await admitted('c1', 'nqn psk');
    for (const { node, address, tlsAddress, state } of view.paths) {
      expect(tlsAddress).not.toEqual(address);
      const [shown] = await bed.node(node).engine.rpc('nvmf_get_subsystems', { nqn: nqns.volume(view.id) });
      const listener = shown?.listen_addresses.find((each) => each.trsvcid === tlsAddress?.trsvcid);
      expect(listener).toMatchObject({
        secure_channel: true,
        ana_state: state === 'active' ? 'optimized' : 'inaccessible',
      });
    }
    // From one kind to the other.
    await call('POST', `${at(host)}/keys`, { dhchapKey: secrets.host });
    await admitted('c1', 'dhchap_key nqn psk');
    await call('POST', `${at(host)}/keys`, { dhchapKey: null });
    await admitted('c1', 'nqn psk');
    await call('POST', `${at(host)}/keys`, { tlsPsk: null });
    await admitted('c1', 'nqn');
    await bed.until(volume, 'without TLS', ({ paths }) => paths.every((path) => path.tlsAddress === null));
  });

  it('is not admitted where its keys cannot be had, and is as soon as they can', async () => {
    const source = new MemoryKeys();
    bed.nodeKeys.set('c2', source);
    try {
      await attach({ dhchapKey: secrets.host });
      await admitted('c1', 'dhchap_key nqn');
      const view = await bed.until(volume, 'refused by c2', ({ paths }) =>
        paths.some((path) => path.node === 'c2' && path.problem !== null),
      );
      expect(view.paths.find((path) => path.node === 'c2')?.problem).toContain(`host ${host} needs cluster key`);
      expect(await admission('c2')).toBeNull();
      source.keys = bed.keys.keys;
      await admitted('c2', 'dhchap_key nqn');
    } finally {
      bed.nodeKeys.delete('c2');
    }
  });

  it('is not admitted by its name where its entry cannot be read', async () => {
    await attach();
    await admitted('c2', 'nqn');
    await bed.stop('c2');
    const store = bed.connect();
    // As a later version might write it.
    await store.put(keys.host(host), JSON.stringify({ format: 2, nqn: host }));
    expect(await attach({ dhchapKey: secrets.host })).toMatchObject({ body: { code: 'HOST_NOT_ADMITTED' } });
    expect(await call('DELETE', at(host))).toMatchObject({ body: { code: 'HOST_NOT_ADMITTED' } });
    await bed.startController('c2');
    const view = await bed.until(volume, 'refused by c2', ({ paths }) => {
      return paths.some((path) => path.node === 'c2' && path.problem !== null);
    });
    expect(view.paths.find((path) => path.node === 'c2')?.problem).toContain(`host ${host} is not admitted`);
    expect(await admission('c2')).toBeNull();
    await store.delete(keys.host(host));
    await admitted('c2', 'nqn');
  });

  it('is kept by whoever attaches it while it is deleted', async () => {
    await call('POST', '/v1/hosts', { nqn: host, dhchapKey: secrets.host });
    for (let round = 0; round < 5; round++) {
      const [attached, deleted] = await Promise.all([attach(), call('DELETE', at(host))]);
      const { dhchapKey, volumes } = (await call('GET', at(host))).body;
      expect(attached.status).toBe(200);
      // One came first: it is gone and then attached by its name, or it stays.
      expect([deleted.status, dhchapKey, volumes]).toEqual(
        deleted.status === 200 ? [200, false, [volume]] : [409, true, [volume]],
      );
      await call('POST', `/v1/volumes/${volume}/detach`, { host });
      await call('POST', '/v1/hosts', { nqn: host, dhchapKey: secrets.host });
    }
  });

  it('keeps its keys through a change of the cluster key, and the old one goes when nothing needs it', async () => {
    await attach({ dhchapKey: secrets.host });
    const before = await admitted('c1', 'dhchap_key nqn');
    const old = bed.keys.keys.at(-1)?.id;
    const { keyId } = await rotateClusterKey(bed.api);
    expect((await call('GET', at(host))).body.wrappedBy).toEqual([keyId]);
    expect((await pruneClusterKeys(bed.api)).removed).toContain(old);
    // Nothing changed for the host.
    expect(await admission('c1')).toEqual(before);
    expect((await attach({ dhchapKey: secrets.host })).status).toBe(200);
  });

  it('has keys of the right form and of the right length, which differ from each other', async () => {
    const wrong: [object, string, RegExp][] = [
      [{}, 'dhchapKey', /name a key/],
      [{ dhchapKey: secrets.psk }, 'dhchapKey', /begin with DHHC-1:/],
      [{ tlsPsk: secrets.host }, 'tlsPsk', /begin with NVMeTLSkey-1:/],
      [{ dhchapKey: secrets.host.replace('KfiaR', 'KfiaS') }, 'dhchapKey', /checksum/],
      [{ dhchapKey: secrets.host.slice(0, -1) }, 'dhchapKey', /colon/],
      [{ dhchapKey: secrets.host.replace(':01:', ':07:') }, 'dhchapKey', /hash/],
      [{ dhchapKey: secrets.host.replace('AAEC', '') }, 'dhchapKey', /bytes/],
      [{ dhchapKey: secrets.host.replace('AAEC', 'A*EC') }, 'dhchapKey', /base64/],
      [{ dhchapKey: `${secrets.host}${'x'.repeat(300)}` }, 'dhchapKey', /./],
      [{ dhchapKey: [secrets.host] }, 'dhchapKey', /./],
      [{ dhchapCtrlrKey: secrets.host }, 'dhchapCtrlrKey', /goes with/],
      [{ dhchapKey: secrets.host, dhchapCtrlrKey: secrets.host.replace(':01:', ':00:') }, 'dhchapCtrlrKey', /another/],
      [{ [secrets.host]: 1 }, '', /not known/],
    ];
    for (const [keys, field, message] of wrong) {
      const answer = await call('POST', '/v1/hosts', { nqn: host, ...keys });
      if (Object.hasOwn(keys, secrets.host)) answers.pop();
      expect(answer.status, JSON.stringify(keys)).toBe(400);
      expect(answer.body.message).toMatch(message);
      if (field !== '') expect(answer.body.field).toBe(field);
    }
    const nobody = await call('POST', `/v1/volumes/${volume}/attach`, { nbd: { path: '/x' }, keys: {} });
    expect(nobody).toMatchObject({ status: 400, body: { field: 'keys' } });
    expect(await call('POST', `${at(host)}/keys`, { dhchapKey: secrets.host })).toMatchObject({ status: 404 });
    expect((await call('GET', '/v1/hosts')).body.map((each: { nqn: string }) => each.nqn)).not.toContain(host);
  });

  it('shows none of them in the store, in an answer or in an engine', async () => {
    await attach({ dhchapKey: secrets.host, dhchapCtrlrKey: secrets.controller, tlsPsk: secrets.psk });
    await admitted('c1', 'dhchap_ctrlr_key dhchap_key nqn psk');
    const { entries } = await bed.connect().list('/');
    const stored = entries.map((entry) => `${entry.key} ${entry.value.toString()}`).join('\n');
    expect(stored).toContain(host);
    for (const text of [stored, ...answers]) for (const canary of canaries) expect(text).not.toContain(canary);
    expect(answers.length).toBeGreaterThan(20);
  });
});
