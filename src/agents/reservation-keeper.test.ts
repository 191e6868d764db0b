// SPDX-License-Identifier: Apache-2.0
//
// Goal: what hosts reserve is changed by whoever may drive the volume, once, whatever becomes of the store's answers.
// Method: a keeper over a memory store on virtual time, an engine that only notes what it is told, and faults.

import { describe, expect, it } from 'vitest';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemRandom } from '../env/random.js';
import { quiet, VirtualTime } from '../env/virtual-clock.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';
import { noReservation, type ReservationObject, type ReservationState } from '../model/reservations.js';
import { MemoryServer } from '../store/memory/memory-store.js';
import { ReservationKeeper, type Right } from './reservation-keeper.js';
import { StoreLink } from './store-link.js';
import { quietLog } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';

const volumeId = '00000000-0000-4000-8000-0000000000aa';
const hostA = '00000000-0000-4000-8000-00000000000a';
const hostB = '00000000-0000-4000-8000-00000000000b';
const answerMs = 5_000;

const leadership = (epoch: number): Leadership => ({
  format: 1,
  volumeId,
  epoch,
  controller: 'c1',
  instance: '00000000-0000-4000-8000-000000000001',
  clean: false,
  leaseMs: 300,
  legs: [],
});

/** What an engine would work out: one more registrant. */
function registered(before: ReservationState, host: string, change: string): ReservationState {
  const registrants = [...before.registrants, { host, key: '7' }];
  return { ...before, version: before.version + 1, generation: before.generation + 1, change, registrants };
}
const changeId = (n: number): string => `00000000-0000-4000-8000-0000000001${String(n).padStart(2, '0')}`;

class Bench {
  readonly time = new VirtualTime(0);
  readonly server = new MemoryServer(this.time.clock());
  /** What becomes of the next transactions that change the reservations. */
  readonly faults: TxnFault[] = [];
  swaps = 0;

  constructor() {
    this.lead(1);
  }

  lead(epoch: number): number {
    const value = codecs.leadership.encode(leadership(epoch));
    this.server.apply([{ kind: 'put', key: keys.leadership(volumeId), value }]);
    return this.server.get(keys.leadership(volumeId))?.modRevision ?? 0;
  }

  get stored(): ReservationObject | null {
    const entry = this.server.get(keys.reservation(volumeId));
    return entry === null || entry === undefined ? null : codecs.reservation.decode(entry.value.toString(), 'stored');
  }

  async pass(ms: number): Promise<void> {
    const endNs = this.time.nowNs + ms * 1e6;
    for (;;) {
      await quiet();
      if (this.time.fireOne()) continue;
      if (this.time.nowNs >= endNs) return;
      this.time.advanceTo(Math.min(this.time.nextNs() ?? endNs, endNs));
    }
  }

  async keeper(): Promise<Kept> {
    const clock = this.time.clock();
    const store = faultyStore(this.server.connect(), () => {
      this.swaps += 1;
      return this.faults.shift() ?? 'pass';
    });
    const link = new StoreLink({ store, clock, log: quietLog, leaseTtlSeconds: 2 });
    await link.open(new AbortController().signal);
    return new Kept(this, link);
  }
}

/** One controller's keeper, with what its engine was told. */
class Kept implements Right {
  readonly refused: string[] = [];
  readonly applied: ReservationState[] = [];
  readonly keeper: ReservationKeeper;
  revision: number | null;
  /** What asking the store about the right finds. */
  confirmed: (() => number | null) | null = null;

  constructor(bench: Bench, link: StoreLink) {
    this.revision = bench.server.get(keys.leadership(volumeId))?.modRevision ?? null;
    const engine = new FakeEngine();
    const context = { engine, clock: bench.time.clock(), random: systemRandom, log: quietLog };
    engine.rpc = (async (method: string, params: { retry: string }) => {
      if (method === 'basalt_ns_refuse_reservation') this.refused.push(params.retry);
      return true;
    }) as typeof engine.rpc;
    this.keeper = new ReservationKeeper({
      context,
      link,
      volumeId,
      right: () => this,
      apply: async () => void this.applied.push(this.keeper.current),
      answerMs,
    });
  }

  get rightRevision(): number | null {
    return this.revision;
  }

  async confirmRight(): Promise<number | null> {
    if (this.confirmed !== null) this.revision = this.confirmed();
    return this.revision;
  }

  ask(host: string, change: number, before = this.keeper.current): ReservationState {
    const next = registered(before, host, changeId(change));
    this.keeper.asked({ nqn: 'nqn.test:v', nsid: 1, host, next });
    return next;
  }
}

