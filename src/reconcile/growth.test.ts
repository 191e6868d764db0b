// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { legDataBytesAt, replicaBytesAt } from '../placement/leg-size.js';
import { locate } from '../placement/route.js';
import { planGrowing, planGrown, planGrowth, planServed, replicaBytes, volumeSize } from './growth.js';

const mib = 2 ** 20;

function volumeOf(sizeBytes: number, legs: number, stripeSizeBytes: number): VolumeObject {
  const shape = { sizeBytes, stripeSizeBytes, legs: { length: legs }, legSizeBytes: 0 };
  return {
    format: 1,
    id: '00000000-0000-0000-0000-000000000001',
    name: 'v1',
    sizeBytes,
    blockSizeBytes: 4096,
    stripeSizeBytes,
    copies: 1,
    legSizeBytes: legDataBytesAt(shape, sizeBytes) + mib,
    legs: Array.from({ length: legs }, () => ({ replicas: [] })),
    route: [
      {
        startBytes: 0,
        lengthBytes: sizeBytes,
        stripeSizeBytes,
        firstLeg: 0,
        legCount: legs,
        legOffsetBytes: 0,
        seed: 7,
        conflict: 'spread',
      },
    ],
    controllers: [],
    hosts: [],
    nbd: [],
    phase: 'live',
  };
}

const leadership: Leadership = {
  format: 1,
  volumeId: '00000000-0000-0000-0000-000000000001',
  epoch: 3,
  controller: null,
  instance: null,
  clean: true,
  leaseMs: 300,
  legs: [],
};
const wishing = (servedBytes: number, wantedBytes: number): Leadership => ({
  ...leadership,
  size: { servedBytes, wantedBytes, growing: false },
});

describe('growth of a volume', () => {
  it('is pinned, lengthened, published, and then there is nothing to do', () => {
    const volume = volumeOf(8 * mib, 2, 65536);
    expect(planGrowth(volume, leadership)).toEqual({ do: 'nothing' });
    const asked = wishing(8 * mib, 16 * mib);
    expect(planGrowth(volume, asked)).toEqual({ do: 'pin', wantedBytes: 16 * mib });
    expect(replicaBytes(volume, asked)).toBe(9 * mib);
    const pinned = planGrowing(asked, 16 * mib) as Leadership;
    expect(volumeSize(volume, pinned)).toEqual({ servedBytes: 8 * mib, wantedBytes: 16 * mib, growing: true });
    expect(planGrowing(pinned, 16 * mib)).toBeNull();
    expect(planGrowth(volume, pinned)).toEqual({ do: 'lengthen', wantedBytes: 16 * mib });
    const served = planServed(pinned) as Leadership;
    expect(planServed(served)).toBeNull();
    expect(planGrowth(volume, served)).toEqual({ do: 'publish', servedBytes: 16 * mib });
    const grown = planGrown(volume, 16 * mib) as VolumeObject;
    expect(planGrown(grown, 16 * mib)).toBeNull();
    expect(planGrowth(grown, served)).toEqual({ do: 'nothing' });
  });

  it('pins only what is still wanted', () => {
    expect(planGrowing(wishing(8 * mib, 12 * mib), 16 * mib)).toBeNull();
    expect(planGrowing(leadership, 16 * mib)).toBeNull();
  });

  it('moves no address, whatever the shape, and makes legs longer by whole MiB', () => {
    const blocks = fc.integer({ min: 1, max: 2 ** 16 });
    const shapes = fc.record({ before: blocks, more: blocks, legs: fc.integer({ min: 1, max: 9 }), at: blocks });
    fc.assert(
      fc.property(shapes, fc.constantFrom(16384, 65536, 2 ** 22), ({ before, more, legs, at }, stripe) => {
        const volume = volumeOf(before * 4096, legs, stripe);
        const grown = planGrown(volume, (before + more) * 4096) as VolumeObject;
        const address = (at % before) * 4096;
        const was = locate(volume.route ?? [], address);
        const is = locate(grown.route ?? [], address);
        expect([is?.leg, is?.offsetBytes]).toEqual([was?.leg, was?.offsetBytes]);
        expect((grown.legSizeBytes - volume.legSizeBytes) % mib).toBe(0);
        expect(grown.legSizeBytes).toBe(replicaBytesAt(volume, grown.sizeBytes));
        const last = locate(grown.route ?? [], grown.sizeBytes - 4096);
        expect((last?.offsetBytes ?? 0) + 4096).toBeLessThanOrEqual(legDataBytesAt(volume, grown.sizeBytes));
      }),
    );
  });
});
