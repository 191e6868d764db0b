// SPDX-License-Identifier: Apache-2.0
//
// Address → leg, and leg → PG. The engine computes the same (native/route); test/vectors/route.json holds both to it.

import { BasaltError } from '../model/errors.js';
import { legsMax, type RouteRange } from '../model/route.js';

export interface LegAddress {
  readonly leg: number;
  /** In the leg. */
  readonly offsetBytes: number;
  /** How many bytes from there lie one after the other, in the leg as in the volume. */
  readonly runBytes: number;
}

/** Null: beyond the end. */
export function locate(route: readonly RouteRange[], addressBytes: number): LegAddress | null {
  for (const range of route) {
    const at = addressBytes - range.startBytes;
    if (at < 0 || at >= range.lengthBytes) continue;
    const stripe = Math.floor(at / range.stripeSizeBytes);
    const inside = at % range.stripeSizeBytes;
    return {
      leg: range.firstLeg + (stripe % range.legCount),
      offsetBytes: range.legOffsetBytes + Math.floor(stripe / range.legCount) * range.stripeSizeBytes + inside,
      runBytes: Math.min(range.stripeSizeBytes - inside, range.lengthBytes - at),
    };
  }
  return null;
}

/** A permutation of 32 bits in which every bit of the input counts for every bit of the output. */
export function mix32(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d) >>> 0;
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b) >>> 0;
  return (x ^ (x >>> 16)) >>> 0;
}

/** The PG that the seed alone gives to the range's leg `index`, before conflicts. */
export function seededPg(seed: number, index: number, pgCount: number): number {
  const mixed = mix32(seed ^ mix32(index + 1));
  return Math.floor((mixed * pgCount) / 0x1_0000_0000);
}

/** The PGs of the legs of one range, in their order. With more legs than PGs, every PG is taken once before any is twice. */
export function legPgs(rule: Pick<RouteRange, 'legCount' | 'seed' | 'conflict'>, pgCount: number): number[] {
  const pgs: number[] = [];
  const taken = new Set<number>();
  for (let index = 0; index < rule.legCount; index++) {
    let pg = seededPg(rule.seed, index, pgCount);
    if (rule.conflict === 'spread') {
      if (taken.size === pgCount) taken.clear();
      while (taken.has(pg)) pg = (pg + 1) % pgCount;
      taken.add(pg);
    }
    pgs.push(pg);
  }
  return pgs;
}

/** Leg → PG of a whole volume. */
export function routePgs(route: readonly RouteRange[], pgCount: number): number[] {
  const pgs: number[] = [];
  for (const range of route) {
    legPgs(range, pgCount).forEach((pg, index) => {
      pgs[range.firstLeg + index] ??= pg;
    });
  }
  return pgs;
}

/** How long each leg must be, in whole stripes. */
export function legLengthsBytes(route: readonly RouteRange[]): number[] {
  const lengths: number[] = [];
  for (const range of route) {
    const rows = Math.ceil(range.lengthBytes / range.stripeSizeBytes / range.legCount);
    const endBytes = range.legOffsetBytes + rows * range.stripeSizeBytes;
    for (let leg = range.firstLeg; leg < range.firstLeg + range.legCount; leg++)
      lengths[leg] = Math.max(lengths[leg] ?? 0, endBytes);
  }
  return lengths;
}

export function routeSizeBytes(route: readonly RouteRange[]): number {
  return route.reduce((bytes, range) => bytes + range.lengthBytes, 0);
}

export type Growth =
  /** The legs of the last range become longer. */
  | { readonly by: 'lengthening'; readonly sizeBytes: number }
  /** New legs, in PGs that a seed of their own gives, hold what is beyond the present end. */
  | { readonly by: 'legs'; readonly sizeBytes: number; readonly legCount: number; readonly seed: number };

/**
 * The route of the larger volume.
 * @throws INVALID_ARGUMENT when that is not larger, or has more legs than there may be
 */
export function growRoute(route: readonly RouteRange[], growth: Growth): RouteRange[] {
  const startBytes = routeSizeBytes(route);
  const lengthBytes = growth.sizeBytes - startBytes;
  const last = route.at(-1);
  if (last === undefined || lengthBytes <= 0)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'sizeBytes', problem: `must be above ${startBytes}` });
  // The rule depends on where its range begins, not on where it ends: a longer range remaps nothing.
  if (growth.by === 'lengthening')
    return [...route.slice(0, -1), { ...last, lengthBytes: last.lengthBytes + lengthBytes }];
  const firstLeg = legLengthsBytes(route).length;
  if (firstLeg + growth.legCount > legsMax)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'legs', problem: `a volume has at most ${legsMax} legs` });
  const { stripeSizeBytes, conflict } = last;
  const { legCount, seed } = growth;
  return [
    ...route,
    { startBytes, lengthBytes, stripeSizeBytes, firstLeg, legCount, legOffsetBytes: 0, seed, conflict },
  ];
}
