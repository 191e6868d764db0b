// SPDX-License-Identifier: Apache-2.0
//
// Goal: members of a leg with parity are exchanged while they serve, and its set never becomes smaller by that.
// Method: the worker of one volume with one leg of 2+1, over an engine that records what it is asked for.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EngineEvent } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import type { Leadership, ReplicaPlacement, VolumeObject } from '../model/objects.js';
import { MembershipWorker, type WorkerOptions } from './membership-worker.js';
import { quietLog } from './testing/cluster-bed.js';

const patientMs = 60_000;
const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const [volumeId, a, b, c, d, e] = [uuid(1), uuid(10), uuid(11), uuid(12), uuid(13), uuid(14)];
const holder = { controller: 'c1', instance: uuid(5) };
const placed = (replica: string, leaving = false, node = `n-${replica}`): ReplicaPlacement => ({
  replica,
  disk: replica.replace('-4000-', '-4001-'),
  node,
  ...(leaving ? { leaving } : {}),
});
const member = (replica: string) => ({ replica, incarnation: 'i' });

class Bed {
  readonly worker: MembershipWorker;
  /** Calls about members, in order: method and member. */
  readonly asked: string[] = [];
  /** The sets, as they were swapped in. */
  readonly sets: string[][] = [];
  readonly ended: string[] = [];
  readonly refused = new Set<string>();
  /** What happens while the engine carries out a method, before it answers. */
  readonly during = new Map<string, () => void>();
  /** What replicas were to keep, and which. */
  readonly notes: string[] = [];
  /** Replicas that do not keep it. */
  readonly forgetful = new Set<string>();
  /** Replicas whose nodes do not answer. */
  readonly away = new Set<string>();
  replicas: ReplicaPlacement[] = [];
  known: Leadership;
  readonly #members = new Map([a, b, c].map((replica) => [`m-${replica}`, { leg: 0, replica }]));

