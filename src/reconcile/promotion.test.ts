// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { grantInstance } from '../model/grant.js';
import { formatVersion, type Leadership } from '../model/objects.js';
import {
  decidePromotion,
  endsSplit,
  firstStepMs,
  type PromotionView,
  standbyStepMs,
  successorGraceMs,
} from './promotion.js';

function heldBy(controller: string | null): Leadership {
  const volumeId = '11111111-1111-4111-8111-111111111111';
  return {
    format: formatVersion,
    volumeId,
    epoch: 3,
    controller,
    instance: controller === null ? null : '22222222-2222-4222-8222-222222222222',
    clean: false,
    leaseMs: 300,
    legs: [],
  };
}

function view(over: Partial<PromotionView>): PromotionView {
  const everyone = new Set(['n1', 'n2', 'n3']);
  const none = new Set<string>();
  const base = { me: 'n2', leadership: heldBy('n1'), order: ['n1', 'n2', 'n3'], driving: false };
  return { ...base, candidates: everyone, alive: everyone, lost: none, ...over };
}

describe('promotion', () => {
  it('leaves a controller that lives alone', () => {
    expect(decidePromotion(view({})).do).toBe('nothing');
    expect(decidePromotion(view({ leadership: heldBy('embedded-1'), alive: new Set(['embedded-1', 'n2']) })).do).toBe(
      'nothing',
    );
  });

  it('replaces one whose connection broke, at once, and one whose lease ran out', () => {
    expect(decidePromotion(view({ lost: new Set(['n1']) }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view({ alive: new Set(['n2', 'n3']) }))).toMatchObject({ do: 'promote', delayMs: 0 });
  });

  it('leaves a volume that nobody drove yet to the first of its controllers for longer, unless that one is gone', () => {
    const made = { leadership: { ...heldBy(null), epoch: 0 } };
    expect(decidePromotion(view({ ...made, me: 'n1' }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view(made))).toMatchObject({ do: 'promote', delayMs: firstStepMs });
    expect(decidePromotion(view({ ...made, lost: new Set(['n1']) }))).toMatchObject({ do: 'promote', delayMs: 0 });
    const others = new Set(['n2', 'n3']);
    expect(decidePromotion(view({ ...made, candidates: others, alive: others }))).toMatchObject({ delayMs: 0 });
  });

  it('leaves what was handed over to the one that it was handed to, for as long as that one can be expected', () => {
    const handed = { leadership: heldBy(null), successor: 'n3' };
    expect(decidePromotion(view({ ...handed, me: 'n3' }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view({ ...handed, me: 'n1' }))).toMatchObject({ delayMs: successorGraceMs });
    expect(decidePromotion(view({ ...handed, me: 'n1', lost: new Set(['n3']) }))).toMatchObject({ delayMs: 0 });
    expect(decidePromotion(view({ successor: 'n3', me: 'n3' })).do).toBe('nothing');
  });

  it('waits for one that it was granted to, but not when that one has left the controllers since', () => {
    const granted = { leadership: { ...heldBy('n3'), instance: null, clean: true } };
    expect(decidePromotion(view(granted)).do).toBe('nothing');
    const without = { ...granted, order: ['n1', 'n2'] };
    expect(decidePromotion(view({ ...without, me: 'n1' }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view(without))).toMatchObject({ do: 'promote', delayMs: standbyStepMs });
    expect(decidePromotion(view({ ...without, me: 'n3' })).do).toBe('nothing');
    expect(decidePromotion(view({ order: ['n2', 'n3'] })).do).toBe('nothing');
    const { leadership } = granted;
    const instance = grantInstance('0123456789abcdef0123', leadership.epoch);
    const direct = { ...without, leadership: { ...leadership, instance, clean: false } };
    expect(decidePromotion(view({ ...direct, me: 'n1' }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view({ ...direct, order: ['n1', 'n2', 'n3'], me: 'n1' })).do).toBe('nothing');
  });

  it('lets standbys go one after the other, in the order of the volume', () => {
    const gone = { lost: new Set(['n1']) };
    expect(decidePromotion(view({ ...gone, me: 'n3' }))).toMatchObject({ delayMs: standbyStepMs });
    expect(decidePromotion(view({ ...gone, me: 'n3', candidates: new Set(['n3']) }))).toMatchObject({ delayMs: 0 });
  });

  it('prefers the first in order when nobody holds the volume', () => {
    const free = { leadership: heldBy(null) };
    expect(decidePromotion(view({ ...free, me: 'n1' }))).toMatchObject({ do: 'promote', delayMs: 0 });
    expect(decidePromotion(view({ ...free, me: 'n2' }))).toMatchObject({ do: 'promote', delayMs: standbyStepMs });
  });

  it('takes back what this node held before its process began again', () => {
    expect(decidePromotion(view({ me: 'n1' }))).toMatchObject({ do: 'promote', delayMs: 0 });
  });

  it('does not promote a node that drives already, is handing over, or is none of the controllers', () => {
    const gone = { lost: new Set(['n1']) };
    expect(decidePromotion(view({ ...gone, driving: true })).do).toBe('nothing');
    expect(decidePromotion(view({ ...gone, candidates: new Set(['n3']) })).do).toBe('nothing');
    expect(decidePromotion(view({ ...gone, me: 'n9' })).do).toBe('nothing');
  });
});

describe('a volume that is split between controllers that lost each other', () => {
  const order = ['n1', 'n2', 'n3'];
  const base = { me: 'n1', holder: 'n2', order, cut: new Set(['n2', 'n3']), serves: true, holderOwns: true };

  it('goes to the first of them, if that serves some of it', () => {
    expect(endsSplit(base)).toBe(true);
    expect(endsSplit({ ...base, serves: false })).toBe(false);
    expect(endsSplit({ ...base, cut: new Set(['n3']) })).toBe(false);
    expect(endsSplit({ ...base, holder: null })).toBe(false);
    // One that left the volume's controllers comes last.
    expect(endsSplit({ ...base, holder: 'n9', cut: new Set(['n9']) })).toBe(true);
    expect(endsSplit({ ...base, me: 'n9' })).toBe(false);
  });

  it('has its fronts where its parts are, whoever comes first', () => {
    const last = { ...base, me: 'n3', holder: 'n1', cut: new Set(['n1']) };
    expect(endsSplit(last)).toBe(false);
    expect(endsSplit({ ...last, holderOwns: false })).toBe(true);
    expect(endsSplit({ ...last, holderOwns: false, serves: false })).toBe(false);
  });

  it('goes one way between any two of them', () => {
    const names = ['n1', 'n2', 'n3', 'n9'];
    for (const me of names) {
      for (const holder of names.filter((name) => name !== me)) {
        const cut = new Set(names);
        const there = endsSplit({ ...base, cut, me, holder });
        const back = endsSplit({ ...base, cut, me: holder, holder: me });
        expect(there && back, `${me} ${holder}`).toBe(false);
      }
    }
  });
});
