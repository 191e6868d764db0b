// SPDX-License-Identifier: Apache-2.0
//
// Whether the holder of a volume shall give it away now: a wish that names its epoch, and a node that is ready to follow.
//
// Invariants:  - a wish that names another epoch is void: whatever changed hands since was not meant
//              - nothing is given away before the one that follows is connected, admitted and on standby

import type { ClusterState } from '../model/cluster-state.js';
import type { Leadership, VolumeObject } from '../model/objects.js';

/** Whom the holder of that epoch is to be followed by; null: nobody was named. */
export function namedSuccessor(state: ClusterState, leadership: Leadership): string | null {
  const wish = state.get('handOvers', leadership.volumeId);
  return wish !== null && wish.epoch === leadership.epoch ? wish.to : null;
}

/** Why `node` could not take the volume over at once; null: it could. */
export function notReady(state: ClusterState, volume: VolumeObject, node: string): string | null {
  const live = state.get('lives', node);
  if (live === null) return `${node} is not up`;
  if (live.draining) return `${node} is handing over what it serves`;
  if (!volume.controllers.includes(node)) return `${node} is none of the controllers of ${volume.name}`;
  const seen = state.get('observedVolumes', `${volume.id}/${node}`);
  if (seen === null) return `${node} does not serve ${volume.name} as a standby yet`;
  return seen.problem === null ? null : `${node} has a problem with ${volume.name}: ${seen.problem}`;
}

/** Whether `me`, which drives the volume, gives it away now. */
export function shouldHandOver(
  state: ClusterState,
  at: { volume: VolumeObject; leadership: Leadership; me: string },
): string | null {
  const { volume, leadership, me } = at;
  if (leadership.controller !== me) return null;
  const to = namedSuccessor(state, leadership);
  if (to === null || to === me) return null;
  return notReady(state, volume, to) === null ? to : null;
}
