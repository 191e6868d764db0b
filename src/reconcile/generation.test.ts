// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { countOf, epochText, firstEpoch, generationMax, generationOf, isUndriven } from '../model/generation.js';
import type { Leadership } from '../model/objects.js';
import { planNewEpoch } from './membership.js';

describe('generations', () => {
  it('stand above the counting of epochs, in a number that is held exactly', () => {
    for (const generation of [0, 1, 255, 256, generationMax]) {
      const last = firstEpoch(generation) + 2 ** 40 - 1;
      expect(Number.isSafeInteger(last)).toBe(true);
      expect([generationOf(firstEpoch(generation)), generationOf(last)]).toEqual([generation, generation]);
      expect([countOf(firstEpoch(generation)), countOf(last)]).toEqual([0, 2 ** 40 - 1]);
      expect(JSON.parse(JSON.stringify(last))).toBe(last);
      expect(isUndriven(firstEpoch(generation)) && !isUndriven(last)).toBe(true);
    }
    expect(firstEpoch(generationMax + 1)).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
  });

  it('show only where there was more than one', () => {
    expect([epochText(17), epochText(firstEpoch(2) + 17)]).toEqual(['17', '2.17']);
  });

  it('are not drawn by who is refused under an earlier one', () => {
    const holder = { controller: 'c', instance: '00000000-0000-4000-8000-000000000001' };
    const present = { volumeId: 'v', epoch: 7 } as Leadership;
    expect(planNewEpoch(present, holder, 9).epoch).toBe(10);
    expect(() => planNewEpoch(present, holder, firstEpoch(1) + 1)).toThrow('generation 1 of the store');
    expect(planNewEpoch({ ...present, epoch: firstEpoch(1) + 4 }, holder, 9).epoch).toBe(firstEpoch(1) + 5);
  });
});
