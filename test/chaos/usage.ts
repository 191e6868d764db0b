// SPDX-License-Identifier: Apache-2.0
// What processes hold over time: memory, descriptors, threads, and how fast each grows.
// A process that is killed and started again begins anew; the slope of a name is fitted over all its lives together, each
// with a level of its own and without its warm-up. A change of role (a standby that became active) counts as a new life,
// which needs no warm-up, only a moment to settle.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** As heap-probe.mjs saw it last. */
export interface Heap {
  /** In use by JavaScript, buffers included, right after a full collection. */
  readonly liveKib: number;
  /** What V8 keeps for that. */
  readonly reservedKib: number;
}

export interface Sample {
  readonly pid: number;
  /** What it was doing; levels differ between roles, so each begins anew. */
  readonly role: string;
  readonly atMs: number;
  readonly rssKib: number;
  /** Null until the process has said it. */
  readonly heap: Heap | null;
  readonly descriptors: number;
  readonly threads: number;
}

/** Per hour, all the time and late in the run. */
export interface Growth {
  readonly last: number;
  readonly perHour: number;
  /** Null: no life was long enough there. */
  readonly latePerHour: number | null;
}

export interface Slope {
  readonly name: string;
  readonly lives: number;
  /** Time that the fit looked at. */
  readonly fittedMs: number;
  readonly rssMib: Growth;
  /** What JavaScript has in use; null when nobody said. */
  readonly liveMib: Growth | null;
  /** Resident beyond what V8 keeps: code, threads' stacks, native memory. */
  readonly nativeMib: Growth | null;
  readonly descriptors: Growth;
  readonly threads: Growth;
}

const kibPerMib = 1024;
const msPerHour = 3_600_000;
const settleMs = 10_000;

/** Null when the process is gone. `heapFolder`: where heap-probe.mjs writes, when it is loaded there. */
export function sampleProcess(pid: number, role: string, atMs: number, heapFolder?: string): Sample | null {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? Number.NaN);
    const [rssKib, threads] = [field('VmRSS'), field('Threads')];
    if (Number.isNaN(rssKib)) return null;
    const heap = heapFolder === undefined ? null : heapOf(pid, heapFolder);
    return { pid, role, atMs, rssKib, heap, threads, descriptors: readdirSync(`/proc/${pid}/fd`).length };
  } catch {
    return null;
  }
}

function heapOf(pid: number, folder: string): Heap | null {
  const path = join(folder, `${pid}.heap`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Heap) : null;
}

/** Least squares with one slope for all groups and a level for each. 0 when there is nothing to fit. */
export function commonSlope(groups: readonly (readonly { x: number; y: number }[])[]): number {
  let covariance = 0;
  let variance = 0;
  for (const group of groups) {
    const mean = (of: (point: { x: number; y: number }) => number): number =>
      group.reduce((sum, point) => sum + of(point), 0) / group.length;
    const [x, y] = [mean((point) => point.x), mean((point) => point.y)];
    for (const point of group) {
      covariance += (point.x - x) * (point.y - y);
      variance += (point.x - x) ** 2;
    }
  }
  return variance === 0 ? 0 : covariance / variance;
}

/** Null when no life was longer than the warm-up. `lateMs`: when the late part of the run begins. */
export function slopeOf(
  name: string,
  samples: readonly Sample[],
  { warmUpMs, lateMs }: { warmUpMs: number; lateMs: number },
): Slope | null {
  const startedMs = new Map<number, number>();
  const lives: Sample[][] = [];
  for (const sample of samples) {
    if (!startedMs.has(sample.pid)) startedMs.set(sample.pid, sample.atMs);
    const previous = lives.at(-1)?.at(-1);
    if (previous?.pid === sample.pid && previous.role === sample.role) lives.at(-1)?.push(sample);
    else lives.push([sample]);
  }
  const isWarm = (sample: Sample, life: readonly Sample[]): boolean =>
    sample.atMs - (startedMs.get(sample.pid) ?? 0) >= warmUpMs && sample.atMs - (life[0]?.atMs ?? 0) >= settleMs;
  const warm = lives.map((life) => life.filter((sample) => isWarm(sample, life))).filter((life) => life.length >= 2);
  if (warm.length === 0) return null;
  const growth = (of: (sample: Sample) => number | null): Growth | null => growthOf(warm, lateMs, of);
  const always = (of: (sample: Sample) => number): Growth =>
    growthOf(warm, lateMs, of) ?? { last: 0, perHour: 0, latePerHour: null };
  return {
    name,
    lives: startedMs.size,
    fittedMs: warm.reduce((sum, life) => sum + spanMs(life), 0),
    rssMib: always((sample) => sample.rssKib / kibPerMib),
    liveMib: growth(({ heap }) => (heap === null ? null : heap.liveKib / kibPerMib)),
    nativeMib: growth(({ heap, rssKib }) => (heap === null ? null : (rssKib - heap.reservedKib) / kibPerMib)),
    descriptors: always((sample) => sample.descriptors),
    threads: always((sample) => sample.threads),
  };
}

function spanMs(life: readonly Sample[]): number {
  return (life.at(-1)?.atMs ?? 0) - (life[0]?.atMs ?? 0);
}

/** Null when no sample has a value. */
function growthOf(
  lives: readonly (readonly Sample[])[],
  lateMs: number,
  of: (sample: Sample) => number | null,
): Growth | null {
  const points = lives
    .map((life) =>
      life.flatMap((sample) => {
        const y = of(sample);
        return y === null ? [] : [{ x: sample.atMs, y }];
      }),
    )
    .filter((life) => life.length > 0);
  const last = points.at(-1)?.at(-1)?.y;
  if (last === undefined) return null;
  const late = points.map((life) => life.filter(({ x }) => x >= lateMs)).filter((life) => life.length >= 2);
  return {
    last,
    perHour: commonSlope(points) * msPerHour,
    latePerHour: late.length === 0 ? null : commonSlope(late) * msPerHour,
  };
}
