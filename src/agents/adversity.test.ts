// SPDX-License-Identifier: Apache-2.0
// Controllers under what goes wrong at the worst moment: events before answers, views that are behind, waits that end,
// peers that cannot reach one another, two processes of one name.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readState } from '../api/read-state.js';
import type { Engine } from '../engine/engine.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { type CompiledNode, compileConfig } from '../model/config.js';
import { keys, nqns } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { NodeAgent } from './node-agent.js';
import { ClusterBed, quietLog } from './testing/cluster-bed.js';
import { Hands, write } from './testing/hand.js';
import { eventually } from './testing/waiting.js';

let bed: ClusterBed;
let hands: Hands;

beforeEach(async () => {
  bed = new ClusterBed();
  hands = new Hands(bed);
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
});

afterEach(async () => {
  await hands.close();
  await bed.close();
});

/** `after` runs when the engine has answered `method`, before the caller learns of it. */
function around(engine: FakeEngine, method: string, after: () => Promise<void>): Engine {
  const rpc = async (called: string, ...rest: unknown[]): Promise<unknown> => {
    const answer = await (engine.rpc as (...args: unknown[]) => Promise<unknown>).call(engine, called, ...rest);
    if (called === method) await after();
    return answer;
  };
  return new Proxy(engine as Engine, {
    get: (_target, property) => {
      if (property === 'rpc') return rpc;
      const value: unknown = Reflect.get(engine, property, engine);
      return typeof value === 'function' ? value.bind(engine) : value;
    },
  });
}

describe('a node that stops being a controller of a volume', () => {
  it('and becomes one again at once is one: what it gave up does not go on going', async () => {
    for (const name of ['c1', 'c2']) await bed.startController(name);
    await bed.create({ name: 'v1', controllers: ['c1', 'c2'] });
    await bed.redundant('v1');
    const standsBy = async (): Promise<boolean> =>
      (await bed.view('v1')).paths.some(({ node, state }) => node === 'c2' && state === 'standby');
    await eventually('it stands by', standsBy);
    let open = (): void => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    let reached = false;
    bed.intercept('c2', 'basalt_slot_delete', async () => {
      reached = true;
      await opened;
    });
    const store = bed.connect();
    const { id } = await bed.view('v1');
    const setControllers = async (names: string[]): Promise<void> => {
      const { state } = await readState(store);
      const volume = state.get('volumes', id);
      if (volume === null) throw new Error('no volume');
      const value = codecs.volume.encode({ ...volume, controllers: names, controllerSlots: names.map((_, at) => at) });
      await store.txn({ conditions: [], changes: [{ kind: 'put', key: keys.volume(id), value }] });
    };
    await setControllers(['c1']);
    await eventually('it gives up', () => reached);
    const key = keys.observedVolume(id, 'c2');
    const watch = store.watch(key, bed.server.revision + 1);
    await setControllers(['c1', 'c2']);
    // Something else that it does meanwhile: it has seen that by then.
    await bed.create({ name: 'v2', controllers: ['c2'] });
    await bed.served('v2', 'c2');
    open();
    const gone = async (): Promise<void> => {
      for await (const batch of watch)
        if (batch.kind === 'events' && batch.events.some((event) => event.kind === 'delete')) return;
    };
    await gone();
    watch.close();
    await eventually('it stands by again', standsBy);
    const [exported] = await bed.node('c2').engine.rpc('nvmf_get_subsystems', { nqn: nqns.volume(id) });
    expect(exported?.namespaces).toHaveLength(1);
  });
});

