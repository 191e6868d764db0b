// SPDX-License-Identifier: Apache-2.0
//
// Goal: a disk node's link lets in whoever drives volumes or may come to, and nobody else; it puts nobody out who still
// drives one. Method: one node's link on a fake engine, over a store that the test writes.

import { beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { FakeNetwork } from '../engine/fake/network.js';
import { withoutLinks } from '../engine/testing/without-links.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys, nqns } from '../model/keys.js';
import { NodeKey, NodeKeyRing } from '../model/node-key.js';
import { codecs, type LiveObject } from '../model/objects.js';
import { linkOf } from '../reconcile/node-links.js';
import { type Identity, NodeIdentity } from './node-identity.js';
import { NodeLink } from './node-link.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const internal = { traddr: '127.0.0.1', trsvcid: '4420' };
const { signal } = new AbortController();
const live: LiveObject = {
  format: 1,
  name: 'embedded-1',
  kind: 'embedded',
  incarnation: 'one',
  engine: 'embedded',
  roles: [],
  internal: null,
  hosts: null,
  draining: false,
};

let engine: FakeEngine;
let store: MemoryLink;

beforeEach(async () => {
  engine = new FakeEngine('d1', new FakeNetwork());
  store = new MemoryLink();
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  putNode('c1', 'controller');
  putNode('d1', 'disk');
});

function putNode(name: string, role: 'controller' | 'disk'): void {
  store.put(keys.node(name), codecs.node.encode({ format: 1, name, roles: [role] }));
}

function putLive(name: string, up: boolean): void {
  store.put(keys.live(name), up ? codecs.live.encode({ ...live, name }) : null);
}

function putHolder(controller: string | null): void {
  const volumeId = '11111111-1111-4111-8111-111111111111';
  const rights = { epoch: 1, controller, instance: null, clean: false, leaseMs: 300, legs: [] };
  store.put(keys.leadership(volumeId), codecs.leadership.encode({ format: 1, volumeId, ...rights }));
}

function nodeLink(options: { on?: Engine; identity?: Identity } = {}): NodeLink {
  const { on = engine, identity } = options;
  const context = { engine: on, clock: systemClock, random: systemRandom, log: quietLog };
  return new NodeLink({
    context: identity === undefined ? context : { ...context, identity },
    link: store,
  });
}

async function subsystem() {
  const [found] = await engine.rpc('nvmf_get_subsystems', { nqn: nqns.nodeLink });
  return { hosts: (found?.hosts ?? []).map((host) => host.nqn).sort(), ports: found?.listen_addresses ?? [] };
}

const named = (...names: string[]): string[] => names.map((name) => nqns.controller(name));

describe('the link of a disk node', () => {
  it('lets in the controllers of the cluster, and listens where its replicas do', async () => {
    putNode('c2', 'controller');
    const link = nodeLink();
    expect(link.nqn).toBeNull();
    await link.open(internal, signal);
    expect(link.nqn).toBe(nqns.nodeLink);
    const { hosts, ports } = await subsystem();
    expect(hosts).toEqual(named('c1', 'c2'));
    expect(ports).toMatchObject([internal]);
  });

  it('lets in who joins, and no longer who left and drives nothing', async () => {
    const link = nodeLink();
    await link.open(internal, signal);
    putNode('c2', 'controller');
    putLive('embedded-1', true);
    await link.pass(false, signal);
    expect((await subsystem()).hosts).toEqual(named('c1', 'c2', 'embedded-1'));
    putHolder('embedded-1');
    putLive('embedded-1', false);
    await link.pass(false, signal);
    expect((await subsystem()).hosts).toEqual(named('c1', 'c2', 'embedded-1'));
    putHolder('c1');
    await link.pass(false, signal);
    expect((await subsystem()).hosts).toEqual(named('c1', 'c2'));
  });

  it('lets controllers in under each key of the node, and under no name without one', async () => {
    const ring = new NodeKeyRing([new NodeKey(systemRandom.bytes(32)), new NodeKey(systemRandom.bytes(32))]);
    await nodeLink({ identity: new NodeIdentity(ring) }).open(internal, signal);
    const [found] = await engine.rpc('nvmf_get_subsystems', { nqn: nqns.nodeLink });
    expect(found?.hosts.map(({ nqn }) => nqn).sort()).toEqual(
      ring.keys.map(({ id }) => nqns.controller('c1', id)).sort(),
    );
    for (const host of found?.hosts ?? []) expect(host.dhchap_key && host.dhchap_ctrlr_key).toBeTruthy();
  });

  it('is what it was when the agent is another one, and made again by whoever finds it gone', async () => {
    await nodeLink().open(internal, signal);
    const again = nodeLink();
    const asked: string[] = [];
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: (...args: Parameters<typeof rpc>) => {
        asked.push(args[0]);
        return rpc(...args);
      },
    });
    await again.open(internal, signal);
    expect(again.nqn).toBe(nqns.nodeLink);
    expect(asked.filter((method) => /_(add|remove)_host$/.test(method))).toEqual([]);
    await engine.rpc('nvmf_delete_subsystem', { nqn: nqns.nodeLink });
    await again.pass(true, signal);
    expect((await subsystem()).hosts).toEqual(named('c1'));
  });

  it('asks its engine for nothing while nobody joins or leaves', async () => {
    const link = nodeLink();
    await link.open(internal, signal);
    Object.assign(engine, { rpc: (method: string) => Promise.reject(new Error(`asked for ${method}`)) });
    await link.pass(false, signal);
    store.put(keys.disk('22222222-2222-4222-8222-222222222222'), null);
    await link.pass(false, signal);
    putNode('c2', 'controller');
    await expect(link.pass(false, signal)).rejects.toThrow('nvmf_subsystem_add_host');
  });

  it('is made once, whoever needs it at the same time', async () => {
    const asked: string[] = [];
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        asked.push(args[0]);
        return rpc(...args);
      },
    });
    const link = nodeLink();
    const ensured = async (): Promise<string | null> => link.ensure(internal, signal).then(() => link.nqn);
    const found = await Promise.all(Array.from({ length: 4 }, ensured));
    expect(new Set(found)).toEqual(new Set([nqns.nodeLink]));
    for (const method of ['nvmf_create_subsystem', 'nvmf_subsystem_add_host', 'nvmf_subsystem_add_listener'])
      expect(asked.filter((each) => each === method)).toEqual([method]);
    expect((await subsystem()).hosts).toEqual(named('c1'));
  });

  it('is none where the engine knows none, and the node starts all the same', async () => {
    const link = nodeLink({ on: withoutLinks(engine) });
    await link.open(internal, signal);
    await link.pass(true, signal);
    expect(link.nqn).toBeNull();
  });
});

describe('what a node says of its link', () => {
  it('holds for the process that said it', () => {
    const said = { format: 1, name: 'd1', incarnation: 'one', nqn: nqns.nodeLink } as const;
    store.put(keys.nodeLink('d1'), codecs.nodeLink.encode(said));
    expect(linkOf(store.state, { ...live, name: 'd1' })).toBe(nqns.nodeLink);
    expect(linkOf(store.state, { ...live, name: 'd1', incarnation: 'two' })).toBeNull();
    expect(linkOf(store.state, { ...live, name: 'd2' })).toBeNull();
  });
});
