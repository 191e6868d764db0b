// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { exportId, frontIdOf, frontsOf, rotated, withHosts, withoutLeft } from '../model/multi-active.js';
import type { VolumeObject } from '../model/objects.js';
import { hasTails } from '../placement/leg-size.js';
import { firstFrontLeadership, partSizeBytes, whyNotDivided } from './parts.js';

const MiB = 1024 * 1024;
const uuid = (n: number): string => `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`;

const volume: VolumeObject = {
  format: 1,
  id: uuid(1),
  name: 'v1',
  sizeBytes: 10 * MiB,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 2,
  legSizeBytes: 4 * MiB,
  legs: [],
  controllers: ['c1', 'c2', 'c3'],
  controllerSlots: [4, 0, 7],
  hosts: ['nqn.2026-01.io.basalt:host:a', 'nqn.2026-01.io.basalt:host:b'],
  nbd: [],
  parts: [uuid(2), uuid(3)],
  fronts: [uuid(4), uuid(5)],
  phase: 'live',
};

describe('parts', () => {
  it('striped one after the other, and each over its legs, are the stripes of all legs', () => {
    for (const [active, legs] of [
      [2, 2],
      [2, 6],
      [3, 12],
      [4, 8],
    ] as const) {
      const each = legs / active;
      for (let stripe = 0; stripe < 100; stripe++) {
        const part = stripe % active;
        const within = Math.floor(stripe / active);
        // What leg i of the volume is (PartView): leg i div active of part i mod active.
        expect(part + active * (within % each)).toBe(stripe % legs);
        expect(Math.floor(within / each)).toBe(Math.floor(stripe / legs));
      }
    }
  });

  it('hold the whole volume, in whole stripes', () => {
    for (const sizeBytes of [4096, MiB, 10 * MiB, 10 * MiB + 4096, 3 * 65536]) {
      const bytes = partSizeBytes({ sizeBytes, stripeSizeBytes: 65536, parts: [uuid(2), uuid(3), uuid(6)] });
      expect(bytes % 65536).toBe(0);
      expect(3 * bytes).toBeGreaterThanOrEqual(sizeBytes);
    }
  });

  it('divide legs evenly, and have a controller each', () => {
    expect(whyNotDivided({ active: 2, legs: 4, controllers: 2 })).toBeNull();
    expect(whyNotDivided({ active: 2, legs: 3, controllers: 2 })).toContain('3');
    expect(whyNotDivided({ active: 3, legs: 3, controllers: 2 })).toContain('2');
  });
});

describe('fronts', () => {
  it('are volumes over one export of each part, without tails, each with a first controller of its own', () => {
    const fronts = frontsOf(volume, partSizeBytes);
    expect(fronts.map(({ controllers }) => controllers[0])).toEqual(['c1', 'c2']);
    for (const [index, front] of fronts.entries()) {
      expect(hasTails(front)).toBe(false);
      expect(front.front).toEqual({ volumeId: volume.id, index });
      expect(front.legs.map((leg) => leg.replicas[0]?.replica)).toEqual(
        [uuid(2), uuid(3)].map((part) => exportId(part, front.id)),
      );
      // Whoever it is, a controller hands out the same ids of controllers by every front.
      expect(front.controllerSlots?.[front.controllers.indexOf('c3')]).toBe(7);
      const first = firstFrontLeadership(front.id, { parts: [uuid(2), uuid(3)], leaseMs: 300 });
      expect(first.legs.map((leg) => leg.inSync[0]?.replica)).toEqual(
        front.legs.map((leg) => leg.replicas[0]?.replica),
      );
    }
    expect(rotated(['a', 'b', 'c'], 5)).toEqual(['c', 'a', 'b']);
    expect(rotated([], 1)).toEqual([]);
  });

  it('get hosts by turns, and keep the one that has gone', () => {
    const [a = '', b = ''] = volume.hosts;
    const first = withHosts({ ...volume, hosts: [] }, [a, b]);
    expect([frontIdOf(first, a), frontIdOf(first, b)]).toEqual([uuid(4), uuid(5)]);
    const c = 'nqn.2026-01.io.basalt:host:c';
    const later = withHosts(withoutLeft(withHosts(first, [b]), [a]), [b, c]);
    expect(frontIdOf(later, c)).toBe(uuid(4));
    const back = withHosts(later, [b, c, a]);
    expect(frontIdOf(back, a)).toBe(uuid(4));
    expect(frontsOf(back, partSizeBytes).map(({ hosts }) => hosts)).toEqual([[c, a], [b]]);
    const { parts: _parts, fronts: _fronts, ...plain } = volume;
    expect(withHosts(plain, [a, c])).toEqual({ ...plain, hosts: [a, c] });
    expect(frontIdOf(plain, a)).toBe(volume.id);
  });

  it('take no host beside one that another front has not let go', () => {
    const [a = '', b = ''] = volume.hosts;
    const c = 'nqn.2026-01.io.basalt:host:c';
    const first = withHosts({ ...volume, hosts: [] }, [a, b]);
    const left = withHosts(first, [a]);
    expect(left.hostFronts).toEqual([
      { host: a, front: 0 },
      { host: b, front: 1, leaving: true },
    ]);
    // It would go by the other front, or comes back to it from another one.
    const none = withHosts(left, []);
    expect(() => withHosts(none, [c])).toThrow(b);
    expect(() => withHosts(none, [a])).toThrow(b);
    expect(() => withHosts(none, [a])).toThrow(expect.objectContaining({ code: 'BUSY' }));
    // Who was there all the time is not new, who comes by the same front waits there; and who comes back has not left.
    expect(withHosts(left, [a, c]).hostFronts?.at(-1)).toEqual({ host: c, front: 1 });
    expect(withHosts(left, [a, b]).hostFronts).toEqual(first.hostFronts);
    const gone = withoutLeft(none, [a, b]);
    expect(withHosts(gone, [c]).hostFronts?.at(-1)).toEqual({ host: c, front: 0 });
  });
});
