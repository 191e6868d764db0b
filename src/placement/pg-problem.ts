// SPDX-License-Identifier: Apache-2.0
//
// What the PG planner is asked, and what it answers. Plain data: both travel between threads.

import { BasaltError } from '../model/errors.js';
import type { DomainLevel } from '../model/location.js';

export interface PgProblemDisk {
  readonly id: string;
  /** Disks of one domain never meet in a PG. */
  readonly domain: string;
  /** Size times weight. Above 0. */
  readonly capacityBytes: number;
  /** It keeps what it has and gets nothing more. */
  readonly full?: true;
}

export interface PgProblem {
  readonly disks: readonly PgProblemDisk[];
  readonly pgCount: number;
  /** Disks per PG. */
  readonly width: number;
  /** The map as it is, by disk ids; disks that are none of `disks` are lost to it. Null: a first fill. */
  readonly current: readonly (readonly string[])[] | null;
  /** What each PG holds on each of its disks. Null: nothing. */
  readonly pgBytes: readonly number[] | null;
}

export interface PgMove {
  readonly pg: number;
  /** Null: a first fill, or the PG had too few disks. */
  readonly from: string | null;
  readonly to: string;
}

export interface PgPlan {
  /** Sorted by id. */
  readonly disks: readonly PgProblemDisk[];
  /** Of each PG, its disks as positions in `disks`. */
  readonly pgs: readonly (readonly number[])[];
  readonly moves: readonly PgMove[];
  /** Bytes on each member when PGs are filled evenly until the first disk is full. Times the PG's data width: usable. */
  readonly evenBytes: number;
  /** The most that any map of these disks could hold on each member. */
  readonly optimumBytes: number;
  /** The least that has to move for that optimum, in places of a PG; a fraction, because PGs are not cut. */
  readonly movesMin: number;
}

/**
 * Where a PG of `width` disks cannot be: too few domains. Names the smallest changes that would do.
 * @throws PLACEMENT_IMPOSSIBLE
 */
export function assertPlaceable(
  disks: readonly { readonly domain: string; readonly capacityBytes: number }[],
  wish: { readonly width: number; readonly domain: DomainLevel; readonly field: string; readonly copies: boolean },
): void {
  const domains = new Set(disks.filter((disk) => disk.capacityBytes > 0).map((disk) => disk.domain)).size;
  if (domains >= wish.width) return;
  const missing = wish.width - domains;
  const things = (count: number): string => `${count} ${count === 1 ? wish.domain : `${wish.domain}s`}`;
  const fewer = wish.copies && domains > 0 ? `, or ask for ${domains} ${domains === 1 ? 'copy' : 'copies'}` : '';
  const narrower = wish.domain !== 'disk' && disks.length >= wish.width ? ', or choose a narrower failure domain' : '';
  const problem =
    `${wish.width} ${wish.copies ? (wish.width === 1 ? 'copy needs' : 'copies need') : 'members need'} disks in ${things(wish.width)}, ` +
    `${things(domains)} ${domains === 1 ? 'has' : 'have'} one that is up and fits: add a disk in ${missing} more ${missing === 1 ? wish.domain : `${wish.domain}s`}${fewer}${narrower}`;
  throw new BasaltError('PLACEMENT_IMPOSSIBLE', { field: wish.field, problem });
}
