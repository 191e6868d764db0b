// SPDX-License-Identifier: Apache-2.0
//
// A pool as the planner sees it: which disks it may use, what its PGs hold, and its map as an object of the store.

import type { ClusterState } from '../model/cluster-state.js';
import { diskClassDefault, domainOf, selects } from '../model/location.js';
import type { DiskObject, VolumeObject } from '../model/objects.js';
import { type PgDisk, type PgMapObject, type PoolObject, pgCountMax, widthOf } from '../model/pools.js';
import type { PgPlan, PgProblem } from './pg-problem.js';
import { routePgs } from './route.js';

export interface PoolView {
  readonly pool: Pick<PoolObject, 'domain' | 'selector'>;
  /** Which disks may hold data now. */
  readonly usable: (disk: DiskObject) => boolean;
  /** Of a disk; what it says itself where there is none. */
  readonly weights?: ReadonlyMap<string, number>;
}

/** The pool's disks, with what each is worth to it. Sorted by id. */
export function poolDisks(state: ClusterState, view: PoolView): PgDisk[] {
  const disks = state.all('disks').flatMap((disk): PgDisk[] => {
    const about = { class: disk.class ?? diskClassDefault, tags: disk.tags ?? [] };
    if (!selects(view.pool.selector, about) || !view.usable(disk)) return [];
    const weight = view.weights?.get(disk.id) ?? disk.weight ?? 1;
    const capacityBytes = Math.floor(disk.totalBytes * weight);
    if (capacityBytes <= 0) return [];
    const location = state.get('nodes', disk.node)?.location ?? {};
    const domain = domainOf(view.pool.domain, { location, node: disk.node, disk: disk.id });
    return [{ id: disk.id, node: disk.node, domain, capacityBytes }];
  });
  return disks.sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** A hundred places for each disk, in a power of two: whole PGs are small then against what a disk holds. */
export function pgCountDefault(diskCount: number, width: number): number {
  const wanted = (diskCount * 100) / width;
  return Math.min(pgCountMax, Math.max(64, 2 ** Math.ceil(Math.log2(wanted))));
}

/** What every PG holds on each of its disks, volumes at their full size. */
export function promisedPerPg(state: ClusterState, pool: Pick<PoolObject, 'id' | 'pgCount'>): number[] {
  const bytes = new Array<number>(pool.pgCount).fill(0);
  for (const volume of state.all('volumes')) {
    if (volume.pool !== pool.id) continue;
    for (const pg of pgsOfVolume(volume, pool.pgCount)) bytes[pg] = (bytes[pg] ?? 0) + volume.legSizeBytes;
  }
  return bytes;
}

/** Of each leg. */
export function pgsOfVolume(volume: VolumeObject, pgCount: number): number[] {
  return routePgs(volume.route ?? [], pgCount);
}

export function problemOf(
  pool: Pick<PoolObject, 'redundancy' | 'pgCount'>,
  at: {
    disks: readonly PgDisk[];
    map: PgMapObject | null;
    pgBytes: readonly number[] | null;
    /** Disks that get no PG that they do not have. */
    full?: ReadonlySet<string>;
  },
): PgProblem {
  return {
    disks: at.disks.map(({ id, domain, capacityBytes }) => ({
      id,
      domain,
      capacityBytes,
      ...(at.full?.has(id) === true ? { full: true as const } : {}),
    })),
    pgCount: pool.pgCount,
    width: widthOf(pool.redundancy),
    current: at.map === null ? null : diskIdsOf(at.map),
    pgBytes: at.pgBytes,
  };
}

export function diskIdsOf(map: Pick<PgMapObject, 'disks' | 'pgs'>): string[][] {
  return map.pgs.map((members) => members.map((disk) => map.disks[disk]?.id ?? ''));
}

export function mapOf(plan: PgPlan, at: { poolId: string; version: number; disks: readonly PgDisk[] }): PgMapObject {
  return {
    format: 1,
    poolId: at.poolId,
    version: at.version,
    disks: [...at.disks],
    pgs: plan.pgs.map((members) => [...members]),
  };
}

/** Whether the map was made for exactly these disks. */
export function madeFor(map: PgMapObject, disks: readonly PgDisk[]): boolean {
  return JSON.stringify(map.disks) === JSON.stringify(disks);
}
