// SPDX-License-Identifier: Apache-2.0
//
// PG → disks: the most capacity first, then the least movement. docs/placement.md has the formulation.
//
// Invariants:  - the same problem has the same plan, whatever the order of its disks
//              - every PG has `width` disks of distinct domains; none holds more than it has room for
//              - a disk that is full keeps its PGs and gets no other

import { BasaltError } from '../model/errors.js';
import { evenPgBytesMax, fairShares, type Landscape, landscapeOf, optimumBytes } from './capacity.js';
import type { SolveLinear } from './linear-program.js';
import type { PgMove, PgPlan, PgProblem } from './pg-problem.js';
import { realise } from './realise.js';
import { leastMovement, targets } from './targets.js';

/** A map that is changed may stay this far below what it could hold, if that saves movement. */
const slackOfOptimum = 0.985;
const slackOfWhole = 0.995;
/** Of what a disk has in the map with the least movement, it gets so much in any case. */
const leastShare = 0.95;

/** @throws PLACEMENT_IMPOSSIBLE when a PG's data has no place; PLANNER_FAILED */
export function planPgs(problem: PgProblem, solve: SolveLinear): PgPlan {
  const { pgCount, width } = problem;
  const all = landscapeOf(problem.disks);
  const before = presentMap(all, problem);
  const current = countPerDisk(before, all.disks.length);
  const shareMax = all.disks.map((disk, index) => (disk.full === true ? (current[index] ?? 0) / pgCount : 1));
  const landscape: Landscape = { ...all, shareMax };
  const optimum = optimumBytes(landscape, width, solve);
  if (!(optimum > 0)) throw noRoomBeside(problem);
  const fair = fairShares(landscape, optimum, pgCount);
  const first = current.every((count) => count === 0);
  const whole = evenPgBytesMax(landscape, { optimum, pgCount, width });
  const pgBytes = first ? whole : Math.min((optimum / pgCount) * slackOfOptimum, whole * slackOfWhole);
  const movement = leastMovement(landscape, { pgCount, width, current, optimum }, solve);
  const least = movement.shares.map((share) => (first ? 0 : Math.floor(share * leastShare)));
  const wanted = targets(landscape, { pgCount, width, current, fair, pgBytes, least }, solve);
  const pgs = before.map((members) => [...members]);
  const unfilled = realise({
    pgs,
    domainOf: landscape.domainOf,
    domainCount: landscape.domainCount,
    targets: wanted,
    capacityBytes: landscape.disks.map((disk) => disk.capacityBytes),
    pgBytes: problem.pgBytes ?? [],
    full: new Set(landscape.disks.flatMap((disk, index) => (disk.full === true ? [index] : []))),
  });
  if (unfilled.length > 0) throw noRoom(problem, unfilled);
  return {
    disks: landscape.disks,
    pgs,
    moves: movesBetween(problem, landscape, pgs),
    evenBytes: evenBytesOf(landscape, pgs),
    optimumBytes: optimum,
    movesMin: movement.moves,
  };
}

/** By number; disks that are gone, or that came to stand in one domain with another of the PG, leave a free place. */
function presentMap(landscape: Landscape, problem: PgProblem): number[][] {
  const numbers = new Map(landscape.disks.map((disk, index) => [disk.id, index]));
  return Array.from({ length: problem.pgCount }, (_, pg) => {
    const domains = new Set<number>();
    return Array.from({ length: problem.width }, (_, place) => {
      const disk = numbers.get(problem.current?.[pg]?.[place] ?? '') ?? -1;
      if (disk < 0 || domains.has(landscape.domainOf[disk] ?? 0)) return -1;
      domains.add(landscape.domainOf[disk] ?? 0);
      return disk;
    });
  });
}

export function countPerDisk(pgs: readonly (readonly number[])[], diskCount: number): number[] {
  const counts = new Array<number>(diskCount).fill(0);
  for (const members of pgs) for (const disk of members) if (disk >= 0) counts[disk] = (counts[disk] ?? 0) + 1;
  return counts;
}

function movesBetween(problem: PgProblem, landscape: Landscape, after: readonly (readonly number[])[]): PgMove[] {
  return after.flatMap((members, pg) => {
    const now = members.map((disk) => landscape.disks[disk]?.id ?? '');
    const was = problem.current?.[pg] ?? [];
    const left = was.filter((id) => !now.includes(id));
    return now.filter((id) => !was.includes(id)).map((to, index) => ({ pg, from: left[index] ?? null, to }));
  });
}

/** Filled evenly, the disk with the most PGs for its size is full first. */
export function evenBytesOf(landscape: Landscape, pgs: readonly (readonly number[])[]): number {
  const counts = countPerDisk(pgs, landscape.disks.length);
  let perPg = Number.POSITIVE_INFINITY;
  counts.forEach((count, disk) => {
    if (count > 0) perPg = Math.min(perPg, (landscape.disks[disk]?.capacityBytes ?? 0) / count);
  });
  return Number.isFinite(perPg) ? perPg * pgs.length : 0;
}

/** Disks have something; hence only those that get nothing can be in the way. */
function noRoomBeside(problem: PgProblem): BasaltError {
  const full = problem.disks.filter((disk) => disk.full === true).length;
  if (full === 0) return new BasaltError('PLANNER_FAILED', { detail: 'the disks have no room' });
  const what = `${full} ${full === 1 ? 'disk is' : 'disks are'} to get nothing more, and the others are in too few failure domains`;
  return new BasaltError('PLACEMENT_IMPOSSIBLE', {
    field: 'disks',
    problem: `${what}: uncordon one, or add a disk in another failure domain`,
  });
}

function noRoom(problem: PgProblem, unfilled: readonly number[]): BasaltError {
  const bytes = unfilled.reduce((sum, pg) => sum + (problem.pgBytes?.[pg] ?? 0), 0);
  const largest = Math.max(...unfilled.map((pg) => problem.pgBytes?.[pg] ?? 0));
  const what =
    `${unfilled.length} ${unfilled.length === 1 ? 'PG has' : 'PGs have'} no disk with room in a domain of its own ` +
    `(${bytes} bytes in all): add ${bytes} bytes in another failure domain, with at least ${largest} on one disk`;
  return new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'disks', problem: what });
}