  constructor(inSync: readonly string[], replicas: ReplicaPlacement[]) {
    this.replicas = replicas;
    const legs = [{ inSync: inSync.map(member) }];
    this.known = { format: 1, volumeId, epoch: 3, ...holder, clean: false, leaseMs: 300, needs: 2, legs };
    const engine = {
      rpc: async (
        method: string,
        params: { member?: string; name?: string; instead_of?: string },
      ): Promise<unknown> => {
        if (method === 'basalt_member_attach') {
          if ([...this.away].some((replica) => params.name?.includes(replica) === true)) throw new Error('away');
          return { incarnation: 'i' };
        }
        const { member: name = '', instead_of: instead } = params;
        const nameOf = (at: string): string => this.#members.get(at)?.replica ?? at;
        if (name !== '') {
          const what = method.replace('basalt_leg_', '').replace('_member', '');
          this.asked.push(`${what} ${nameOf(name)}${instead === undefined ? '' : ` for ${nameOf(instead)}`}`);
        }
        this.during.get(method)?.();
        if (this.refused.has(method)) throw new Error('refused');
        return true;
      },
    };
    const assembly = {
      epoch: 3,
      legName: () => 'leg',
      legIndex: () => 0,
      memberName: ({ replica }: { replica: string }, suffix: string) => `m-${replica}-${suffix}`,
      memberNamed: (name: string) => this.#members.get(name) ?? null,
      nameOfMember: (replica: string) => [...this.#members].find(([, at]) => at.replica === replica)?.[0] ?? null,
      adopt: ({ name, leg, replica }: { name: string; leg: number; replica: string }) =>
        this.#members.set(name, { leg, replica }),
      detach: async (name: string) => this.#members.delete(name),
    };
    const bed = this;
    const register = {
      get known() {
        return bed.known;
      },
      swap: async (plan: (present: Leadership) => Leadership | null): Promise<boolean> => {
        const next = plan(bed.known);
        if (next !== null) {
          bed.known = next;
          bed.sets.push(next.legs[0]?.inSync.map(({ replica }) => replica) ?? []);
        }
        return true;
      },
    };
    const answer = (what: string, members: readonly string[]): { failed: object[]; fenced: boolean } => {
      this.notes.push(`${what} ${members.join(',')}`);
      return {
        failed: [...this.forgetful].filter((each) => members.includes(each)).map((replica) => ({ leg: 0, replica })),
        fenced: false,
      };
    };
    const setNow = (): string[] => bed.known.legs[0]?.inSync.map(({ replica }) => replica) ?? [];
    const keeper = {
      keep: async () => answer('keep', setNow()),
      announce: async (_: unknown, { replica }: { replica: string }) => answer(`announce ${replica} to`, setNow()),
    };
    this.worker = new MembershipWorker({
      context: { engine, clock: systemClock, log: quietLog },
      volume: () =>
        ({
          id: volumeId,
          name: 'v',
          erasure: { data: 2, parity: 1 },
          legs: [{ replicas: this.replicas }],
        }) as unknown as VolumeObject,
      assembly,
      register,
      keeper,
      holder,
      resolve: () => ({ traddr: '127.0.0.1', trsvcid: '1', linkNqn: null }),
      attachTimeoutMs: patientMs,
      rejoinMs: 10,
      onFenced: (why: string) => this.ended.push(why),
      onStuck: (why: string) => this.ended.push(why),
      onChange: () => {},
    } as unknown as WorkerOptions);
    this.worker.start();
  }

  tell(method: string, replica: string): void {
    const name = [...this.#members].find(([, at]) => at.replica === replica)?.[0] ?? '';
    this.worker.handle({ method, params: { leg: 'leg', member: name } } as unknown as EngineEvent);
  }

  async eventually(what: string, holds: () => boolean): Promise<void> {
    for (const endMs = systemClock.now() + patientMs; !holds(); await systemClock.sleep(1))
      if (systemClock.now() > endMs) throw new Error(`never: ${what}; asked: ${this.asked.join(', ')}`);
  }

  asks(call: string): Promise<void> {
    return this.eventually(call, () => this.asked.includes(call));
  }
}

let bed: Bed;

describe('a leg with parity', { timeout: 2 * patientMs }, () => {
  beforeEach(() => {
    bed = new Bed([a, b, c], [placed(a, true), placed(b), placed(c), placed(d)]);
  });
  afterEach(() => bed.worker.stop());

  it('exchanges a member for its successor when that is equal, by one swap', async () => {
    await bed.asks(`add ${d} for ${a}`);
    expect(bed.sets).toEqual([]);
    bed.tell('leg_member_copied', d);
    await bed.asks(`remove ${a}`);
    expect(bed.sets).toEqual([[b, c, d]]);
    expect(bed.asked).toEqual([`add ${d} for ${a}`, `commit ${d}`, `remove ${a}`]);
    expect(bed.ended).toEqual([]);
  });

  it('goes back to the old one when the new one fails before the engine knows that it is in', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.refused.add('basalt_leg_commit_member');
    bed.tell('leg_member_copied', d);
    await bed.asks(`abandon ${d}`);
    expect(bed.sets).toEqual([
      [b, c, d],
      [b, c, a],
    ]);
    expect(bed.asked).not.toContain(`remove ${a}`);
  });

  it('takes the successor in the ordinary way when the old one fails meanwhile', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.tell('leg_member_failed', a);
    await bed.asks(`remove ${a}`);
    expect(bed.sets).toEqual([[b, c]]);
    bed.tell('leg_member_copied', d);
    await bed.asks(`commit ${d}`);
    expect(bed.sets).toEqual([
      [b, c],
      [b, c, d],
    ]);
    expect(bed.asked.filter((call) => call === `remove ${a}`)).toHaveLength(1);
  });

  it('takes its place at once when the old one fails while the new one is equal already', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.tell('leg_member_copied', d);
    bed.tell('leg_member_failed', a);
    await bed.asks(`remove ${a}`);
    expect(bed.sets).toEqual([[b, c, d]]);
    expect(bed.asked.filter((call) => call === `remove ${a}`)).toHaveLength(1);
  });

  it('goes back to the old one when the new one fails while the engine is told that it is in', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.during.set('basalt_leg_commit_member', () => bed.tell('leg_member_failed', d));
    bed.tell('leg_member_copied', d);
    await bed.asks(`remove ${d}`);
    expect(bed.sets).toEqual([
      [b, c, d],
      [b, c, a],
    ]);
    expect(bed.asked).not.toContain(`remove ${a}`);
    expect(bed.asked).not.toContain(`abandon ${d}`);
  });

  it('does not go back to one that is being deleted already', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.refused.add('basalt_leg_commit_member');
    bed.tell('leg_member_copied', d);
    // The first set is in the store: whoever plans finds that the old one may be dropped.
    bed.during.set('basalt_leg_commit_member', () => {
      bed.replicas = [placed(b), placed(c), placed(d)];
    });
    await bed.asks(`abandon ${d}`);
    await bed.asks(`remove ${a}`);
    expect(bed.sets).toEqual([
      [b, c, d],
      [b, c],
    ]);
    expect(bed.ended).toEqual([]);
  });

  it('gives up a successor that is called off, and keeps the old one', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.replicas = [placed(a), placed(b), placed(c), { ...placed(d), leaving: true }];
    bed.worker.poke();
    await bed.asks(`abandon ${d}`);
    expect(bed.sets).toEqual([]);
  });
});

