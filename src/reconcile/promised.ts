// SPDX-License-Identifier: Apache-2.0

import type { ClusterState } from '../model/cluster-state.js';
import { replicaBytes } from './growth.js';

/** Bytes of replicas that stand or will stand on each disk, at their full size. */
export function promisedPerDisk(state: ClusterState): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  for (const volume of state.all('volumes')) {
    const each = replicaBytes(volume, state.get('leaderships', volume.id));
    for (const { replicas } of volume.legs)
      for (const { disk } of replicas) bytes.set(disk, (bytes.get(disk) ?? 0) + each);
  }
  return bytes;
}
