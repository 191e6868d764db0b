// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hasTails, legDataBytes, legSizeBytes, replicaBytesAt } from './leg-size.js';

describe('leg size', () => {
  it('holds the volume in whole stripes and whole MiB', () => {
    expect(legSizeBytes({ sizeBytes: 4096, legs: 4, stripeSizeBytes: 65536 })).toBe(2 * 2 ** 20);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 24 }), fc.integer({ min: 1, max: 64 }), (blocks, legs) => {
        const shape = { sizeBytes: blocks * 4096, legs, stripeSizeBytes: 65536 };
        const size = legDataBytes(shape);
        expect(legSizeBytes(shape)).toBe(size + 2 ** 20);
        expect(size % 2 ** 20).toBe(0);
        expect(Math.floor(size / 65536) * 65536 * legs).toBeGreaterThanOrEqual(shape.sizeBytes);
      }),
    );
  });

  it('is a part of the leg, and the log, for each member of one with parity', () => {
    const shape = { sizeBytes: 4 * 2 ** 30, legs: 1, stripeSizeBytes: 65536 };
    expect(legSizeBytes({ ...shape, erasure: { data: 4, parity: 2 } })).toBe((1024 + 5) * 2 ** 20);
    expect(legSizeBytes({ ...shape, erasure: { data: 2, parity: 1 } })).toBe((2048 + 3) * 2 ** 20);
    const volume = { ...shape, legs: [0], legSizeBytes: 1029 * 2 ** 20, erasure: { data: 4, parity: 2 } };
    expect(replicaBytesAt(volume, shape.sizeBytes)).toBe(volume.legSizeBytes);
    expect(hasTails(volume)).toBe(false);
  });
});
