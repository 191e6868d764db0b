// SPDX-License-Identifier: Apache-2.0
//
// How many PGs each disk shall have, by linear programming: enough for the capacity that is wanted, with the least moved.
//
// Why the answer is whole without rounding: every row sums variables of one disk, one domain or all disks, and of two such
// sets one holds the other or they have nothing in common. Such a matrix is that of a network, hence totally unimodular:
// with whole bounds every vertex is whole, and simplex ends at a vertex.

import { BasaltError } from '../model/errors.js';
import { type Landscape, placesOn } from './capacity.js';
import { LinearProgram, type SolveLinear, type Term } from './linear-program.js';

export interface TargetRequest {
  readonly pgCount: number;
  readonly width: number;
  /** PGs that each disk has now. */
  readonly current: readonly number[];
  readonly fair: readonly number[];
  /** Bytes per PG that every disk's number must leave room for. */
  readonly pgBytes: number;
  /** Whole PGs that a disk must have, however few moves that would save. */
  readonly least: readonly number[];
}

/** A move outweighs any unevenness. */
const moveCost = 1000;

interface Segment {
  readonly length: number;
  readonly slope: number;
}

export function targets(landscape: Landscape, request: TargetRequest, solve: SolveLinear): number[] {
  const { pgCount, width, fair } = request;
  const program = new LinearProgram();
  const perDisk = landscape.disks.map((_, index) => {
    const max = placesOn(landscape, index, request);
    const min = Math.min(max, request.least[index] ?? 0);
    const segments = costSegments({ min, max, share: fair[index] ?? 0, current: request.current[index] ?? 0 });
    const variables = segments.map(({ length, slope }) => program.variable({ cost: slope, min: 0, max: length }));
    // The first `min` of them are not a choice; as a variable with two equal bounds they keep the rows simple.
    if (min > 0) variables.push(program.variable({ cost: 0, min, max: min }));
    return variables;
  });
  const terms = perDisk.map((variables) => variables.map((variable): Term => ({ variable, factor: 1 })));
  program.row(terms.flat(), '=', width * pgCount);
  for (let domain = 0; domain < landscape.domainCount; domain++) {
    const members = terms.flatMap((entry, disk) => (landscape.domainOf[disk] === domain ? entry : []));
    if (members.length > 0) program.row(members, '<=', pgCount);
  }
  const solution = solve(program);
  if (solution === null) throw new BasaltError('PLANNER_FAILED', { detail: 'no number of PGs per disk fits' });
  return perDisk.map((variables) => {
    const exact = variables.reduce((sum, variable) => sum + solution.value(variable), 0);
    const whole = Math.round(exact);
    if (Math.abs(exact - whole) > 1e-6)
      throw new BasaltError('PLANNER_FAILED', { detail: `a vertex is not whole: ${exact}` });
    return whole;
  });
}

/**
 * What a disk's number of PGs costs, from `min` to `max`, as pieces of growing slope: below the fair share a gain, above
 * it a loss, relative to the share; every PG above the present number a move.
 */
function costSegments(disk: { min: number; max: number; share: number; current: number }): Segment[] {
  const { min, max, share, current } = disk;
  const down = Math.floor(share);
  const up = Math.ceil(share);
  const cuts = [...new Set([min, current, down, up, max])]
    .filter((cut) => cut >= min && cut <= max)
    .sort((a, b) => a - b);
  const weight = 1 / Math.max(share, 0.01);
  const segments: Segment[] = [];
  for (let index = 1; index < cuts.length; index++) {
    const [from = 0, to = 0] = [cuts[index - 1], cuts[index]];
    const moved = from >= current ? moveCost : 0;
    // Whoever is over by the smallest part of its share when rounded up is rounded up first.
    const uneven = to <= down ? -1 : from >= up ? weight + 1 : (up - share) * weight;
    segments.push({ length: to - from, slope: moved + uneven });
  }
  return segments;
}

export interface LeastMovement {
  /** Places of PGs that move, fractions allowed. */
  readonly moves: number;
  /** PGs that each disk has then. */
  readonly shares: readonly number[];
}

/**
 * The least that any map at the optimum must have moved, fractions allowed: Σ max(0, z_d − current_d) over
 *   0 ≤ z_d ≤ capacity_d · pgCount / optimum,   z_d ≤ shareMax_d · pgCount,   Σ z_d = width · pgCount,   Σ over a domain z_d ≤ pgCount.
 */
export function leastMovement(
  landscape: Landscape,
  request: { pgCount: number; width: number; current: readonly number[]; optimum: number },
  solve: SolveLinear,
): LeastMovement {
  const { pgCount, width, current, optimum } = request;
  const program = new LinearProgram();
  const parts: { keep: string; gain: string }[] = [];
  const terms = landscape.disks.map((disk, index) => {
    // A hair more than exact, so that rounding does not make it infeasible.
    const most = Math.min(landscape.shareMax[index] ?? 1, disk.capacityBytes / optimum);
    const max = most * pgCount * (1 + 1e-9);
    const kept = Math.min(current[index] ?? 0, max);
    const keep = program.variable({ cost: 0, min: 0, max: kept });
    const gain = program.variable({ cost: 1, min: 0, max: Math.max(0, max - kept) });
    parts.push({ keep, gain });
    return [keep, gain].map((variable): Term => ({ variable, factor: 1 }));
  });
  program.row(terms.flat(), '=', width * pgCount);
  for (let domain = 0; domain < landscape.domainCount; domain++)
    program.row(
      terms.flatMap((entry, disk) => (landscape.domainOf[disk] === domain ? entry : [])),
      '<=',
      pgCount * (1 + 1e-9),
    );
  const solution = solve(program);
  if (solution === null) throw new BasaltError('PLANNER_FAILED', { detail: 'the least movement has no solution' });
  const shares = parts.map(({ keep, gain }) => solution.value(keep) + solution.value(gain));
  return { moves: parts.reduce((sum, { gain }) => sum + solution.value(gain), 0), shares };
}
