// SPDX-License-Identifier: Apache-2.0
// The right to drive a volume: who gets it, and what becomes of swaps whose answer is lost. The fake disk nodes and the
// memory store are shared; controllers are driven by hand.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';
import type { Store, Txn } from '../store/store.js';
import { replicaResolver } from './controller-agent.js';
import { StoreLink } from './store-link.js';
import { bedTiming, ClusterBed, quietLog } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';
import { VolumeController } from './volume-controller.js';

let bed: ClusterBed;
let links: StoreLink[];

beforeEach(async () => {
  bed = new ClusterBed();
  links = [];
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await bed.create({ name: 'v1', controllers: [], legs: 2 });
  await bed.until('v1', 'made', (view) => view.phase === 'live');
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

/** A controller that does nothing by itself. */
async function hand(name: string, wrap: (store: Store) => Store = (store) => store): Promise<Hand> {
  const engine = new FakeEngine(name, bed.network);
  const store = wrap(bed.connect());
  const link = new StoreLink({ store, clock: systemClock, log: quietLog, leaseTtlSeconds: 2 });
  links.push(link);
  await link.open(AbortSignal.timeout(5_000));
  const volume = link.state.volumeByName('v1');
  if (volume === null) throw new Error('no volume');
  const controller = new VolumeController({
    context: { engine, clock: systemClock, random: systemRandom, log: quietLog },
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

const touchesLeadership = (txn: Txn): boolean => txn.changes.some((change) => change.key.startsWith(keys.leaderships));

describe('leadership', () => {
  it('goes to exactly one of two controllers that promote at once', async () => {
    for (let round = 0; round < 10; round++) {
      const [a, b] = [await hand(`a${round}`), await hand(`b${round}`)];
      const outcomes = await Promise.allSettled([a, b].map((each) => each.controller.promote({ takeover: true })));
      const active = [a, b].filter((each) => each.controller.state === 'active');
      const { epoch, controller } = leadership();
      // Both may have taken an epoch, one after the other: then the earlier one must notice by its next write.
      const holder = active.find((each) => each.controller.view.epoch === epoch);
      expect(outcomes.some((outcome) => outcome.status === 'fulfilled')).toBe(true);
      expect(holder).toBeDefined();
      for (const each of active.filter((entry) => entry !== holder)) await expect(write(each, 0, 1)).rejects.toThrow();
      await write(holder as Hand, 0, 2);
      expect([`a${round}`, `b${round}`]).toContain(controller);
      for (const each of [a, b]) await each.controller.demote('end of round');
    }
  });

  it('is refused while someone holds it, unless a takeover is asked for', async () => {
    const [a, b] = [await hand('a'), await hand('b')];
    await a.controller.promote({ takeover: false });
    await expect(b.controller.promote({ takeover: false })).rejects.toMatchObject({ code: 'VOLUME_LED' });
    expect(leadership()).toMatchObject({ epoch: 1, controller: 'a', clean: false });
    await b.controller.promote({ takeover: true });
    expect(leadership()).toMatchObject({ epoch: 2, controller: 'b' });
    await expect(write(a, 0, 1)).rejects.toThrow();
    await write(b, 0, 1);
  });

  it.each<TxnFault>(['lost-after', 'lost-before'])('survives an answer that is %s at every swap', async (fault) => {
    let faults = 0;
    const judge = (txn: Txn): TxnFault => {
      if (!touchesLeadership(txn)) return 'pass';
      faults++;
      // A swap that did not happen is sent again, and must get through then.
      return fault === 'lost-after' || faults % 2 === 1 ? fault : 'pass';
    };
    const a = await hand('a', (store) => faultyStore(store, judge));
    await a.controller.promote({ takeover: false });
    expect(leadership()).toMatchObject({ epoch: 1, controller: 'a', clean: false });
    await write(a, 0, 1);
    await bed.kill('d1');
    await write(a, 0, 2);
    await until(() => leadership().legs.every((leg) => leg.inSync.length === 1));
    expect(await a.controller.handOver()).toBe(true);
    expect(leadership()).toMatchObject({ epoch: 1, controller: null, clean: true });
    expect(faults).toBeGreaterThanOrEqual(4);
  });

  it.each([
    { controllers: ['a', 'b'], granted: { epoch: 2, controller: 'b', clean: true } },
    { controllers: ['a'], granted: { epoch: 1, controller: null, clean: true } },
  ])(
    'is granted to b, or to nobody, when the controllers have become $controllers',
    async ({ controllers, granted }) => {
      const a = await hand('a');
      await a.controller.promote({ takeover: false });
      const volume = links.at(-1)?.state.volumeByName('v1') ?? null;
      if (volume === null) throw new Error('no volume');
      const handedOver = a.controller.handOver('b');
      a.controller.update({ ...volume, controllers }, leadership());
      expect(await handedOver).toBe(true);
      expect(leadership()).toMatchObject(granted);
    },
  );

  it('does not let a write through before the swap that removes the member it missed', async () => {
    const order: string[] = [];
    const a = await hand('a', (store) =>
      faultyStore(store, async (txn): Promise<TxnFault> => {
        if (!touchesLeadership(txn)) return 'pass';
        await systemClock.sleep(50);
        order.push('swap');
        return 'pass';
      }),
    );
    await a.controller.promote({ takeover: false });
    await bed.kill('d2');
    order.length = 0;
    await write(a, 0, 3).then(() => order.push('acknowledged'));
    expect(order[0]).toBe('swap');
    expect(order).toContain('acknowledged');
  });

  it('is not given up when a member returns, and lets it in by a swap after the copy', async () => {
    const a = await hand('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    await write(a, 5, 4);
    const before = leadership();
    await bed.startDiskNode('d1');
    await until(() => {
      a.controller.poke();
      return leadership().legs.every((leg) => leg.inSync.length === 2);
    });
    const after = leadership();
    expect(after.legs.every((leg) => leg.inSync.length === 2)).toBe(true);
    expect(after.epoch).toBe(before.epoch);
    // Its new process is on record: what it held in its cache before is gone.
    const incarnations = new Set(after.legs.flatMap((leg) => leg.inSync.map((entry) => entry.incarnation)));
    expect(incarnations.size).toBe(2);
  });

  it('outwaits the read leases of a controller whose members were not all taken over', async () => {
    const a = await hand('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    const b = await hand('b');
    const start = systemClock.now();
    await b.controller.promote({ takeover: true });
    expect(systemClock.now() - start).toBeGreaterThanOrEqual(leadership().leaseMs * 1.1);
    expect(leadership().legs.every((leg) => leg.inSync.length === 1)).toBe(true);
  });

  it('is refused when a leg has no replica that can be reached, and changes no set', async () => {
    const before = leadership();
    await bed.kill('d1');
    await bed.kill('d2');
    const a = await hand('a');
    await expect(a.controller.promote({ takeover: false })).rejects.toMatchObject({ code: 'VOLUME_UNAVAILABLE' });
    expect(leadership().legs).toEqual(before.legs);
    expect(leadership().clean).toBe(true);
  });
});
