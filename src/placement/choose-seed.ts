// SPDX-License-Identifier: Apache-2.0
//
// The mapping seed of a new range of a volume: of many seeds, the one whose PGs leave the fullest disk the emptiest. So
// what is computed from a seed still follows the space that there is.

import { BasaltError } from '../model/errors.js';
import type { ConflictRule } from '../model/route.js';
import { legPgs, seededPg } from './route.js';

export interface SeedRequest {
  /** Of each PG, disks by number. */
  readonly pgs: readonly (readonly number[])[];
  /** Not yet promised; null: nothing new may go there now. */
  readonly availableBytes: readonly (number | null)[];
  readonly capacityBytes: readonly number[];
  readonly legCount: number;
  readonly legSizeBytes: number;
  /** Of it, what holds none of the volume's bytes. */
  readonly overheadBytes: number;
  /** Members that a leg's bytes are divided among; absent: each holds all of them. */
  readonly dataMembers?: number | undefined;
  readonly conflict: ConflictRule;
  /** Where trying begins: below 2^32. */
  readonly firstSeed: number;
  /** For the message, when disks that are away are in the way. */
  readonly awayText: string;
}

export interface ChosenSeed {
  readonly seed: number;
  /** Of each leg. */
  readonly pgs: readonly number[];
}

const mib = 1024 * 1024;
/** Seeds looked at closely, and seeds tried at all: the second counts where many PGs have a disk that is away. */
const candidatesMax = 128;
const triesMax = 200_000;

/** @throws PLACEMENT_IMPOSSIBLE with the largest size that would fit */
export function chooseSeed(request: SeedRequest): ChosenSeed {
  const open = request.pgs.map((members) => members.every((disk) => request.availableBytes[disk] !== null));
  if (!open.includes(true)) throw noneOpen(request);
  let best: { chosen: ChosenSeed; weight: Weight } | null = null;
  let largestLegBytes = 0;
  let candidates = 0;
  for (let tries = 0; tries < triesMax && candidates < candidatesMax; tries++) {
    const seed = (request.firstSeed + tries) % 0x1_0000_0000;
    if (!open[seededPg(seed, 0, request.pgs.length)]) continue;
    const pgs = legPgs({ ...request, seed }, request.pgs.length);
    if (!pgs.every((pg) => open[pg])) continue;
    candidates += 1;
    const weight = weigh(request, pgs);
    largestLegBytes = Math.max(largestLegBytes, weight.legBytesMax);
    if (weight.legBytesMax < request.legSizeBytes || (best !== null && !lighter(weight, best.weight))) continue;
    best = { chosen: { seed, pgs }, weight };
  }
  if (best !== null) return best.chosen;
  throw candidates === 0 ? noneOpen(request) : tooLittleSpace(request, largestLegBytes);
}

interface Weight {
  /** Of the fullest disk that would get something. */
  readonly fill: number;
  /** Grows with every disk's fill, faster the fuller it is. */
  readonly unevenness: number;
  /** How large legs in these PGs could be. */
  readonly legBytesMax: number;
}

function lighter(a: Weight, b: Weight): boolean {
  if (Math.abs(a.fill - b.fill) > 1e-12) return a.fill < b.fill;
  return a.unevenness < b.unevenness - 1e-12;
}

function weigh(request: SeedRequest, pgs: readonly number[]): Weight {
  const legsOn = new Map<number, number>();
  for (const pg of pgs) for (const disk of request.pgs[pg] ?? []) legsOn.set(disk, (legsOn.get(disk) ?? 0) + 1);
  let fill = 0;
  let unevenness = 0;
  let legBytesMax = Number.POSITIVE_INFINITY;
  for (const [disk, legs] of legsOn) {
    const available = request.availableBytes[disk] ?? 0;
    const capacity = Math.max(1, request.capacityBytes[disk] ?? 0);
    const before = (capacity - available) / capacity;
    const after = before + (legs * request.legSizeBytes) / capacity;
    fill = Math.max(fill, after);
    unevenness += after ** 2 - before ** 2;
    legBytesMax = Math.min(legBytesMax, available / legs);
  }
  return { fill, unevenness, legBytesMax: Math.max(0, legBytesMax) };
}

function noneOpen(request: SeedRequest): BasaltError {
  const problem =
    `no ${request.legCount} PGs have all their disks up (${request.awayText}): ` +
    'bring them back, wait until their PGs were given other disks, or ask for fewer legs';
  return new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'legs', problem });
}

function tooLittleSpace(request: SeedRequest, largestLegBytes: number): BasaltError {
  const { overheadBytes, dataMembers = 1 } = request;
  const legBytesMax = Math.floor(((largestLegBytes - overheadBytes) * dataMembers) / mib) * mib;
  const most = Math.max(0, ...request.availableBytes.map((bytes) => bytes ?? 0));
  const change =
    legBytesMax > 0
      ? `ask for at most ${legBytesMax * request.legCount} bytes, or add disks`
      : `add disks with ${request.legSizeBytes} bytes free for each leg`;
  const problem =
    `${request.legCount} legs of ${request.legSizeBytes} bytes do not fit in the pool's PGs ` +
    `(the emptiest disk has ${most} bytes left): ${change}`;
  return new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'sizeBytes', problem });
}
