// SPDX-License-Identifier: Apache-2.0
// Stripe → leg → PG: what holds for every route, and the vectors that the engine is held to as well.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RouteRange } from '../model/route.js';
import { growRoute, legLengthsBytes, legPgs, locate, mix32, routePgs, routeSizeBytes } from './route.js';

const kib = 1024;
const base = (more: Partial<RouteRange> = {}): RouteRange => ({
  startBytes: 0,
  lengthBytes: 2 ** 20,
  stripeSizeBytes: 64 * kib,
  firstLeg: 0,
  legCount: 4,
  legOffsetBytes: 0,
  seed: 1,
  conflict: 'spread',
  ...more,
});

const growth = fc.oneof(
  fc.record({ by: fc.constant('lengthening' as const), more: fc.integer({ min: 1, max: 40 }) }),
  fc.record({
    by: fc.constant('legs' as const),
    more: fc.integer({ min: 1, max: 40 }),
    legCount: fc.integer({ min: 1, max: 5 }),
    seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  }),
);

const route = fc
  .record({
    legCount: fc.integer({ min: 1, max: 6 }),
    stripe: fc.constantFrom(4, 16, 64),
    blocks: fc.integer({ min: 1, max: 60 }),
    seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    growths: fc.array(growth, { maxLength: 3 }),
  })
  .map(({ legCount, stripe, blocks, seed, growths }) => {
    const first = [base({ legCount, stripeSizeBytes: stripe * kib, lengthBytes: blocks * 4 * kib, seed })];
    const steps = [first];
    for (const { more, ...how } of growths) {
      const present = steps.at(-1) ?? first;
      steps.push(growRoute(present, { ...how, sizeBytes: routeSizeBytes(present) + more * 4 * kib }));
    }
    return steps;
  });

describe('a route', () => {
  it('gives every block one place of its own, inside its leg', () => {
    fc.assert(
      fc.property(route, (steps) => {
        const last = steps.at(-1) ?? [];
        const lengths = legLengthsBytes(last);
        const seen = new Set<string>();
        for (let at = 0; at < routeSizeBytes(last); at += 4 * kib) {
          const found = locate(last, at);
          expect(found).not.toBeNull();
          seen.add(`${found?.leg} ${found?.offsetBytes}`);
          expect((found?.offsetBytes ?? 0) + 4 * kib).toBeLessThanOrEqual(lengths[found?.leg ?? 0] ?? 0);
        }
        expect(seen.size).toBe(routeSizeBytes(last) / (4 * kib));
        expect(locate(last, routeSizeBytes(last))).toBeNull();
      }),
    );
  });

  it('keeps every address and every PG where it was when the volume grows', () => {
    fc.assert(
      fc.property(route, (steps) => {
        for (let step = 1; step < steps.length; step++) {
          const [before, after] = [steps[step - 1] ?? [], steps[step] ?? []];
          const pgs = routePgs(before, 64);
          expect(routePgs(after, 64).slice(0, pgs.length)).toEqual(pgs);
          for (let at = 0; at < routeSizeBytes(before); at += 4 * kib) {
            const { leg, offsetBytes } = locate(before, at) ?? {};
            expect(locate(after, at)).toMatchObject({ leg, offsetBytes });
          }
        }
      }),
    );
  });

  it('spreads the legs of a range over distinct PGs as long as there are some', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 80 }),
        fc.integer({ min: 1, max: 64 }),
        fc.nat(),
        (legCount, pgCount, seed) => {
          const pgs = legPgs({ legCount, seed, conflict: 'spread' }, pgCount);
          const times = new Map<number, number>();
          for (const pg of pgs) {
            expect(pg).toBeLessThan(pgCount);
            times.set(pg, (times.get(pg) ?? 0) + 1);
          }
          expect(Math.max(...times.values())).toBe(Math.ceil(legCount / pgCount));
        },
      ),
    );
  });

  it('takes every PG as often as any other', () => {
    const counts = new Array<number>(64).fill(0);
    for (let seed = 0; seed < 16_000; seed++)
      for (const pg of legPgs({ legCount: 4, seed, conflict: 'any' }, 64)) counts[pg] = (counts[pg] ?? 0) + 1;
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});

/** Drawn by the mixer itself, so that the file is the same wherever it is written. */
function vectors(): unknown {
  let state = 12_345;
  const draw = (below: number): number => {
    state = mix32(state + 0x9e37_79b9);
    return state % below;
  };
  const routes = Array.from({ length: 24 }, (_, index) => {
    const pgCount = [1, 2, 3, 64, 100, 4096, 16_384][draw(7)] ?? 1;
    const stripeSizeBytes = (4 * kib) << draw(7);
    const first = base({
      stripeSizeBytes,
      legCount: 1 + draw(index === 0 ? 1 : 70),
      lengthBytes: 4 * kib * (1 + draw(2 ** 28)),
      seed: mix32(index + 77),
      conflict: draw(3) === 0 ? 'any' : 'spread',
    });
    let ranges = [first];
    for (let step = draw(3); step > 0; step--) {
      const sizeBytes = routeSizeBytes(ranges) + 4 * kib * (1 + draw(2 ** 20));
      ranges = growRoute(
        ranges,
        draw(2) === 0
          ? { by: 'lengthening', sizeBytes }
          : { by: 'legs', sizeBytes, legCount: 1 + draw(9), seed: mix32(step) },
      );
    }
    const size = routeSizeBytes(ranges);
    const starts = ranges.flatMap((range) => [range.startBytes, range.startBytes + range.lengthBytes - 1]);
    const addresses = [...starts, size, ...Array.from({ length: 12 }, () => draw(2 ** 32) % size)];
    return {
      pgCount,
      ranges,
      pgs: ranges.map((range) => legPgs(range, pgCount)),
      addresses: addresses.map((addressBytes) => ({ addressBytes, found: locate(ranges, addressBytes) })),
    };
  });
  // A volume that grows: what was at an address before is there afterwards.
  const growths = routes.map(({ pgCount, ranges, addresses }) => {
    const sizeBytes = routeSizeBytes(ranges) + 4 * kib * (1 + draw(2 ** 28));
    const grown = growRoute(ranges, { by: 'lengthening', sizeBytes });
    return {
      pgCount,
      before: ranges,
      after: grown,
      addresses: addresses.filter((entry) => entry.found !== null).map((entry) => entry.addressBytes),
    };
  });
  return { mix32: [0, 1, 2, 0xffff_ffff, 0x8000_0000].map((input) => [input, mix32(input)]), routes, growths };
}

describe('the shared vectors', () => {
  it('are what this side computes; BASALT_REWRITE=1 writes them anew', () => {
    const path = fileURLToPath(new URL('../../test/vectors/route.json', import.meta.url));
    if (process.env['BASALT_REWRITE'] === '1') writeFileSync(path, `${JSON.stringify(vectors(), null, 1)}\n`);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(vectors());
  });
});
