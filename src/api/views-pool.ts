// SPDX-License-Identifier: Apache-2.0
//
// What the API shows of a pool. Pure.

import type { PoolView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { dataWidthOf, type PgMapObject, type PoolObject, widthOf } from '../model/pools.js';
import { landscapeOf, waterLevelBytes } from '../placement/capacity.js';
import { evenBytesOf } from '../placement/plan-pgs.js';
import { diskIdsOf, pgsOfVolume } from '../placement/pool.js';

export function poolView(state: ClusterState, pool: PoolObject): PoolView {
  const map = state.get('pgMaps', pool.id);
  const volumes = state.all('volumes').filter((volume) => volume.pool === pool.id);
  const times = dataWidthOf(pool.redundancy);
  return {
    id: pool.id,
    name: pool.name,
    redundancy: pool.redundancy,
    domain: pool.domain,
    selector: pool.selector,
    pgCount: pool.pgCount,
    mapVersion: map?.version ?? 0,
    disks: map?.disks.length ?? 0,
    volumes: volumes.length,
    promisedBytes: volumes.reduce((sum, volume) => sum + volume.legs.length * volume.legSizeBytes * times, 0),
    usableBytes: map === null ? 0 : usableBytesOf(pool, map),
    optimumBytes: map === null ? 0 : Math.floor(waterLevelBytes(map.disks, widthOf(pool.redundancy)) * times),
    legsMoving: map === null ? 0 : legsMoving(state, pool, map),
    pgsDegraded: map === null ? 0 : pgsDegraded(state, map),
  };
}

export function usableBytesOf(pool: PoolObject, map: PgMapObject): number {
  return Math.floor(evenBytesOf(landscapeOf(map.disks), map.pgs) * dataWidthOf(pool.redundancy));
}

function legsMoving(state: ClusterState, pool: PoolObject, map: PgMapObject): number {
  const wanted = diskIdsOf(map);
  let moving = 0;
  for (const volume of state.all('volumes')) {
    if (volume.pool !== pool.id || volume.phase !== 'live') continue;
    const pgs = pgsOfVolume(volume, pool.pgCount);
    volume.legs.forEach(({ replicas }, leg) => {
      const disks = wanted[pgs[leg] ?? -1] ?? [];
      const there = new Set(replicas.filter((entry) => entry.leaving !== true).map((entry) => entry.disk));
      if (replicas.length !== disks.length || !disks.every((disk) => there.has(disk))) moving += 1;
    });
  }
  return moving;
}

function pgsDegraded(state: ClusterState, map: PgMapObject): number {
  const away = map.disks.map((disk) => state.get('lives', disk.node) === null);
  return map.pgs.filter((members) => members.some((disk) => away[disk] === true)).length;
}
