// SPDX-License-Identifier: Apache-2.0
// The right to drive a volume: who gets it, and what becomes of swaps whose answer is lost. The fake disk nodes and the
// memory store are shared; controllers are driven by hand.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readState } from '../api/read-state.js';
import { systemClock } from '../env/clock.js';
import { keys } from '../model/keys.js';
import type { Txn } from '../store/store.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';
import { type Hand, Hands, write } from './testing/hand.js';
import { eventually } from './testing/waiting.js';

let bed: ClusterBed;
let hands: Hands;

beforeEach(async () => {
  bed = new ClusterBed();
  hands = new Hands(bed);
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await bed.create({ name: 'v1', controllers: [], legs: 2 });
  await bed.until('v1', 'made', (view) => view.phase === 'live');
});

afterEach(async () => {
  await hands.close();
  await bed.close();
});

const touchesLeadership = (txn: Txn): boolean => txn.changes.some((change) => change.key.startsWith(keys.leaderships));

describe('leadership', () => {
  it('goes to exactly one of two controllers that promote at once', async () => {
    for (let round = 0; round < 10; round++) {
      const [a, b] = [await hands.start(`a${round}`), await hands.start(`b${round}`)];
      const outcomes = await Promise.allSettled([a, b].map((each) => each.controller.promote({ takeover: true })));
      const active = [a, b].filter((each) => each.controller.state === 'active');
      const { epoch, controller } = hands.leadership();
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
    const [a, b] = [await hands.start('a'), await hands.start('b')];
    await a.controller.promote({ takeover: false });
    await expect(b.controller.promote({ takeover: false })).rejects.toMatchObject({ code: 'VOLUME_LED' });
    expect(hands.leadership()).toMatchObject({ epoch: 1, controller: 'a', clean: false });
    await b.controller.promote({ takeover: true });
    expect(hands.leadership()).toMatchObject({ epoch: 2, controller: 'b' });
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
    const a = await hands.start('a', { store: (store) => faultyStore(store, judge) });
    await a.controller.promote({ takeover: false });
    expect(hands.leadership()).toMatchObject({ epoch: 1, controller: 'a', clean: false });
    await write(a, 0, 1);
    await bed.kill('d1');
    await write(a, 0, 2);
    await eventually('one member is left', () => hands.leadership().legs.every((leg) => leg.inSync.length === 1));
    expect(await a.controller.handOver()).toBe(true);
    expect(hands.leadership()).toMatchObject({ epoch: 1, controller: null, clean: true });
    expect(faults).toBeGreaterThanOrEqual(4);
  });

  it.each([
    { controllers: ['a', 'b'], granted: { epoch: 2, controller: 'b', clean: true } },
    { controllers: ['a'], granted: { epoch: 1, controller: null, clean: true } },
  ])(
    'is granted to b, or to nobody, when the controllers have become $controllers',
    async ({ controllers, granted }) => {
      const a = await hands.start('a');
      await a.controller.promote({ takeover: false });
      const volume = (await readState(bed.server.connect())).state.volumeByName('v1');
      if (volume === null) throw new Error('no volume');
      const handedOver = a.controller.handOver('b');
      a.controller.update({ ...volume, controllers }, hands.leadership());
      expect(await handedOver).toBe(true);
      expect(hands.leadership()).toMatchObject(granted);
    },
  );

  it('does not let a write through before the swap that removes the member it missed', async () => {
    const order: string[] = [];
    const slow = async (txn: Txn): Promise<TxnFault> => {
      if (!touchesLeadership(txn)) return 'pass';
      await systemClock.sleep(50);
      order.push('swap');
      return 'pass';
    };
    const a = await hands.start('a', { store: (store) => faultyStore(store, slow) });
    await a.controller.promote({ takeover: false });
    await bed.kill('d2');
    order.length = 0;
    await write(a, 0, 3).then(() => order.push('acknowledged'));
    expect(order[0]).toBe('swap');
    expect(order).toContain('acknowledged');
  });

  it('is not given up when a member returns, and lets it in by a swap after the copy', async () => {
    const a = await hands.start('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    await write(a, 5, 4);
    const before = hands.leadership();
    await bed.startDiskNode('d1');
    await eventually('it is back', () => {
      a.controller.poke();
      return hands.leadership().legs.every((leg) => leg.inSync.length === 2);
    });
    const after = hands.leadership();
    expect(after.legs.every((leg) => leg.inSync.length === 2)).toBe(true);
    expect(after.epoch).toBe(before.epoch);
    // Its new process is on record: what it held in its cache before is gone.
    const incarnations = new Set(after.legs.flatMap((leg) => leg.inSync.map((entry) => entry.incarnation)));
    expect(incarnations.size).toBe(2);
  });

  it('outwaits the read leases of a controller whose members were not all taken over', async () => {
    const a = await hands.start('a');
    await a.controller.promote({ takeover: false });
    await bed.kill('d1');
    const b = await hands.start('b');
    const start = systemClock.now();
    await b.controller.promote({ takeover: true });
    expect(systemClock.now() - start).toBeGreaterThanOrEqual(hands.leadership().leaseMs * 1.1);
    expect(hands.leadership().legs.every((leg) => leg.inSync.length === 1)).toBe(true);
  });

  it('is refused when a leg has no replica that can be reached, and changes no set', async () => {
    const before = hands.leadership();
    await bed.kill('d1');
    await bed.kill('d2');
    const a = await hands.start('a');
    await expect(a.controller.promote({ takeover: false })).rejects.toMatchObject({ code: 'VOLUME_UNAVAILABLE' });
    expect(hands.leadership().legs).toEqual(before.legs);
    expect(hands.leadership().clean).toBe(true);
  });
});
