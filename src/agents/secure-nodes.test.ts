// SPDX-License-Identifier: Apache-2.0
//
// Goal: nodes whose ports speak TLS do all that other nodes do, and let in nobody who has neither the node key nor a key
// of a host. Method: whole clusters on the memory store and fake engines, which know who may open which port.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readState } from '../api/read-state.js';
import { snapshotView } from '../api/snapshot-views.js';
import { createSnapshot, requireSnapshot } from '../api/snapshots.js';
import { attachVolume, requireVolume } from '../api/volumes.js';
import { type Engine, isEngineError } from '../engine/engine.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { SnapshotView } from '../model/api.js';
import { type CompiledNode, compileConfig } from '../model/config.js';
import { nqns } from '../model/keys.js';
import { NodeKey, NodeKeyRing } from '../model/node-key.js';
import type { LiveObject } from '../model/objects.js';
import { NodeAgent } from './node-agent.js';
import { type Identity, NodeIdentity } from './node-identity.js';
import { ClusterBed, quietLog } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

const host = 'nqn.2026-01.io.basalt:host:one';
const psk = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
  bed.identity = newIdentity();
  bed.secure = true;
});

afterEach(() => bed.close());

function newIdentity(): Identity {
  return new NodeIdentity(new NodeKeyRing([new NodeKey(systemRandom.bytes(32))]));
}

