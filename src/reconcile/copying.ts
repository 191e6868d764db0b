// SPDX-License-Identifier: Apache-2.0
//
// Whether somebody copies to a replica at this moment. A node may be up while its disk is dead or was taken out, and nobody
// says so: a replica that is out of its set, on a node that is up, may be one that nobody will ever copy to.

import type { ClusterState } from '../model/cluster-state.js';

/** Whoever drives the volume says so itself. */
export function isBeingCopied(state: ClusterState, volumeId: string, at: { leg: number; replica: string }): boolean {
  const holder = state.get('leaderships', volumeId)?.controller ?? null;
  const seen = holder === null ? null : state.get('observedVolumes', `${volumeId}/${holder}`);
  return seen?.legs[at.leg]?.some(({ replica, state }) => replica === at.replica && state === 'joining') === true;
}
