// SPDX-License-Identifier: Apache-2.0
//
// What a clone's replica begins as. It is counted as holding the snapshot from the first moment, so it must begin as that;
// one that is counted no more gets everything from the others, and may begin empty.

import type { ClusterState } from '../model/cluster-state.js';
import { isUndriven } from '../model/generation.js';
import type { Leadership, ReplicaPlacement, VolumeObject } from '../model/objects.js';

/** It has yet to begin as its source, and would be missed there. */
export function awaitsSource(
  state: ClusterState,
  volume: VolumeObject,
  at: { leg: number; entry: ReplicaPlacement },
): boolean {
  const { leg, entry } = at;
  if (entry.source === undefined || state.get('observedReplicas', entry.replica) !== null) return false;
  return isCounted(state, volume, { leg, replica: entry.replica });
}

/** As the store says it: in the in-sync set. What was made for the first time is; what left comes back by a copy only. */
export function isCounted(state: ClusterState, volume: VolumeObject, at: { leg: number; replica: string }): boolean {
  const leadership = state.get('leaderships', volume.id);
  if (leadership === null) return true;
  return leadership.legs[at.leg]?.inSync.some((member) => member.replica === at.replica) ?? true;
}

/** Replicas that have yet to begin as copies of the snapshot. */
export function unmadeOf(state: ClusterState, snapshotId: string): { volume: VolumeObject; source: string }[] {
  return state.all('volumes').flatMap((volume) =>
    volume.legs.flatMap(({ replicas }, leg) =>
      replicas.flatMap((entry) => {
        const { source } = entry;
        const isOf = source?.startsWith(`${snapshotId}.`) === true;
        return source !== undefined && isOf && awaitsSource(state, volume, { leg, entry }) ? [{ volume, source }] : [];
      }),
    ),
  );
}

/**
 * Which of the replicas that it begins with are there: all; of each leg as many as it needs, so that it can be served while
 * it is known what the others lack; or fewer.
 */
export function madeOf(state: ClusterState, volume: VolumeObject, leadership: Leadership): 'all' | 'enough' | 'fewer' {
  const isMade = (entry: ReplicaPlacement): boolean => state.get('observedReplicas', entry.replica)?.state === 'ready';
  const isThere = (leg: number, entry: ReplicaPlacement): boolean =>
    isUndriven(leadership.epoch) ? isMade(entry) : !awaitsSource(state, volume, { leg, entry });
  if (volume.legs.every(({ replicas }, leg) => replicas.every((entry) => isThere(leg, entry)))) return 'all';
  const isEnough = ({ replicas }: VolumeObject['legs'][number], leg: number): boolean =>
    replicas.filter((entry) => isMade(entry) && isCounted(state, volume, { leg, replica: entry.replica })).length >=
    (leadership.needs ?? 1);
  const isSourced = volume.legs.some(({ replicas }) => replicas.some(({ source }) => source !== undefined));
  return isSourced && volume.legs.every(isEnough) ? 'enough' : 'fewer';
}