async function start(...disks: string[]): Promise<void> {
  await Promise.all(disks.map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
}

async function live(name: string): Promise<LiveObject> {
  const found = (await readState(bed.server.connect())).state.get('lives', name);
  if (found === null) throw new Error(`${name} is not live`);
  return found;
}

async function listeners(engine: Engine) {
  const subsystems = await engine.rpc('nvmf_get_subsystems', {});
  return subsystems.flatMap(({ nqn, listen_addresses }) => listen_addresses.map((each) => ({ nqn, ...each })));
}

async function snapshot(name: string): Promise<SnapshotView> {
  const { state } = await readState(bed.server.connect());
  const { value: volume } = requireVolume(state, 'v1');
  return snapshotView(state, volume, requireSnapshot(state, volume, name).value);
}

describe('nodes whose ports speak TLS', () => {
  it('have no port without it, watch each other, and take over from one another', async () => {
    await start('d1', 'd2');
    await bed.create({ name: 'v1' });
    const { controller } = await bed.redundant('v1');
    await bed.acquainted('c1', 'c2');
    for (const name of ['d1', 'd2', 'c1', 'c2']) {
      const open = await listeners(bed.node(name).engine);
      expect(open.length).toBeGreaterThan(0);
      expect(open.filter(({ secure_channel }) => secure_channel !== true)).toEqual([]);
      const { internal, hosts } = await live(name);
      expect((internal ?? hosts)?.secure).toBe(true);
    }
    await bed.write(controller ?? '', 'v1', 3, 7);
    await bed.kill(controller ?? '');
    const other = controller === 'c1' ? 'c2' : 'c1';
    await bed.served('v1', other);
    expect(await bed.read(other, 'v1', 3)).toBe(7);
  });

  it('let in no controller without the key of its name, whatever else it knows', async () => {
    await start('d1', 'd2');
    await bed.create({ name: 'v1' });
    const { controller, legs } = await bed.redundant('v1');
    const replica = legs[0]?.[0];
    const { internal } = await live(replica?.node ?? '');
    const stranger = new FakeEngine('stranger', bed.network);
    const { traddr = '', trsvcid = '' } = internal ?? {};
    const attach = async (identity: Identity, secure: boolean): Promise<string> => {
      const credentials = await identity.credentials(stranger, controller ?? '', { secure });
      const at = { name: 'm', traddr, trsvcid, subnqn: nqns.replica(replica?.replica ?? '') };
      const request = { ...at, ...credentials, epoch: 1_000, timeout_ms: 500 };
      const outcome = await stranger.rpc('basalt_member_attach', request).catch((error: unknown) => error);
      if (isEngineError(outcome, 'permission')) return 'refused';
      await stranger.rpc('basalt_member_detach', { name: 'm' });
      return 'let in';
    };
    expect(await attach(newIdentity(), true)).toBe('refused');
    expect(await attach(bed.identity ?? newIdentity(), false)).toBe('refused');
    expect(await attach(bed.identity ?? newIdentity(), true)).toBe('let in');
    await stranger.close();
  });

  it('are refused a name that another process answers to, also by one that does not know their key', async () => {
    await bed.startController('c1');
    const [node] = compileConfig({
      nodes: [{ name: 'c1', roles: ['controller'], engine: 'fake', secure: true }],
    }).nodes;
    for (const identity of [bed.identity ?? newIdentity(), newIdentity()]) {
      const engine = new FakeEngine('other', bed.network);
      const context = { engine, clock: systemClock, random: systemRandom, log: quietLog, identity };
      const twin = new NodeAgent({ context, store: bed.connect(), node: node as CompiledNode, leaseTtlSeconds: 1 });
      await expect(twin.start(AbortSignal.timeout(10_000))).rejects.toMatchObject({ code: 'BUSY' });
      await twin.stop();
      await engine.close();
    }
  });

  it('serve hosts that have a key for TLS, and say of others why not', async () => {
    await start('d1', 'd2');
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await expect(attachVolume(bed.api, 'v1', { host })).rejects.toMatchObject({ code: 'HOST_NEEDS_TLS' });
    expect((await bed.view('v1')).hosts).toEqual([]);
    await attachVolume(bed.api, 'v1', { host, keys: { tlsPsk: psk } });
    const open = await bed.until('v1', 'open by TLS', ({ paths }) => paths.every((path) => path.tlsAddress !== null));
    expect(open.paths).toHaveLength(2);
    for (const path of open.paths) {
      expect(path).toMatchObject({ address: null, problem: null });
      // One port for all that hosts come for.
      expect(path.tlsAddress?.trsvcid).toBe((await live(path.node)).hosts?.trsvcid);
    }
  });

  it('say in the status why a host does not get in that was attached before they spoke TLS', async () => {
    bed.secure = false;
    await start('d1', 'd2');
    await bed.create({ name: 'v1' });
    await attachVolume(bed.api, 'v1', { host });
    await bed.redundant('v1');
    bed.secure = true;
    for (const name of ['c1', 'c2']) {
      await bed.stop(name);
      await bed.startController(name);
    }
    const { paths } = await bed.until('v1', 'served', (view) => view.health === 'redundant' && view.paths.length === 2);
    for (const { problem } of paths) expect(problem).toContain(`${host}: no key for TLS`);
    // It keeps nobody from handing the volume over, or from being told again what holds already.
    const { state } = await readState(bed.server.connect());
    for (const { problem } of state.all('observedVolumes')) expect(problem).toBeNull();
    await attachVolume(bed.api, 'v1', { host });
  });

  it('have told hosts to look elsewhere by the time that they give a volume away', async () => {
    await start('d1', 'd2');
    const { id } = await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await attachVolume(bed.api, 'v1', { host, keys: { tlsPsk: psk } });
    const { controller } = await bed.until('v1', 'open', ({ paths }) =>
      paths.every((path) => path.tlsAddress !== null),
    );
    const { engine } = bed.node(controller ?? '');
    const states: string[] = [];
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        if (args[0] === 'basalt_slot_quiesce') {
          const open = await listeners(engine);
          states.push(...open.filter(({ nqn }) => nqn === nqns.volume(id)).map(({ ana_state }) => ana_state));
        }
        return rpc(...args);
      },
    });
    await bed.stop(controller ?? '');
    expect(states).toEqual(['inaccessible']);
  });

  it('give hosts a port of their own for TLS where one is named, and none twice', async () => {
    await bed.startDiskNode('d1');
    const common = { roles: ['controller'], engine: 'fake', hostPort: 20_001 };
    await bed.start({ ...common, name: 'c1', tlsPort: 20_001 });
    await bed.start({ ...common, name: 'c2', hostPort: 20_002, tlsPort: 20_003 });
    await bed.create({ name: 'v1', copies: 1 });
    await attachVolume(bed.api, 'v1', { host, keys: { tlsPsk: psk } });
    const { paths } = await bed.until('v1', 'open', (view) => view.paths.length === 2 && view.controller !== null);
    expect(paths.map(({ tlsAddress }) => tlsAddress?.trsvcid)).toEqual(['20001', '20003']);
  });

  it('do it one by one, and read from those that do not yet', async () => {
    bed.secure = false;
    await start('d1', 'd2', 'd3');
    await bed.create({ name: 'v1' });
    const { controller } = await bed.redundant('v1');
    await bed.write(controller ?? '', 'v1', 3, 7);
    bed.secure = true;
    for (const name of ['d1', 'c1', 'd2', 'd3', 'c2']) {
      await bed.stop(name);
      await (name.startsWith('d') ? bed.startDiskNode(name) : bed.startController(name));
      const view = await bed.redundant('v1');
      expect(await bed.read(view.controller ?? '', 'v1', 3)).toBe(7);
      await bed.write(view.controller ?? '', 'v1', 4, 8);
    }
  });

  it('copy snapshots from each other', async () => {
    bed.placement = { graceMs: 300, settleMs: 50 };
    await start('d1', 'd2', 'd3');
    await bed.create({ name: 'v1', legs: 1 });
    await bed.redundant('v1');
    await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's1' } });
    await eventually('it is ready', async () => (await snapshot('s1')).state === 'ready');
    const [lost = ''] = (await snapshot('s1')).legs.flat().map((copy) => copy.node);
    await bed.kill(lost);
    await eventually('it is redundant without the node', async () => {
      const copies = (await snapshot('s1')).legs.flat();
      return copies.length === 2 && copies.every((copy) => copy.state === 'up' && copy.node !== lost);
    });
  });

  it('drive the parts of a volume for each other', async () => {
    await start('d1', 'd2');
    await bed.create({ name: 'v1', active: 2, legs: 2, controllers: ['c1', 'c2'] });
    const view = await bed.until('v1', 'served by both', ({ health, fronts = [] }) => {
      const drivers = new Set(fronts.map(({ controller }) => controller));
      return health === 'redundant' && drivers.size === 2 && !drivers.has(null);
    });
    expect(view.fronts).toHaveLength(2);
  });
});
