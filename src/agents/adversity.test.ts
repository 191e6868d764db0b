// SPDX-License-Identifier: Apache-2.0
// Controllers under what goes wrong at the worst moment: events before answers, views that are behind, waits that end,
// peers that cannot reach one another, two processes of one name.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { type CompiledNode, compileConfig } from '../model/config.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';
import { replicaResolver } from './controller-agent.js';
import { NodeAgent } from './node-agent.js';
import { StoreLink } from './store-link.js';
import { bedTiming, ClusterBed, quietLog } from './testing/cluster-bed.js';
import { VolumeController } from './volume-controller.js';

let bed: ClusterBed;
let links: StoreLink[];

beforeEach(async () => {
  bed = new ClusterBed();
  links = [];
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
});

afterEach(async () => {
  for (const link of links) await link.close();
  await bed.close();
});

interface Hand {
  readonly controller: VolumeController;
  readonly engine: FakeEngine;
  readonly slot: string;
}

/** A controller that does nothing by itself; `wrap` stands between it and its engine. */
async function hand(name: string, wrap: (engine: FakeEngine) => Engine = (engine) => engine): Promise<Hand> {
  const engine = new FakeEngine(name, bed.network);
  const link = new StoreLink({ store: bed.connect(), clock: systemClock, log: quietLog, leaseTtlSeconds: 2 });
  links.push(link);
  await link.open(AbortSignal.timeout(5_000));
  const volume = link.state.volumeByName('v1');
  if (volume === null) throw new Error('no volume');
  const controller = new VolumeController({
    context: { engine: wrap(engine), clock: systemClock, random: systemRandom, log: quietLog },
    volume,
    name,
    leadership: link.leadership(volume.id),
    resolve: replicaResolver(link),
    publishSize: async () => {},
    onServing: async () => {},
    onChange: () => {},
    timing: bedTiming,
  });
  return { controller, engine, slot: `slot-${volume.id}` };
}

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

async function write(at: Hand, block: number, fill: number): Promise<void> {
  const handle = await at.engine.openBdev(at.slot);
  try {
    await handle.write(block * 4096, new Uint8Array(4096).fill(fill));
  } finally {
    await handle.close();
  }
}

function leadership(): Leadership {
  const [entry] = bed.server.list(keys.leaderships);
  if (entry === undefined) throw new Error('no leadership');
  return codecs.leadership.decode(entry.value.toString(), entry.key);
}

async function until(holds: () => boolean, timeoutMs = 20_000): Promise<void> {
  const endMs = systemClock.now() + timeoutMs;
  while (!holds()) {
    if (systemClock.now() > endMs) throw new Error(`not so after ${timeoutMs} ms: ${holds.toString()}`);
    await systemClock.sleep(10);
  }
}

describe('a controller driven by hand', () => {
  beforeEach(async () => {
    await bed.create({ name: 'v1', controllers: [], legs: 1 });
    await bed.until('v1', 'made', (view) => view.phase === 'live');
  });

  it('hears of a member that fails before the engine has answered that its leg is made', async () => {
    let killed = false;
    const a = await hand('a', (engine) =>
      around(engine, 'basalt_leg_create', async () => {
        if (killed) return;
        killed = true;
        // Not awaited: a pass of the killed process never ends.
        void bed.kill('d1');
        await systemClock.sleep(50);
      }),
    );
    await a.controller.promote({ takeover: false });
    await write(a, 0, 1);
    expect(leadership().legs.every((leg) => leg.inSync.length === 1)).toBe(true);
  });

  it('lets go of the members it took when its promotion is ended before the others answered', async () => {
    const held = new Set<string>();
    const a = await hand('a', (engine) => {
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
    });
    bed.network.partition(a.engine, bed.node('d2').engine);
    const ended = new AbortController();
    const promotion = a.controller.promote({ takeover: false, signal: ended.signal });
    promotion.catch(() => {});
    await until(() => held.size === 1);
    ended.abort(new Error('enough'));
    await expect(promotion).rejects.toThrow();
    expect([...held]).toEqual([]);
  });

  it('is handed over at once while it waits for its replicas, and no longer holds the volume', async () => {
    const a = await hand('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    await bed.kill('d2');
    write(a, 0, 1).catch(() => {});
    await until(() => a.controller.state === 'promoting');
    const start = systemClock.now();
    expect(await a.controller.handOver()).toBe(false);
    expect(systemClock.now() - start).toBeLessThan(3_000);
    expect(a.controller.state).toBe('idle');
    expect(leadership()).toMatchObject({ controller: null, clean: false });
  });

  it('does not take a volume that changed hands since it wanted it', async () => {
    const [a, b, c] = [await hand('a'), await hand('b'), await hand('c')];
    await a.controller.promote({ takeover: false });
    const seenEpoch = leadership().epoch;
    await b.controller.promote({ takeover: true, seenEpoch });
    await expect(c.controller.promote({ takeover: true, seenEpoch })).rejects.toMatchObject({ code: 'VOLUME_LED' });
    expect(leadership()).toMatchObject({ controller: 'b', epoch: 2 });
    await write(b, 0, 2);
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
