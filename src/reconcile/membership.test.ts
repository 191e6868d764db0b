// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatVersion, type InSyncMember, type Leadership } from '../model/objects.js';
import {
  holds,
  isGranted,
  isTakenAsIs,
  outOfSync,
  planAccept,
  planDirectGrant,
  planGrant,
  planHandOver,
  planJoin,
  planNewEpoch,
  planRestore,
  planRetire,
  planShrink,
  planTakeover,
} from './membership.js';

const volumeId = '11111111-1111-4111-8111-111111111111';
const id = (leg: number, index: number): string => `22222222-2222-4222-8222-0000000${leg}000${index}`;

function leadership(legs: (InSyncMember[] | string[])[], over: Partial<Leadership> = {}): Leadership {
  return {
    format: formatVersion,
    volumeId,
    epoch: 5,
    controller: 'n1',
    instance: '33333333-3333-4333-8333-333333333333',
    clean: false,
    leaseMs: 300,
    legs: legs.map((leg) => ({
      inSync: leg.map((entry) => (typeof entry === 'string' ? { replica: entry, incarnation: 'i1' } : entry)),
    })),
    ...over,
  };
}

/** Of two data and one parity member, or two. */
const coded = (members: InSyncMember[] | string[]): Leadership => leadership([members], { needs: 2 });

describe('a leg with parity', () => {
  it('is taken over with as many members as it has data members, whatever became of their caches', () => {
    const { next, left, allTaken, doubtful } = planTakeover(coded(['a', 'b', 'c']), [
      taken(0, 'a'),
      taken(0, 'c', 'i2'),
    ]);
    expect(next?.legs[0]?.inSync).toEqual([
      { replica: 'a', incarnation: 'i1' },
      { replica: 'c', incarnation: 'i2' },
    ]);
    expect({ left, allTaken, doubtful }).toEqual({ left: [{ leg: 0, replica: 'b' }], allTaken: false, doubtful: [0] });
    expect(planTakeover(coded(['a', 'b', 'c']), [taken(0, 'a')])).toMatchObject({ next: null, empty: [0] });
  });

  it('waits for members that were not reached while too few are known to have kept their caches', () => {
    const members = ['a', 'b', 'c', 'd'];
    const plan = (...incarnations: string[]) =>
      planTakeover(
        coded(members),
        incarnations.map((incarnation, index) => taken(0, members[index] ?? '', incarnation)),
      );
    expect(plan('i1', 'i2', 'i2')).toMatchObject({ doubtful: [0], empty: [] });
    expect(plan('i1', 'i1', 'i2')).toMatchObject({ doubtful: [], empty: [] });
    expect(plan('i2', 'i2', 'i2', 'i2')).toMatchObject({ doubtful: [], empty: [] });
  });

  it('never shrinks below its data members', () => {
    const failed = (...replicas: string[]) => replicas.map((replica) => ({ leg: 0, replica }));
    expect(planShrink(coded(['a', 'b', 'c']), failed('a')).next?.legs[0]?.inSync).toHaveLength(2);
    expect(planShrink(coded(['a', 'b', 'c']), failed('a', 'b'))).toEqual({
      next: null,
      removed: [],
      last: failed('a', 'b'),
    });
  });

  it('exchanges a member for its successor in one swap, and never has fewer members than before', () => {
    const placed = (...leaving: string[]) => [
      {
        replicas: ['a', 'b', 'c', 'd'].map((replica) => ({
          replica,
          ...(leaving.includes(replica) ? { leaving: true as const } : {}),
        })),
      },
    ];
    const present = coded(['a', 'b', 'c']);
    expect(planRetire(present, placed('a'))).toEqual([]);
    const next = planJoin(present, taken(0, 'd', 'i2'), 'a');
    expect(next).toMatchObject({ epoch: present.epoch, needs: 2 });
    expect(next?.legs[0]?.inSync.map(({ replica }) => replica)).toEqual(['b', 'c', 'd']);
    // It had failed, and left by itself.
    expect(planJoin(coded(['b', 'c']), taken(0, 'd'), 'a')?.legs[0]?.inSync).toHaveLength(3);
    expect(planRetire(coded(['b', 'c', 'd']), placed('a'))).toEqual([]);
  });
});

const taken = (leg: number, replica: string, incarnation = 'i1') => ({ leg, replica, incarnation });

