// SPDX-License-Identifier: Apache-2.0
// What processes hold over time: memory, descriptors, threads, and how fast each grows.
// A process that is killed and started again begins anew; the slope of a name is fitted over all its lives together, each
// with a level of its own and without its warm-up. A change of role (a standby that became active) counts as a new life,
// which needs no warm-up, only a moment to settle.

import { readdirSync, readFileSync } from 'node:fs';

export interface Sample {
  readonly pid: number;
  /** What it was doing; levels differ between roles, so each begins anew. */
  readonly role: string;
  readonly atMs: number;
  readonly rssKib: number;
  readonly descriptors: number;
  readonly threads: number;
}

export interface Slope {
  readonly name: string;
  readonly lives: number;
  /** Time that the fit looked at. */
  readonly fittedMs: number;
  readonly rssMibLast: number;
  readonly rssMibPerHour: number;
  readonly descriptorsLast: number;
  readonly descriptorsPerHour: number;
  readonly threadsLast: number;
  readonly threadsPerHour: number;
}

const kibPerMib = 1024;
const msPerHour = 3_600_000;
const settleMs = 10_000;

/** Null when the process is gone. */
export function sampleProcess(pid: number, role: string, atMs: number): Sample | null {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? Number.NaN);
    const [rssKib, threads] = [field('VmRSS'), field('Threads')];
    if (Number.isNaN(rssKib)) return null;
    return { pid, role, atMs, rssKib, threads, descriptors: readdirSync(`/proc/${pid}/fd`).length };
  } catch {
    return null;
  }
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

/** Null when no life was longer than the warm-up. */
export function slopeOf(name: string, samples: readonly Sample[], warmUpMs: number): Slope | null {
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
  const last = samples.at(-1);
  if (warm.length === 0 || last === undefined) return null;
  const perHour = (of: (sample: Sample) => number): number =>
    commonSlope(warm.map((life) => life.map((sample) => ({ x: sample.atMs, y: of(sample) })))) * msPerHour;
  return {
    name,
    lives: startedMs.size,
    fittedMs: warm.reduce((sum, life) => sum + (life.at(-1)?.atMs ?? 0) - (life[0]?.atMs ?? 0), 0),
    rssMibLast: last.rssKib / kibPerMib,
    rssMibPerHour: perHour((sample) => sample.rssKib / kibPerMib),
    descriptorsLast: last.descriptors,
    descriptorsPerHour: perHour((sample) => sample.descriptors),
    threadsLast: last.threads,
    threadsPerHour: perHour((sample) => sample.threads),
  };
}
