// SPDX-License-Identifier: Apache-2.0
//
// Volumes in use that are given to another pool. Same form as the changes of cluster-changes.ts; drawn apart from the others.

import { hasEnded } from '../model/jobs.js';
import { type PoolObject, type Redundancy, redundancyText } from '../model/pools.js';
import type { Change } from './cluster-changes.js';
import type { ClusterShape } from './cluster-sim.js';

/** Of the volume: with less of it, it would not outlive what the runs do to clusters. */
function redundancyOf({ copies, erasure }: ClusterShape): Redundancy {
  return erasure === undefined ? { kind: 'copies', copies } : { kind: 'erasure', ...erasure };
}

export const pools = {
  'make a pool like the volume': {
    weight: 2,
    begin: (cluster, random) => {
      const name = cluster.operator.freePool;
      if (name === null) return null;
      const redundancy = redundancyOf(cluster.shape);
      cluster.operator.makePool(name, { redundancy, pgCount: random.pick([2, 4, 16]) });
      return `make pool ${name} of ${redundancyText(redundancy)}`;
    },
  },
  'change the pool': {
    weight: 4,
    begin: (cluster, random) => {
      const { state, shape } = cluster;
      const volume = state.volumeByName(cluster.volumeName);
      if (volume === null || cluster.isMoving) return null;
      const wanted = redundancyText(redundancyOf(shape));
      const isLike = (pool: PoolObject): boolean =>
        pool.id !== volume.pool && redundancyText(pool.redundancy) === wanted;
      const others = state.all('pools').filter(isLike);
      if (others.length === 0) return null;
      const { name } = random.pick(others);
      cluster.drainer.changePool(volume.name, name);
      return `give ${volume.name} to pool ${name}`;
    },
  },
  'call a change of pools off': {
    weight: 1,
    begin: (cluster) => {
      const job = cluster.state.all('jobs').find((each) => !hasEnded(each) && each.kind === 'volume.change-pool');
      if (job === undefined || job.cancelling || cluster.drainer.isBusy) return null;
      cluster.drainer.callOff(job.id);
      return `call off job ${job.id}`;
    },
  },
} satisfies Readonly<Record<string, Change>>;