describe('a takeover', () => {
  it('keeps members with their cache and expels those that were not reached', () => {
    const plan = planTakeover(
      leadership([
        ['a', 'b'],
        ['c', 'd'],
      ]),
      [taken(0, 'a'), taken(0, 'b'), taken(1, 'd')],
    );
    expect(plan.next?.legs.map((leg) => leg.inSync.map((entry) => entry.replica))).toEqual([['a', 'b'], ['d']]);
    expect(plan.left).toEqual([{ leg: 1, replica: 'c' }]);
    expect(plan.allTaken).toBe(false);
    expect(plan.doubtful).toEqual([]);
    expect(plan.next?.clean).toBe(false);
  });

  it('expels a member that lost its cache while one that kept it was taken over', () => {
    const plan = planTakeover(leadership([['a', 'b']]), [taken(0, 'a', 'i2'), taken(0, 'b')]);
    expect(plan.next?.legs[0]?.inSync).toEqual([{ replica: 'b', incarnation: 'i1' }]);
    expect(plan.allTaken).toBe(true);
  });

  it('keeps all that were taken over when every one of them lost its cache, and records what they are now', () => {
    const plan = planTakeover(leadership([['a', 'b']]), [taken(0, 'a', 'i2'), taken(0, 'b', 'i3')]);
    expect(plan.next?.legs[0]?.inSync).toEqual([
      { replica: 'a', incarnation: 'i2' },
      { replica: 'b', incarnation: 'i3' },
    ]);
  });

  it('expels members of machines that started anew while others only lost their process', () => {
    const formerly = (replica: string, boot: string) => ({ replica, incarnation: `${boot}000000000001` });
    const now = (replica: string, boot: string) => taken(0, replica, `${boot}000000000002`);
    const present = leadership([[formerly('a', 'aaaaaaaa'), formerly('b', 'bbbbbbbb'), formerly('c', 'cccccccc')]]);
    const stay = (...found: ReturnType<typeof now>[]) =>
      planTakeover(present, found).next?.legs[0]?.inSync.map((entry) => entry.replica);
    expect(stay(now('a', 'aaaaaaaa'), now('b', '11111111'), now('c', 'cccccccc'))).toEqual(['a', 'c']);
    expect(stay(now('a', '22222222'), now('b', '11111111'))).toEqual(['a', 'b']);
    expect(stay(now('a', 'aaaaaaaa'), taken(0, 'b', 'bbbbbbbb000000000001'))).toEqual(['b']);
  });

  it('keeps a member that restarted after the volume was left clean', () => {
    const plan = planTakeover(leadership([['a', 'b']], { clean: true }), [taken(0, 'a', 'i2'), taken(0, 'b')]);
    expect(plan.next?.legs[0]?.inSync).toHaveLength(2);
  });

  it('is refused when a leg has no member, and doubtful when only members without their cache were reached', () => {
    expect(planTakeover(leadership([['a'], ['b']]), [taken(0, 'a')])).toMatchObject({ next: null, empty: [1] });
    expect(planTakeover(leadership([['a', 'b']]), [taken(0, 'a', 'i2')]).doubtful).toEqual([0]);
  });

  it('takes an epoch above the one that a replica named, and belongs to the instance that took it', () => {
    const holder = { controller: 'n2', instance: '44444444-4444-4444-8444-444444444444' };
    expect(planNewEpoch(leadership([['a']]), holder).epoch).toBe(6);
    expect(planNewEpoch(leadership([['a']]), holder, 9).epoch).toBe(10);
    expect(holds(planNewEpoch(leadership([['a']]), holder), holder)).toBe(true);
    expect(holds(leadership([['a']], { controller: 'n2' }), holder)).toBe(false);
  });
});

const legCounts = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 });
const present = legCounts.map((counts) =>
  leadership(counts.map((count, leg) => Array.from({ length: count }, (_, index) => id(leg, index)))),
);
const subset = (from: Leadership): fc.Arbitrary<{ leg: number; replica: string }[]> =>
  fc.subarray(from.legs.flatMap(({ inSync }, leg) => inSync.map(({ replica }) => ({ leg, replica }))));

describe('a set that nobody keeps', () => {
  const all = (inForce: Leadership['legs']) => ({ inForce, legs: [0], isPlaced: () => true });
  const replicas = (next: Leadership | null) => next?.legs.map(({ inSync }) => inSync.map(({ replica }) => replica));

  it('gets those back who were in the one before, beside who joined since', () => {
    const before = leadership([['a', 'b'], ['c']]).legs;
    expect(replicas(planRestore(leadership([['b', 'd'], ['e']]), all(before)))).toEqual([['a', 'b', 'd'], ['e']]);
  });

  it('of a leg with parity gets its old members: there are no places for others', () => {
    const before = coded(['a', 'b', 'c']).legs;
    const present = coded(['b', 'c', 'd']);
    expect(replicas(planRestore(present, all(before)))).toEqual([['a', 'b', 'c']]);
    expect(planRestore(present, { ...all(before), isPlaced: ({ replica }) => replica !== 'a' })).toBeNull();
  });

  it('stays where nobody left, and trusts no incarnation that was not of the set before', () => {
    const before = leadership([['a']]).legs;
    expect(planRestore(leadership([['a', 'b']]), all(before))).toBeNull();
    const anew = leadership([[{ replica: 'a', incarnation: 'i2' }]]);
    const both = leadership([['a', 'b']]).legs;
    expect(planRestore(anew, all(both))?.legs[0]?.inSync).toContainEqual({ replica: 'a', incarnation: 'i1' });
  });
});

