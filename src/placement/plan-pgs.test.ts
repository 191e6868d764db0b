// SPDX-License-Identifier: Apache-2.0
// What holds for every plan, on drawn clusters; and the figures that the design promises.

import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { isBasaltError } from '../model/errors.js';
import { landscapeOf, optimumBytes, waterLevelBytes } from './capacity.js';
import { LinearProgram, loadHighs, type SolveLinear } from './linear-program.js';
import type { PgPlan, PgProblem, PgProblemDisk } from './pg-problem.js';
import { planPgs } from './plan-pgs.js';

let solve: SolveLinear;

beforeAll(async () => {
  solve = await loadHighs();
});

const gib = 2 ** 30;
const problem = (disks: readonly PgProblemDisk[], more: Partial<PgProblem> = {}): PgProblem => ({
  disks,
  pgCount: 256,
  width: 2,
  current: null,
  pgBytes: null,
  ...more,
});

function idsOf(plan: PgPlan): string[][] {
  return plan.pgs.map((members) => members.map((disk) => plan.disks[disk]?.id ?? ''));
}

/** PGs enough that a disk of the smallest share still has some tens of them. */
const pgCountFor = (disks: number, width: number): number => 2 ** Math.ceil(Math.log2((disks * 100) / width));

function checkConstraints(plan: PgPlan, of: PgProblem): void {
  expect(plan.pgs).toHaveLength(of.pgCount);
  const load = new Map<number, number>();
  plan.pgs.forEach((members, pg) => {
    expect(members).toHaveLength(of.width);
    expect(new Set(members.map((disk) => plan.disks[disk]?.domain)).size).toBe(of.width);
    for (const disk of members) load.set(disk, (load.get(disk) ?? 0) + (of.pgBytes?.[pg] ?? 0));
  });
  for (const [disk, bytes] of load) expect(bytes).toBeLessThanOrEqual(plan.disks[disk]?.capacityBytes ?? 0);
}

/** Clusters of up to 8 domains with up to 5 disks each, sizes up to 16 to 1. */
const uneven = fc
  .record({
    domains: fc.array(fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 5 }), {
      minLength: 2,
      maxLength: 8,
    }),
    width: fc.integer({ min: 1, max: 4 }),
  })
  .filter(({ domains, width }) => domains.length >= width)
  .map(({ domains, width }) => ({
    width,
    disks: domains.flatMap((sizes, domain) =>
      sizes.map(
        (size, at): PgProblemDisk => ({ id: `d${domain}.${at}`, domain: `n${domain}`, capacityBytes: size * gib }),
      ),
    ),
  }));

/** The least movement of all maps at 98.5 % of the optimum, PG by PG, fractions allowed. */
function leastMoves(of: PgProblem): number {
  const landscape = landscapeOf(of.disks);
  const { disks, domainOf, domainCount } = landscape;
  const optimum = optimumBytes(landscape, of.width, solve) * 0.985;
  const program = new LinearProgram();
  const gains: string[] = [];
  const places = Array.from({ length: of.pgCount }, (_, pg) =>
    disks.map((disk) => {
      const gain = of.current?.[pg]?.includes(disk.id) !== true;
      const variable = program.variable({ cost: gain ? 1 : 0, min: 0, max: 1 });
      if (gain) gains.push(variable);
      return { variable, factor: 1 };
    }),
  );
  for (const members of places) {
    program.row(members, '=', of.width);
    for (let domain = 0; domain < domainCount; domain++)
      program.row(
        members.filter((_, disk) => domainOf[disk] === domain),
        '<=',
        1,
      );
  }
  disks.forEach((disk, index) => {
    const all = places.map((members) => members[index]!);
    program.row(all, '<=', (disk.capacityBytes / optimum) * of.pgCount);
  });
  const solution = solve(program);
  if (solution === null) throw new Error('no solution');
  return gains.reduce((sum, gain) => sum + solution.value(gain), 0);
}

describe('the optimum', () => {
  it('is by linear programming what it is by raising the water level', () => {
    fc.assert(
      fc.property(uneven, ({ disks, width }) => {
        const exact = waterLevelBytes(disks, width);
        expect(optimumBytes(landscapeOf(disks), width, solve) / exact).toBeCloseTo(1, 6);
      }),
      { numRuns: 25 },
    );
  });
});

describe('a first fill', () => {
  it('keeps to domains and capacity, is the same in any order of disks, and reaches 98 % of the optimum', () => {
    fc.assert(
      fc.property(uneven, ({ disks, width }) => {
        const asked = problem(disks, { width, pgCount: pgCountFor(disks.length, width) });
        const plan = planPgs(asked, solve);
        checkConstraints(plan, asked);
        expect(planPgs({ ...asked, disks: [...disks].reverse() }, solve)).toEqual(plan);
        expect(plan.evenBytes).toBeGreaterThanOrEqual(0.98 * plan.optimumBytes);
        expect(plan.evenBytes).toBeLessThanOrEqual(plan.optimumBytes * (1 + 1e-6));
      }),
      { numRuns: 25 },
    );
  });

  it('makes many different groups, so that a rebuild reads from many disks', () => {
    const disks = Array.from({ length: 12 }, (_, at) => ({
      id: `d${10 + at}`,
      domain: `n${at % 6}`,
      capacityBytes: gib,
    }));
    const plan = planPgs(problem(disks), solve);
    const partners = new Set(plan.pgs.filter((members) => members.includes(0)).flat());
    expect(partners.size).toBe(11);
  });
});

