// SPDX-License-Identifier: Apache-2.0
// npm run bench -- placement: how long planning takes, how much capacity a map leaves usable and how much a change moves,
// each beside straw2 on the same tree. docs/placement.md says what the figures mean.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fairShares, type Landscape, landscapeOf, waterLevelBytes } from '../../src/placement/capacity.js';
import { LinearProgram, loadHighs, type SolveLinear } from '../../src/placement/linear-program.js';
import type { PgPlan, PgProblem, PgProblemDisk } from '../../src/placement/pg-problem.js';
import { evenBytesOf, planPgs } from '../../src/placement/plan-pgs.js';
import { WorkerPlanner } from '../../src/placement/planner.js';
import type { BenchOptions } from '../main.js';
import { type Figure, rounded } from '../report.js';
import { straw2Map } from './straw2.js';
import { type Tree, trees } from './trees.js';

type Report = (figure: Figure) => void;

const blank = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null };

export async function benchPlacement(options: BenchOptions, report: Report): Promise<void> {
  const solve = await loadHighs();
  const wanted = (name: string): boolean => name.includes(options.only);
  for (const tree of trees) if (wanted(`placement/${tree.name}`)) measureTree(tree, solve, report);
  if (wanted('placement/event-loop')) await measureEventLoop(report);
}

function measureTree(tree: Tree, solve: SolveLinear, report: Report): void {
  const { disks, pgCount, width } = tree;
  const name = `placement/${tree.name}`;
  const asked: PgProblem = { disks, pgCount, width, current: null, pgBytes: null };
  const first = timed(() => planPgs(asked, solve));
  report({ ...blank, name: `${name}/first-fill`, value: rounded(first.ms), unit: 'ms', cpu_ms: rounded(first.cpuMs) });
  const map = idsOf(first.value);
  const hashed = straw2Map(disks, tree);
  const usable = (of: readonly (readonly string[])[], among: readonly PgProblemDisk[]): number =>
    rounded((100 * evenBytes(among, of)) / waterLevelBytes(among, width));
  const even = usable(map, disks);
  report({ ...blank, name: `${name}/usable`, value: even, unit: '%', straw2: usable(hashed, disks) });
  // Optimal steering of what is put where cannot do better than this with the same map.
  const steered = (of: readonly (readonly string[])[]): number =>
    rounded((100 * steeredBytes(disks, of, solve)) / waterLevelBytes(disks, width));
  report({ ...blank, name: `${name}/usable-steered`, value: steered(map), unit: '%', straw2: steered(hashed) });
  const lostNode = disks[0]?.domain;
  const changes: [string, PgProblemDisk[]][] = [
    ['add-disk', [...disks, tree.more]],
    ['lose-disk', disks.slice(1)],
    ['lose-node', disks.filter((disk) => disk.domain !== lostNode)],
  ];
  for (const [what, after] of changes) {
    const least = leastMoves(tree, after);
    const planned = timed(() => planPgs({ ...asked, disks: after, current: map }, solve));
    const cpu = rounded(planned.cpuMs);
    report({ ...blank, name: `${name}/${what}/replan`, value: rounded(planned.ms), unit: 'ms', cpu_ms: cpu });
    report({
      ...blank,
      name: `${name}/${what}/moved`,
      value: rounded(planned.value.moves.length / least),
      unit: 'x',
      straw2: rounded(differences(hashed, straw2Map(after, tree)) / least),
      moves: planned.value.moves.length,
      least: rounded(least),
      usable: usable(idsOf(planned.value), after),
    });
  }
}

/** The planner's answer comes from a thread of its own; what is left on this one is sending and receiving. */
async function measureEventLoop(report: Report): Promise<void> {
  const tree = trees[1];
  if (tree === undefined) return;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const before = performance.eventLoopUtilization();
  const start = performance.now();
  const plan = await new WorkerPlanner().plan({ ...tree, current: null, pgBytes: null });
  const again = await new WorkerPlanner().plan({ ...tree, current: idsOf(plan), pgBytes: null });
  delay.disable();
  if (again.moves.length > 0) throw new Error('planning nothing new moved something');
  const ms = performance.now() - start;
  const held = rounded(delay.max / 1e6);
  // What JavaScript of this thread took in all; `held` has what other processes took of its core, too.
  const busy = rounded(performance.eventLoopUtilization(before).active);
  report({
    ...blank,
    name: 'placement/event-loop/held-max',
    value: held,
    unit: 'ms',
    busy_ms: busy,
    of_ms: rounded(ms),
  });
}

/** On a shared machine the processor time says what the clock does not. */
function timed<T>(run: () => T): { value: T; ms: number; cpuMs: number } {
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  const value = run();
  const { user, system } = process.cpuUsage(cpu);
  return { value, ms: performance.now() - start, cpuMs: (user + system) / 1000 };
}

function idsOf(plan: PgPlan): string[][] {
  return plan.pgs.map((members) => members.map((disk) => plan.disks[disk]?.id ?? ''));
}

function numbered(landscape: Landscape, map: readonly (readonly string[])[]): number[][] {
  const numbers = new Map(landscape.disks.map((disk, at) => [disk.id, at]));
  return map.map((members) => members.map((id) => numbers.get(id) ?? -1));
}

function evenBytes(disks: readonly PgProblemDisk[], map: readonly (readonly string[])[]): number {
  const landscape = landscapeOf(disks);
  return evenBytesOf(landscape, numbered(landscape, map));
}

/** The most that fits into the PGs as they are, each as large as it likes: maximize Σ s_p, Σ over a disk's PGs s_p ≤ its size. */
function steeredBytes(
  disks: readonly PgProblemDisk[],
  map: readonly (readonly string[])[],
  solve: SolveLinear,
): number {
  const landscape = landscapeOf(disks);
  const unit = Math.max(...disks.map((disk) => disk.capacityBytes));
  const program = new LinearProgram();
  const pgs = map.map(() => program.variable({ cost: -1, min: 0, max: Number.POSITIVE_INFINITY }));
  const on = landscape.disks.map((): { variable: string; factor: number }[] => []);
  numbered(landscape, map).forEach((members, pg) => {
    for (const disk of members) on[disk]?.push({ variable: pgs[pg] ?? '', factor: 1 });
  });
  on.forEach((terms, disk) => {
    if (terms.length > 0) program.row(terms, '<=', (landscape.disks[disk]?.capacityBytes ?? 0) / unit);
  });
  const solution = solve(program);
  return pgs.reduce((sum, pg) => sum + (solution?.value(pg) ?? 0), 0) * unit;
}

/** Places that any map must move between two maps that are both at their optimum: what disks gain. */
function leastMoves(tree: Tree, after: readonly PgProblemDisk[]): number {
  const shares = (disks: readonly PgProblemDisk[]): Map<string, number> => {
    const landscape = landscapeOf(disks);
    const fair = fairShares(landscape, waterLevelBytes(disks, tree.width), tree.pgCount);
    return new Map(landscape.disks.map((disk, at) => [disk.id, fair[at] ?? 0]));
  };
  const [was, is] = [shares(tree.disks), shares(after)];
  let gained = 0;
  for (const [disk, share] of is) gained += Math.max(0, share - (was.get(disk) ?? 0));
  return gained;
}

function differences(before: readonly (readonly string[])[], after: readonly (readonly string[])[]): number {
  return after.reduce((sum, members, pg) => sum + members.filter((id) => before[pg]?.includes(id) !== true).length, 0);
}
