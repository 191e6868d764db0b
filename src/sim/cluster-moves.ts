// SPDX-License-Identifier: Apache-2.0
//
// Replicas that operators move by hand in a cluster in use. Same form as the changes of cluster-changes.ts; drawn apart from
// the others.

import { hasEnded } from '../model/jobs.js';
import type { Change } from './cluster-changes.js';

export const moves = {
  'move a replica': {
    weight: 3,
    begin: (cluster, random) => {
      const { state } = cluster;
      const volume = state.volumeByName(cluster.volumeName);
      if (volume === null || cluster.isMoving) return null;
      const leg = random.between(0, volume.legs.length - 1);
      const present = (volume.legs[leg]?.replicas ?? []).map(({ disk }) => disk);
      const others = state.all('disks').filter(({ id }) => !present.includes(id));
      if (present.length === 0 || others.length === 0) return null;
      const request = { leg, from: random.pick(present), to: random.pick(others).id };
      cluster.drainer.move(volume.name, request);
      return `move leg ${leg} from ${request.from} to ${request.to}`;
    },
  },
  'call a move off': {
    weight: 1,
    begin: (cluster) => {
      const job = cluster.state.all('jobs').find((each) => !hasEnded(each) && each.kind === 'volume.move-replica');
      if (job === undefined || job.cancelling || cluster.drainer.isBusy) return null;
      cluster.drainer.callOff(job.id);
      return `call off job ${job.id}`;
    },
  },
} satisfies Readonly<Record<string, Change>>;