describe('a change', () => {
  const grown = fc.record({ cluster: uneven, size: fc.integer({ min: 1, max: 16 }), at: fc.nat(8) });

  it('by one more disk moves at most 1.1 times the least, and reaches 98 % of the new optimum', () => {
    fc.assert(
      fc.property(grown, ({ cluster, size, at }) => {
        const { disks, width } = cluster;
        const pgCount = pgCountFor(disks.length + 1, width);
        const before = planPgs(problem(disks, { width, pgCount }), solve);
        const more = [...disks, { id: 'new', domain: `n${at}`, capacityBytes: size * gib }];
        const asked = problem(more, { width, pgCount, current: idsOf(before) });
        const after = planPgs(asked, solve);
        checkConstraints(after, asked);
        // Whole PGs move: where the least is a fraction of one, one may.
        expect(after.moves.length).toBeLessThanOrEqual(Math.max(1, 1.1 * after.movesMin));
        expect(after.evenBytes).toBeGreaterThanOrEqual(0.98 * after.optimumBytes);
      }),
      { numRuns: 25 },
    );
  });

  it('of nothing moves nothing', () => {
    fc.assert(
      fc.property(uneven, ({ disks, width }) => {
        const asked = problem(disks, { width });
        const plan = planPgs(asked, solve);
        expect(planPgs({ ...asked, current: idsOf(plan) }, solve).moves).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  it('by the loss of a disk replaces its places, and moves little else', () => {
    fc.assert(
      fc.property(uneven, fc.nat(), ({ disks, width }, which) => {
        const lost = disks[which % disks.length];
        const rest = disks.filter((disk) => disk !== lost);
        fc.pre(new Set(rest.map((disk) => disk.domain)).size >= width);
        const pgCount = pgCountFor(disks.length, width);
        const before = planPgs(problem(disks, { width, pgCount }), solve);
        const asked = problem(rest, { width, pgCount, current: idsOf(before) });
        const after = planPgs(asked, solve);
        checkConstraints(after, asked);
        const least = leastMoves(asked);
        expect(after.moves.length).toBeGreaterThanOrEqual(Math.floor(least));
        // The bound cuts PGs to pieces; whole ones leave half a place unused on each disk on the average. Where the
        // partners of what was lost leave few domains free, a chain of moves is needed: 1.24 times was seen (four copies
        // in six uneven domains, seed 617210158, path 7). Only for one more disk is 1.1 times promised, above.
        expect(after.moves.length).toBeLessThanOrEqual(1.3 * least + disks.length / 2);
        expect(after.evenBytes).toBeGreaterThanOrEqual(0.98 * after.optimumBytes);
      }),
      { numRuns: 8, endOnFailure: true },
    );
  });

  it('gives no disk more than it has room for, or says what is missing', () => {
    const fill = fc.double({ min: 0.3, max: 0.98, noNaN: true });
    fc.assert(
      fc.property(uneven, fill, fc.nat(), ({ disks, width }, part, which) => {
        const before = planPgs(problem(disks, { width }), solve);
        const pgBytes = before.pgs.map(() => Math.floor((before.evenBytes / before.pgs.length) * part));
        const rest = disks.filter((_, at) => at !== which % disks.length);
        fc.pre(new Set(rest.map((disk) => disk.domain)).size >= width);
        const asked = problem(rest, { width, current: idsOf(before), pgBytes });
        try {
          checkConstraints(planPgs(asked, solve), asked);
        } catch (error) {
          if (!isBasaltError(error, 'PLACEMENT_IMPOSSIBLE')) throw error;
          expect(error.message).toMatch(/add \d+ bytes/);
          // Refused only when it really is nearly full.
          expect(pgBytes[0]! * pgBytes.length).toBeGreaterThan(0.8 * optimumBytes(landscapeOf(rest), width, solve));
        }
      }),
      { numRuns: 25 },
    );
  });

  it('finds a place for what a disk leaves behind, beside disks that get nothing more', () => {
    fc.assert(
      fc.property(uneven, fc.nat(), fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (cluster, lost, full) => {
        const { disks, width } = cluster;
        const before = planPgs(problem(disks, { width }), solve);
        const rest = disks
          .filter((_, at) => at !== lost % disks.length)
          .map((disk, at): PgProblemDisk => (full[at] === true ? { ...disk, full: true } : disk));
        fc.pre(new Set(rest.filter((disk) => disk.full !== true).map((disk) => disk.domain)).size >= width);
        const asked = problem(rest, { width, current: idsOf(before) });
        const plan = planPgs(asked, solve);
        checkConstraints(plan, asked);
        const fullIds = new Set(rest.filter((disk) => disk.full === true).map(({ id }) => id));
        expect(plan.moves.filter(({ to }) => fullIds.has(to))).toEqual([]);
      }),
      { numRuns: 25, endOnFailure: true },
    );
  });

  it('beside disks that get nothing more is refused where the others are in too few domains', () => {
    const disks = ['a', 'b', 'c'].map((id): PgProblemDisk => ({ id, domain: id, capacityBytes: gib }));
    const current = idsOf(planPgs(problem(disks), solve));
    const rest = disks.slice(1).map((disk): PgProblemDisk => (disk.id === 'b' ? { ...disk, full: true } : disk));
    expect(() => planPgs(problem(rest, { current }), solve)).toThrow(/1 disk is to get nothing more.*uncordon/);
  });
});
