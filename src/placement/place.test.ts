// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BasaltError } from '../model/errors.js';
import { legSizeBytes } from './leg-size.js';
import { type PlacementDisk, place } from './place.js';

const gib = 2 ** 30;
const disk = (id: string, node: string, availableBytes = gib): PlacementDisk => ({ id, node, availableBytes });

function refusal(fn: () => unknown): BasaltError {
  try {
    fn();
  } catch (error) {
    if (error instanceof BasaltError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('placement', () => {
  it('names the nodes that are missing and the number of copies that would do', () => {
    const error = refusal(() => place([disk('d1', 'n1'), disk('d2', 'n1')], { legs: 1, copies: 2, legSizeBytes: 1 }));
    expect(error.code).toBe('PLACEMENT_IMPOSSIBLE');
    expect(error.fields['field']).toBe('copies');
    expect(error.message).toContain('on 1 more node, or ask for 1 copy');
  });

  it('names the largest size that would fit', () => {
    const disks = [disk('d1', 'n1', 100 * 2 ** 20), disk('d2', 'n2', 100 * 2 ** 20)];
    const error = refusal(() => place(disks, { legs: 2, copies: 2, legSizeBytes: gib }));
    expect(error.message).toContain(`at most ${2 * 50 * 2 ** 20} bytes`);
    expect(place(disks, { legs: 2, copies: 2, legSizeBytes: 50 * 2 ** 20 })).toHaveLength(2);
  });

  it('spreads over distinct nodes, never beyond a disk, whatever the order of the disks', () => {
    const disks = fc.uniqueArray(
      fc.record({
        id: fc.stringMatching(/^[a-z]{1,4}$/),
        node: fc.constantFrom('n1', 'n2', 'n3', 'n4'),
        availableBytes: fc.integer({ min: 0, max: 20 }),
      }),
      { selector: (entry) => entry.id, maxLength: 12 },
    );
    const request = fc.record({
      legs: fc.integer({ min: 1, max: 6 }),
      copies: fc.integer({ min: 1, max: 3 }),
      legSizeBytes: fc.integer({ min: 1, max: 8 }),
    });
    fc.assert(
      fc.property(disks, request, (all, wanted) => {
        const outcome = attempt(all, wanted);
        expect(attempt([...all].reverse(), wanted)).toEqual(outcome);
        if (outcome === null) return;
        const used = new Map<string, number>();
        for (const leg of outcome) {
          expect(new Set(leg.map((entry) => entry.node)).size).toBe(wanted.copies);
          for (const entry of leg) used.set(entry.disk, (used.get(entry.disk) ?? 0) + wanted.legSizeBytes);
        }
        for (const entry of all) expect(used.get(entry.id) ?? 0).toBeLessThanOrEqual(entry.availableBytes);
      }),
    );
  });
});

function attempt(disks: readonly PlacementDisk[], request: { legs: number; copies: number; legSizeBytes: number }) {
  try {
    return place(disks, request);
  } catch (error) {
    if (error instanceof BasaltError && error.code === 'PLACEMENT_IMPOSSIBLE') return null;
    throw error;
  }
}

describe('leg size', () => {
  it('holds the volume in whole stripes and whole MiB', () => {
    expect(legSizeBytes({ sizeBytes: 4096, legs: 4, stripeSizeBytes: 65536 })).toBe(2 ** 20);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 24 }), fc.integer({ min: 1, max: 64 }), (blocks, legs) => {
        const shape = { sizeBytes: blocks * 4096, legs, stripeSizeBytes: 65536 };
        const size = legSizeBytes(shape);
        expect(size % 2 ** 20).toBe(0);
        expect(Math.floor(size / 65536) * 65536 * legs).toBeGreaterThanOrEqual(shape.sizeBytes);
      }),
    );
  });
});
