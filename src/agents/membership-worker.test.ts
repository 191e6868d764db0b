// SPDX-License-Identifier: Apache-2.0
//
// Goal: a replica that nobody wants any more is not copied, whenever that was said; a set that none of its members keeps does
// not stay in the store.
// Method: the worker of one volume with one leg, over an engine that attaches, and members that keep, when the test says so.

import { afterEach, describe, expect, it } from 'vitest';
import type { EngineEvent } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import type { Leadership, ReplicaPlacement, VolumeObject } from '../model/objects.js';
import { MembershipWorker, type WorkerOptions } from './membership-worker.js';
import { quietLog } from './testing/cluster-bed.js';

const patientMs = 60_000;
const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const [volumeId, old, fresh] = [uuid(1), uuid(10), uuid(11)];
const holder = { controller: 'c1', instance: uuid(5) };
const placed = (replica: string, over: Partial<ReplicaPlacement> = {}): ReplicaPlacement => ({
  replica,
  disk: uuid(replica === old ? 20 : 21),
  node: replica === old ? 'd1' : 'd2',
  ...over,
});

const leadership: Leadership = {
  format: 1,
  volumeId,
  epoch: 3,
  ...holder,
  clean: false,
  leaseMs: 300,
  legs: [{ inSync: [{ replica: old, incarnation: 'i' }] }],
};

class Bed {
  readonly worker: MembershipWorker;
  /** What the engine was asked for, in order. */
  readonly asked: string[] = [];
  readonly ended: string[] = [];
  #replicas = [placed(old, { leaving: true }), placed(fresh)];
  #attach: (() => void) | null = null;
  readonly #attached = new Set<string>();

