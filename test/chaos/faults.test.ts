// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { FaultDeck, type FaultKind, faultKinds } from './faults.js';
import { SeededRandom } from './random.js';

test('faults that hold at the same time are of different parts, and all of them come', () => {
  const deck = new FaultDeck(faultKinds, new SeededRandom(7));
  const dealt: string[] = [];
  for (let hand = 0; hand < faultKinds.length; hand++) {
    const kinds = deck.hand(2);
    expect(new Set(kinds.map(({ part }) => part)).size).toBe(2);
    dealt.push(...kinds.map(({ name }) => name));
  }
  expect(new Set(dealt)).toEqual(new Set(faultKinds.map(({ name }) => name)));
});

test('who must be asked where things are is struck before who answers, and the store last', () => {
  const deck = new FaultDeck(faultKinds, new SeededRandom(8));
  for (let hand = 0; hand < 50; hand++) {
    const [first, second] = deck.hand(2);
    expect(first?.part).not.toBe('store');
    if (first?.part === 'api') expect(second?.part).toBe('store');
  }
});

test('a deck of one part deals one at a time', () => {
  const disks = faultKinds.filter((kind: FaultKind) => kind.part === 'disks');
  expect(new FaultDeck(disks, new SeededRandom(9)).hand(2)).toHaveLength(1);
});
