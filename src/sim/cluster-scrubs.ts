// SPDX-License-Identifier: Apache-2.0
//
// Scrubs of the volume that hosts use, by operators of a cluster in use. Same form as the changes of cluster-changes.ts;
// drawn apart from the others.

import { hasEnded } from '../model/jobs.js';
import type { Change } from './cluster-changes.js';

const kib = 1024;

export const scrubs = {
  'scrub the volume': {
    weight: 3,
    begin: (cluster, random) => {
      if (cluster.scrubber.isBusy || cluster.state.all('jobs').some((job) => !hasEnded(job) && isScrub(job)))
        return null;
      // Slow enough for other things to happen meanwhile.
      const bytesPerS = random.pick([64 * kib, 512 * kib, null]);
      const repair = random.chance(0.7);
      cluster.scrubber.scrub(bytesPerS === null ? { repair } : { repair, bytesPerS });
      return `scrub ${cluster.volumeName}, ${bytesPerS ?? 'any number of'} bytes a second${repair ? ', and mend' : ''}`;
    },
  },
  'call a scrub off': {
    weight: 1,
    begin: (cluster) => {
      const job = cluster.state.all('jobs').find((each) => !hasEnded(each) && isScrub(each));
      if (job === undefined || job.cancelling || cluster.scrubber.isBusy) return null;
      cluster.scrubber.callOff(job.id);
      return `call off job ${job.id}`;
    },
  },
} satisfies Readonly<Record<string, Change>>;

function isScrub({ kind }: { readonly kind: string }): boolean {
  return kind === 'volume.scrub';
}