  constructor() {
    const engine = {
      rpc: async (method: string): Promise<unknown> => {
        this.asked.push(method);
        if (method !== 'basalt_member_attach') return true;
        await new Promise<void>((resolve) => {
          this.#attach = resolve;
        });
        return { incarnation: 'i' };
      },
    };
    const assembly = {
      epoch: 3,
      legName: () => 'leg',
      memberName: (_: object, suffix: string) => `m-${suffix}`,
      nameOfMember: (replica: string) => (this.#attached.has(replica) ? 'm' : null),
      adopt: ({ replica }: { replica: string }) => this.#attached.add(replica),
      detach: async () => this.#attached.delete(fresh),
    };
    this.worker = new MembershipWorker({
      context: { engine, clock: systemClock, log: quietLog },
      volume: () => ({ id: volumeId, name: 'v', legs: [{ replicas: this.#replicas }] }) as unknown as VolumeObject,
      assembly,
      register: { known: leadership },
      keeper: { keep: async () => ({ failed: [], fenced: false }) },
      holder,
      setsBefore: leadership.legs,
      resolve: () => ({ traddr: '127.0.0.1', trsvcid: '1', linkNqn: null }),
      attachTimeoutMs: patientMs,
      rejoinMs: 10,
      onFenced: (why: string) => this.ended.push(why),
      onStuck: (why: string) => this.ended.push(why),
      onChange: () => {},
    } as unknown as WorkerOptions);
    this.worker.start();
  }

  get isAttaching(): boolean {
    return this.#attach !== null;
  }

  attached(): void {
    this.#attach?.();
  }

  /** As a job does that is cancelled. */
  callOff(): void {
    this.#replicas = [placed(old), placed(fresh, { leaving: true })];
    this.worker.poke();
  }
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (const endMs = systemClock.now() + patientMs; !holds(); await systemClock.sleep(1))
    if (systemClock.now() > endMs) throw new Error(`never: ${what}`);
}

describe('a replica that is to join', { timeout: 2 * patientMs }, () => {
  let bed: Bed;

  afterEach(() => bed.worker.stop());

  it.each([
    ['while it is being attached', true],
    ['while it is copied', false],
  ])('is given up when that is called off %s', async (_, early) => {
    bed = new Bed();
    await eventually('it is being attached', () => bed.isAttaching);
    const count = (method: string): number => bed.asked.filter((each) => each === method).length;
    if (early) bed.callOff();
    // Whoever was woken has looked.
    for (let turns = 0; turns < 20; turns++) await new Promise((resolve) => setImmediate(resolve));
    bed.attached();
    if (!early) {
      await eventually('it is copied', () => count('basalt_leg_add_member') === 1);
      bed.callOff();
    }
    await eventually('it is given up', () => count('basalt_leg_abandon_member') === 1);
    await eventually('it is let go', () => !bed.worker.joining.has(fresh));
    expect(count('basalt_member_attach')).toBe(1);
    expect(bed.ended).toEqual([]);
  });
});

/** The worker of a volume whose leg has members a and b, with c that joined since, and what the store holds of it. */
function servedBed(
  keeps: () => readonly string[],
  before: Leadership['legs'],
  present: Leadership,
  placed: () => readonly string[] = () => ['a', 'b'],
) {
  let known = present;
  const ended: string[] = [];
  const released: string[] = [];
  const assembly = {
    epoch: 3,
    legIndex: () => 0,
    legName: () => 'leg',
    memberNamed: (name: string) => ({ leg: 0, replica: name }),
    nameOfMember: (replica: string) => replica,
    detach: async () => {},
  };
  const fails = () =>
    (known.legs[0]?.inSync ?? []).filter(({ replica }) => !keeps().includes(replica)).map(({ replica }) => replica);
  const keep = async () => ({ failed: fails().map((replica) => ({ leg: 0, replica })), fenced: false });
  const register = {
    get known() {
      return known;
    },
    versioned: null,
    swap: async (plan: (now: Leadership) => Leadership | null, _signal: AbortSignal) => {
      known = plan(known) ?? known;
      return true;
    },
  };
  const rpc = async (method: string, { member }: { member: string }) => released.push(`${method} ${member}`);
  const worker = new MembershipWorker({
    context: { engine: { rpc }, clock: systemClock, log: quietLog },
    volume: () =>
      ({
        id: volumeId,
        name: 'v',
        legs: [{ replicas: placed().map((replica) => ({ replica })) }],
      }) as unknown as VolumeObject,
    assembly,
    register,
    keeper: { begin: keep, keep },
    holder,
    setsBefore: before,
    onFenced: (why: string) => ended.push(why),
    onStuck: (why: string) => ended.push(why),
    onChange: () => {},
  } as unknown as WorkerOptions);
  const fail = (member: string): void =>
    worker.handle({
      method: 'leg_member_failed',
      params: { leg: 'leg', member, reason: '', sequence: 1 },
    } as EngineEvent);
  const inSync = () => known.legs[0]?.inSync.map(({ replica }) => replica);
  return { worker, ended, released, fail, inSync, register };
}

const patience = (): AbortSignal => AbortSignal.timeout(patientMs);
const setOf = (...replicas: string[]): Leadership['legs'] => [
  { inSync: replicas.map((replica) => ({ replica, incarnation: 'i' })) },
];

describe('a set that none of its members is there to keep', { timeout: 2 * patientMs }, () => {
  it('is swapped back to the one before: who left may be the only one who has everything', async () => {
    const both = setOf('a', 'b');
    let keeping = ['a', 'b'];
    const served = servedBed(() => keeping, both, { ...leadership, legs: both });
    await served.worker.begin(patience());
    served.worker.start();
    // The controller stood still: a gave up the connection, and b's machine lost its cache.
    keeping = [];
    served.fail('a');
    await eventually('it gives up', () => served.ended.length > 0);
    await served.worker.stop();
    expect(served.inSync()).toEqual(['a', 'b']);
    expect(served.released).toEqual([]);
  });

  it('goes back to the one that was last kept, not to the one that the controller began with', async () => {
    const both = setOf('a', 'b');
    let keeping = ['a', 'b'];
    const served = servedBed(() => keeping, both, { ...leadership, legs: both });
    await served.worker.begin(patience());
    served.worker.start();
    keeping = ['b'];
    served.fail('a');
    await eventually('a is let go', () => served.released.length > 0);
    keeping = [];
    served.fail('b');
    await eventually('it gives up', () => served.ended.length > 0);
    await served.worker.stop();
    expect(served.inSync()).toEqual(['b']);
  });

  it('is swapped back when a takeover made it and nobody was served yet', async () => {
    const served = servedBed(() => [], setOf('a', 'b'), { ...leadership, legs: setOf('b') });
    await expect(served.worker.begin(patience())).rejects.toThrow('does not keep who is in sync');
    await served.worker.stop();
    expect(served.inSync()).toEqual(['a', 'b']);
  });

  it('stays where who left has been given up', async () => {
    const now = { ...leadership, legs: setOf('b') };
    const served = servedBed(
      () => [],
      setOf('a', 'b'),
      now,
      () => ['b'],
    );
    await expect(served.worker.begin(patience())).rejects.toThrow('does not keep who is in sync');
    expect(served.inSync()).toEqual(['b']);
  });

  it('is not waited for when the promotion is given up', async () => {
    const served = servedBed(() => [], setOf('a', 'b'), { ...leadership, legs: setOf('b') });
    served.register.swap = async (_, signal) =>
      new Promise((_resolve, reject) => {
        if (signal.aborted) reject(signal.reason);
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    const given = new AbortController();
    const beginning = served.worker.begin(given.signal);
    given.abort(new Error('given up'));
    await expect(beginning).rejects.toThrow('given up');
  });
});
