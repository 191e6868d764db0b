// SPDX-License-Identifier: Apache-2.0
//
// How much a set of disks can hold: each byte on `width` disks of distinct domains, no disk beyond its capacity.

import { LinearProgram, type SolveLinear } from './linear-program.js';
import type { PgProblemDisk } from './pg-problem.js';

/** Disks in the order of their ids, with their domains numbered in the order of appearance. */
export interface Landscape {
  readonly disks: readonly PgProblemDisk[];
  readonly domainOf: readonly number[];
  readonly domainCount: number;
  /** The part of all PGs that each disk may have: 1, or what a full disk has now. */
  readonly shareMax: readonly number[];
}

export function landscapeOf(disks: readonly PgProblemDisk[]): Landscape {
  const sorted = [...disks].sort((a, b) => (a.id < b.id ? -1 : 1));
  const numbers = new Map<string, number>();
  const domainOf = sorted.map(({ domain }) => {
    const known = numbers.get(domain);
    if (known !== undefined) return known;
    numbers.set(domain, numbers.size);
    return numbers.size - 1;
  });
  return { disks: sorted, domainOf, domainCount: numbers.size, shareMax: sorted.map(() => 1) };
}

/**
 * The optimum U, by linear programming: maximize U, where disk d takes y_d bytes,
 *   0 ≤ y_d ≤ capacity_d,   Σ y_d = width · U,   Σ over the disks of a domain y_d ≤ U,   y_d ≤ shareMax_d · U.
 */
export function optimumBytes(landscape: Landscape, width: number, solve: SolveLinear): number {
  const { disks, domainOf, domainCount, shareMax } = landscape;
  // In units of the largest disk: the solver's tolerances are absolute.
  const unit = Math.max(...disks.map((disk) => disk.capacityBytes));
  const program = new LinearProgram();
  const size = program.variable({ cost: -1, min: 0, max: Number.POSITIVE_INFINITY });
  const shares = disks.map((disk) => program.variable({ cost: 0, min: 0, max: disk.capacityBytes / unit }));
  const all = shares.map((variable) => ({ variable, factor: 1 }));
  program.row([...all, { variable: size, factor: -width }], '=', 0);
  for (let domain = 0; domain < domainCount; domain++) {
    const terms = all.filter((_, disk) => domainOf[disk] === domain);
    program.row([...terms, { variable: size, factor: -1 }], '<=', 0);
  }
  all.forEach((share, disk) => {
    const max = shareMax[disk] ?? 1;
    if (max < 1) program.row([share, { variable: size, factor: -max }], '<=', 0);
  });
  return (solve(program)?.value(size) ?? 0) * unit;
}

/**
 * Each disk's share of `pgCount` PGs at the optimum, as a fraction of PGs: a domain takes what it has, at most all PGs;
 * its disks take it in proportion.
 */
export function fairShares(landscape: Landscape, optimum: number, pgCount: number): number[] {
  const { disks, domainOf, domainCount, shareMax } = landscape;
  const room = disks.map((disk, index) => Math.min(disk.capacityBytes, (shareMax[index] ?? 1) * optimum));
  const totals = new Array<number>(domainCount).fill(0);
  room.forEach((bytes, index) => {
    totals[domainOf[index] ?? 0] = (totals[domainOf[index] ?? 0] ?? 0) + bytes;
  });
  return room.map((bytes, index) => {
    const total = totals[domainOf[index] ?? 0] ?? 1;
    return total === 0 ? 0 : ((Math.min(total, optimum) * bytes) / total / optimum) * pgCount;
  });
}

/** The largest bytes per PG with which whole PGs still find a place each: what even filling can reach at best. */
export function evenPgBytesMax(landscape: Landscape, at: { optimum: number; pgCount: number; width: number }): number {
  const { pgCount, width } = at;
  let [fits, fails] = [0, (at.optimum / pgCount) * (1 + 1e-9)];
  if (placesFor(landscape, fails, pgCount) >= width * pgCount) return fails;
  for (let round = 0; round < 60; round++) {
    const middle = (fits + fails) / 2;
    if (placesFor(landscape, middle, pgCount) >= width * pgCount) fits = middle;
    else fails = middle;
  }
  return fits;
}

function placesFor(landscape: Landscape, pgBytes: number, pgCount: number): number {
  const places = new Array<number>(landscape.domainCount).fill(0);
  landscape.domainOf.forEach((domain, disk) => {
    places[domain] = (places[domain] ?? 0) + placesOn(landscape, disk, { pgBytes, pgCount });
  });
  return places.reduce((sum, count) => sum + Math.min(count, pgCount), 0);
}

/** How many PGs of that size the disk, by number, has room for and may have. */
export function placesOn(landscape: Landscape, disk: number, of: { pgBytes: number; pgCount: number }): number {
  const room = Math.floor(((landscape.disks[disk]?.capacityBytes ?? 0) / of.pgBytes) * (1 + 1e-12));
  return Math.min(Math.round((landscape.shareMax[disk] ?? 1) * of.pgCount), room);
}

/** The optimum again, by bisection: quick enough for the event loop, where linear programming is not. */
export function waterLevelBytes(disks: readonly { domain: string; capacityBytes: number }[], width: number): number {
  const totals = new Map<string, number>();
  for (const { domain, capacityBytes } of disks) totals.set(domain, (totals.get(domain) ?? 0) + capacityBytes);
  if (totals.size < width) return 0;
  let [low, high] = [0, [...totals.values()].reduce((sum, total) => sum + total, 0) / width];
  for (let round = 0; round < 64; round++) {
    const level = (low + high) / 2;
    let reached = 0;
    for (const total of totals.values()) reached += Math.min(total, level);
    if (reached >= width * level) low = level;
    else high = level;
  }
  return low;
}