describe('what a host reserves', () => {
  it('is in the store before the engine is told that it is in force', async () => {
    const bench = new Bench();
    const kept = await bench.keeper();
    const next = kept.ask(hostA, 1);
    expect(kept.applied).toEqual([]);
    await bench.pass(10);
    expect(bench.stored).toMatchObject({ version: 1, change: changeId(1), registrants: next.registrants });
    expect(kept.applied).toHaveLength(1);
    expect(kept.applied[0]).toMatchObject({ version: 1, change: changeId(1) });
    kept.ask(hostB, 2);
    await bench.pass(10);
    expect(bench.stored?.registrants.map(({ host }) => host)).toEqual([hostA, hostB]);
    expect(kept.refused).toEqual([]);
  });

  it('is changed once, whether an answer was lost before or after the change was carried out', async () => {
    for (const fault of ['lost-before', 'lost-after'] as const) {
      const bench = new Bench();
      const kept = await bench.keeper();
      bench.faults.push(fault, fault);
      kept.ask(hostA, 1);
      await bench.pass(500);
      expect(bench.stored, fault).toMatchObject({ version: 1, change: changeId(1) });
      expect(bench.stored?.registrants, fault).toHaveLength(1);
      expect(kept.applied.at(-1), fault).toMatchObject({ version: 1 });
      expect(kept.refused, fault).toEqual([]);
    }
  });

  it('is changed once by a message that comes twice', async () => {
    const bench = new Bench();
    const kept = await bench.keeper();
    const before = kept.keeper.current;
    kept.ask(hostA, 1, before);
    kept.ask(hostA, 1, before);
    await bench.pass(100);
    kept.ask(hostA, 1, before);
    await bench.pass(100);
    expect(bench.stored).toMatchObject({ version: 1, generation: 1 });
    expect(kept.applied.at(-1)).toMatchObject({ version: 1 });
  });

  it('is left alone by a controller whose epoch another one has followed', async () => {
    const bench = new Bench();
    const [old, young] = [await bench.keeper(), await bench.keeper()];
    young.revision = bench.lead(2);
    old.confirmed = () => null;
    old.ask(hostA, 1);
    young.ask(hostB, 2);
    await bench.pass(200);
    expect(bench.stored?.registrants.map(({ host }) => host)).toEqual([hostB]);
    expect(old.refused).toEqual(['elsewhere']);
    expect(old.applied).toEqual([]);
    expect(young.refused).toEqual([]);
  });

  it('is not changed by the late request of a controller that was followed meanwhile', async () => {
    const bench = new Bench();
    const [old, young] = [await bench.keeper(), await bench.keeper()];
    let release = (): void => {};
    const held = new Promise<void>((go) => {
      release = go;
    });
    const store = faultyStore(bench.server.connect(), async (): Promise<TxnFault> => {
      await held;
      return 'pass';
    });
    const slow = new StoreLink({ store, clock: bench.time.clock(), log: quietLog, leaseTtlSeconds: 2 });
    await slow.open(new AbortController().signal);
    const stale = new Kept(bench, slow);
    stale.confirmed = () => null;
    stale.ask(hostA, 1);
    await bench.pass(10);
    young.revision = bench.lead(2);
    await young.keeper.lead(null, new AbortController().signal);
    expect(young.keeper.current).toEqual(noReservation);
    release();
    await bench.pass(100);
    expect(bench.stored).toBeNull();
    expect(stale.refused).toEqual(['elsewhere']);
    expect(old.applied).toEqual([]);
  });

  it('is changed although the leadership was, as long as it is still the same holder', async () => {
    const bench = new Bench();
    const kept = await bench.keeper();
    const revision = bench.lead(1);
    kept.confirmed = () => revision;
    kept.ask(hostA, 1);
    await bench.pass(100);
    expect(bench.stored).toMatchObject({ version: 1 });
    expect(kept.applied).toHaveLength(1);
  });

  it('may be tried again while the store is away, and is what it was until the store is back', async () => {
    const bench = new Bench();
    const kept = await bench.keeper();
    bench.server.away = true;
    kept.ask(hostA, 1);
    await bench.pass(answerMs - 100);
    expect(kept.refused).toEqual([]);
    await bench.pass(200);
    expect(kept.refused).toEqual(['later']);
    expect(kept.applied).toEqual([]);
    bench.server.away = false;
    await bench.pass(2_000);
    kept.ask(hostA, 2);
    await bench.pass(2_000);
    expect(bench.stored).toMatchObject({ version: 1, change: changeId(2) });
    expect(kept.applied.at(-1)).toMatchObject({ version: 1, change: changeId(2) });
  });

  it('goes to the engine as it is when that has asked on top of something older', async () => {
    const bench = new Bench();
    const [first, second] = [await bench.keeper(), await bench.keeper()];
    const before = first.keeper.current;
    first.ask(hostA, 1);
    await bench.pass(100);
    second.ask(hostB, 2, before);
    await bench.pass(100);
    expect(bench.stored?.registrants.map(({ host }) => host)).toEqual([hostA]);
    expect(second.applied.at(-1)).toMatchObject({ version: 1, change: changeId(1) });
    second.ask(hostB, 3);
    await bench.pass(100);
    expect(bench.stored?.registrants.map(({ host }) => host)).toEqual([hostA, hostB]);
  });

  it('is read anew by whoever takes the volume over, and waited for while the store is away', async () => {
    const bench = new Bench();
    const [first, second] = [await bench.keeper(), await bench.keeper()];
    first.ask(hostA, 1);
    await bench.pass(100);
    bench.server.away = true;
    let led = false;
    const leading = second.keeper.lead(null, new AbortController().signal).then(() => {
      led = true;
    });
    await bench.pass(3_000);
    expect(led).toBe(false);
    bench.server.away = false;
    await bench.pass(3_000);
    await leading;
    expect(second.keeper.current.registrants).toHaveLength(1);
    // What the last holder granted came with everything that was changed before: nothing has to be read.
    bench.server.away = true;
    const revision = bench.server.get(keys.leadership(volumeId))?.modRevision ?? 0;
    await second.keeper.lead({ value: leadership(1), revision }, new AbortController().signal);
  });
});