describe('who is in sync', { timeout: 2 * patientMs }, () => {
  beforeEach(() => {
    bed = new Bed([a, b, c], [placed(a, true), placed(b), placed(c), placed(d)]);
  });
  afterEach(() => bed.worker.stop());

  it('is kept by the members before the engine goes on without one', async () => {
    bed.during.set('basalt_leg_remove_member', () => bed.notes.push('the engine goes on'));
    bed.tell('leg_member_failed', a);
    await bed.asks(`remove ${a}`);
    expect(bed.notes.slice(0, 2)).toEqual([`keep ${b},${c}`, 'the engine goes on']);
  });

  it('is announced before one is let in, and kept by it before the engine counts it', async () => {
    bed.during.set('basalt_leg_commit_member', () => bed.notes.push('the engine counts it'));
    await bed.asks(`add ${d} for ${a}`);
    bed.tell('leg_member_copied', d);
    await bed.asks(`remove ${a}`);
    expect(bed.notes).toEqual([`announce ${d} to ${a},${b},${c}`, `keep ${b},${c},${d}`, 'the engine counts it']);
  });

  it('does not change where nobody can be told who comes', async () => {
    await bed.asks(`add ${d} for ${a}`);
    for (const replica of [a, b, c]) bed.forgetful.add(replica);
    bed.tell('leg_member_copied', d);
    await bed.eventually('it ended', () => bed.ended.length > 0);
    expect(bed.sets).toEqual([]);
  });

  it('lacks a new member that does not keep it', async () => {
    await bed.asks(`add ${d} for ${a}`);
    bed.forgetful.add(d);
    bed.tell('leg_member_copied', d);
    await bed.asks(`abandon ${d}`);
    expect(bed.asked).not.toContain(`commit ${d}`);
    expect(bed.known.legs[0]?.inSync.map(({ replica }) => replica).sort()).toEqual([a, b, c].sort());
  });
});

describe('two successors of a leg with parity', { timeout: 2 * patientMs }, () => {
  afterEach(() => bed.worker.stop());

  it('come one after the other', async () => {
    bed = new Bed([a, b, c], [placed(a, true), placed(b, true), placed(c), placed(d), placed(e)]);
    await bed.eventually('one is added', () => bed.asked.length > 0);
    const [first, second] = bed.asked[0]?.startsWith(`add ${d}`) === true ? [d, e] : [e, d];
    await bed.asks(`add ${first} for ${a}`);
    bed.tell('leg_member_copied', first);
    await bed.asks(`add ${second} for ${b}`);
    expect(bed.asked.slice(0, 4)).toEqual([
      `add ${first} for ${a}`,
      `commit ${first}`,
      `remove ${a}`,
      `add ${second} for ${b}`,
    ]);
    bed.tell('leg_member_copied', second);
    await bed.asks(`remove ${b}`);
    expect(bed.sets.every((set) => set.length === 3)).toBe(true);
  });

  it('take over from those on their own nodes, whoever comes first', async () => {
    for (const first of [d, e]) {
      bed = new Bed(
        [b, a, c],
        [placed(a, true, 'n1'), placed(b, true, 'n2'), placed(c), placed(d, false, 'n1'), placed(e)],
      );
      // The other one of the two comes when its forerunner has its place.
      bed.away.add(first === d ? e : d);
      await bed.eventually('one is added', () => bed.asked.length > 0);
      if (first === d) expect(bed.asked).toEqual([`add ${d} for ${a}`]);
      else expect(bed.asked[0]).toContain(`add ${e} for `);
      bed.away.clear();
      bed.tell('leg_member_copied', first);
      const second = first === d ? e : d;
      await bed.eventually('the other one is added', () => bed.asked.some((call) => call.startsWith(`add ${second}`)));
      bed.tell('leg_member_copied', second);
      await bed.eventually('both are in', () => bed.known.legs[0]?.inSync.length === 3 && bed.sets.length === 2);
      expect(bed.sets.every((set) => !(set.includes(a) && set.includes(d)))).toBe(true);
      if (first === d) await bed.worker.stop();
    }
  });

  it('do not take an empty place while one of their own nodes is there', async () => {
    bed = new Bed([a, c], [placed(a, true, 'n1'), placed(c), placed(d, false, 'n1'), placed(e)]);
    await bed.asks(`add ${d} for ${a}`);
    await bed.asks(`add ${e}`);
  });

  it('exchange what is in the set and placed no more', async () => {
    bed = new Bed([a, b, c], [placed(b), placed(c), placed(d)]);
    await bed.asks(`add ${d} for ${a}`);
    bed.tell('leg_member_copied', d);
    await bed.asks(`remove ${a}`);
    expect(bed.sets).toEqual([[b, c, d]]);
  });

  it('fill an empty place first', async () => {
    bed = new Bed([a, c], [placed(a, true), placed(c), placed(d), placed(e)]);
    await bed.eventually('one is added', () => bed.asked.length > 0);
    const first = bed.asked[0] === `add ${d}` ? d : e;
    expect(bed.asked[0]).toBe(`add ${first}`);
    bed.tell('leg_member_copied', first);
    await bed.asks(`add ${first === d ? e : d} for ${a}`);
  });
});