describe('a controller driven by hand', () => {
  beforeEach(async () => {
    await bed.create({ name: 'v1', controllers: [], legs: 1 });
    await bed.until('v1', 'made', (view) => view.phase === 'live');
  });

  it('hears of a member that fails before the engine has answered that its leg is made', async () => {
    let killed = false;
    const die = async (): Promise<void> => {
      if (killed) return;
      killed = true;
      // Not awaited: a pass of the killed process never ends.
      void bed.kill('d1');
      await systemClock.sleep(50);
    };
    const a = await hands.start('a', { engine: (engine) => around(engine, 'basalt_leg_create', die) });
    await a.controller.promote({ takeover: false });
    await write(a, 0, 1);
    expect(hands.leadership().legs.every((leg) => leg.inSync.length === 1)).toBe(true);
  });

  it('lets go of the members it took when its promotion is ended before the others answered', async () => {
    const held = new Set<string>();
    const watched = (engine: FakeEngine): Engine => {
      const rpc = async (method: string, ...rest: unknown[]): Promise<unknown> => {
        const answer = await (engine.rpc as (...args: unknown[]) => Promise<unknown>).call(engine, method, ...rest);
        const { name } = (rest[0] ?? {}) as { name?: string };
        if (method === 'basalt_member_attach' && name !== undefined) held.add(name);
        if (method === 'basalt_member_detach' && name !== undefined) held.delete(name);
        return answer;
      };
      return new Proxy(engine as Engine, {
        get: (_target, property) => {
          if (property === 'rpc') return rpc;
          const value: unknown = Reflect.get(engine, property, engine);
          return typeof value === 'function' ? value.bind(engine) : value;
        },
      });
    };
    const a = await hands.start('a', { engine: watched });
    bed.network.partition(a.engine, bed.node('d2').engine);
    const ended = new AbortController();
    const promotion = a.controller.promote({ takeover: false, signal: ended.signal });
    promotion.catch(() => {});
    await eventually('one member is held', () => held.size === 1);
    ended.abort(new Error('enough'));
    await expect(promotion).rejects.toThrow();
    expect([...held]).toEqual([]);
  });

  it('is handed over while it waits for its replicas, and no longer holds the volume', async () => {
    const a = await hands.start('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    await bed.kill('d2');
    write(a, 0, 1).catch(() => {});
    await eventually('it waits', () => a.controller.state === 'promoting');
    expect(await a.controller.handOver()).toBe(false);
    expect(a.controller.state).toBe('idle');
    expect(hands.leadership()).toMatchObject({ controller: null, clean: false });
  });

  it('does not take a volume that changed hands since it wanted it', async () => {
    const [a, b, c] = [await hands.start('a'), await hands.start('b'), await hands.start('c')];
    await a.controller.promote({ takeover: false });
    const seenEpoch = hands.leadership().epoch;
    await b.controller.promote({ takeover: true, seenEpoch });
    await expect(c.controller.promote({ takeover: true, seenEpoch })).rejects.toMatchObject({ code: 'VOLUME_LED' });
    expect(hands.leadership()).toMatchObject({ controller: 'b', epoch: 2 });
    await write(b, 0, 2);
    // Or nobody would hand the volume over to it.
    expect(c.controller.view).toMatchObject({ state: 'idle', problem: null });
  });

  it('says what is in its way until somebody else drives the volume', async () => {
    const [a, b] = [await hands.start('a'), await hands.start('b')];
    for (const name of ['d1', 'd2']) bed.network.partition(a.engine, bed.node(name).engine);
    await expect(a.controller.promote({ takeover: false })).rejects.toMatchObject({ code: 'VOLUME_UNAVAILABLE' });
    a.controller.update(hands.volume(), hands.leadership());
    expect(a.controller.view.problem).toContain('no replica of leg 0 can be reached');
    await b.controller.promote({ takeover: true });
    a.controller.update(hands.volume(), hands.leadership());
    expect(a.controller.view).toMatchObject({ state: 'idle', problem: null });
  });
});

describe('controller nodes', () => {
  it('do not take a volume from one another for ever when they cannot reach each other', async () => {
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.acquainted('c1', 'c2');
    bed.network.partition(bed.node('c1').engine, bed.node('c2').engine);
    await bed.until('v1', 'taken over once', (view) => view.epoch >= 2);
    await systemClock.sleep(3_000);
    const { epoch, controller } = await bed.redundant('v1');
    expect(epoch).toBeLessThanOrEqual(3);
    await bed.write(controller ?? '', 'v1', 0, 1);
  });

  it('are refused a name that another process answers to, and not one whose process was killed', async () => {
    await bed.startController('c1');
    const node = compileConfig({ nodes: [{ name: 'c1', roles: ['controller'], engine: 'fake' }] }).nodes[0];
    const engine = new FakeEngine('other', bed.network);
    const context = { engine, clock: systemClock, random: systemRandom, log: quietLog };
    const twin = new NodeAgent({ context, store: bed.connect(), node: node as CompiledNode, leaseTtlSeconds: 1 });
    await expect(twin.start(AbortSignal.timeout(10_000))).rejects.toMatchObject({
      code: 'BUSY',
      fields: { kind: 'node name', name: 'c1', field: 'name' },
    });
    await twin.stop();
    await engine.close();
    await bed.kill('c1');
    await bed.startController('c1');
  });
});