describe('membership', () => {
  it('never loses the last copy of a leg by shrinking, and shrinks no further the second time', () => {
    fc.assert(
      fc.property(
        present.chain((from) => fc.tuple(fc.constant(from), subset(from))),
        ([from, failed]) => {
          const plan = planShrink(from, failed);
          const next = plan.next ?? from;
          expect(next.legs.every((leg) => leg.inSync.length > 0)).toBe(true);
          expect(next.epoch).toBe(from.epoch);
          expect(planShrink(next, failed).next).toBeNull();
          // Whatever stays although it failed is all that its leg has.
          for (const member of plan.last) {
            expect(next.legs[member.leg]?.inSync).toEqual(from.legs[member.leg]?.inSync);
          }
        },
      ),
    );
  });

  it('comes back to full redundancy by joining what is missing, once each', () => {
    fc.assert(
      fc.property(
        present.chain((from) => fc.tuple(fc.constant(from), subset(from))),
        ([from, failed]) => {
          const legs = from.legs.map(({ inSync }) => ({ replicas: inSync.map(({ replica }) => ({ replica })) }));
          let now = planShrink(from, failed).next ?? from;
          for (const member of outOfSync(now, legs)) {
            const joined = planJoin(now, { ...member, incarnation: 'i2' });
            expect(joined).not.toBeNull();
            now = joined ?? now;
            expect(planJoin(now, { ...member, incarnation: 'i2' })).toBeNull();
          }
          expect(outOfSync(now, legs)).toEqual([]);
          expect(now.legs.map((leg) => leg.inSync.length)).toEqual(from.legs.map((leg) => leg.inSync.length));
        },
      ),
    );
  });

  it('never makes a leg empty by a takeover, whoever was reached', () => {
    fc.assert(
      fc.property(
        present.chain((from) => fc.tuple(fc.constant(from), subset(from), fc.constantFrom('i1', 'i2'), fc.boolean())),
        ([from, reached, incarnation, clean]) => {
          const plan = planTakeover(
            { ...from, clean },
            reached.map((member) => ({ ...member, incarnation })),
          );
          const every = from.legs.every((_, leg) => reached.some((member) => member.leg === leg));
          expect(plan.next !== null).toBe(every);
          expect(plan.next?.legs.every((leg) => leg.inSync.length > 0) ?? true).toBe(true);
        },
      ),
    );
  });

  it('is handed over with the sets as they are', () => {
    const from = leadership([['a', 'b']]);
    expect(planHandOver(from, true)).toEqual({ ...from, controller: null, instance: null, clean: true });
  });

  it('is granted to a successor under the next epoch, which one instance of it can use', () => {
    const from = leadership([['a', 'b']]);
    const granted = planGrant(from, 'n2');
    expect(granted).toEqual({ ...from, epoch: from.epoch + 1, controller: 'n2', instance: null, clean: true });
    const taken = ['a', 'b'].map((replica) => ({ leg: 0, replica, incarnation: 'x' }));
    const first = { controller: 'n2', instance: '44444444-4444-4444-8444-444444444444' };
    const second = { controller: 'n2', instance: '55555555-5555-4555-8555-555555555555' };
    const at = { epoch: granted.epoch, taken };
    const accepted = planAccept(granted, { ...at, holder: first });
    expect(accepted).toMatchObject({ epoch: granted.epoch, instance: first.instance, clean: false });
    expect(accepted === null ? null : planAccept(accepted, { ...at, holder: second })).toBeNull();
    expect(planAccept(granted, { ...at, holder: { ...first, controller: 'n3' } })).toBeNull();
    expect(planAccept(planNewEpoch(granted, second), { ...at, holder: first })).toBeNull();
    expect(planAccept(granted, { ...at, taken: [], holder: first })).toBeNull();
  });

  it('is granted to an instance that is known, without a promise about what the members hold', () => {
    const from = { ...leadership([['a', 'b']]), clean: true };
    const to = { controller: 'n2', instance: '44444444-4444-4444-8444-444444444444' };
    const granted = planDirectGrant(from, to);
    expect(granted).toEqual({ ...from, ...to, epoch: from.epoch + 1, clean: false });
    expect(isGranted(granted, 'n2')).toBe(false);
    expect(planAccept(granted, { epoch: granted.epoch, holder: to, taken: [] })).toBeNull();
  });

  it('needs no swap after a takeover that changes nothing', () => {
    const from = { ...leadership([['a', 'b']]), clean: false };
    const taken = (incarnations: (string | null)[]) =>
      ['a', 'b'].flatMap((replica, index) => {
        const incarnation = incarnations[index] ?? null;
        return incarnation === null ? [] : [{ leg: 0, replica, incarnation }];
      });
    const known = from.legs[0]?.inSync.map((member) => member.incarnation) ?? [];
    const as = (incarnations: (string | null)[], present = from): boolean => {
      const { next } = planTakeover(present, taken(incarnations));
      return next !== null && isTakenAsIs(present, next);
    };
    expect(as(known)).toBe(true);
    expect(as([known[0] ?? null, null])).toBe(false);
    expect(as([known[0] ?? null, 'another'])).toBe(false);
    // Nobody may find it clean any more.
    expect(as(known, { ...from, clean: true })).toBe(false);
  });
});
