// SPDX-License-Identifier: Apache-2.0
//
// What the store says about replicas that are no volume's any more. A report that its disk node gave up waiting for may be
// carried out after the replica was deleted and everything that was known of it removed.
//
// Invariants:  - what was reported of a replica stays for as long as anything may name it: its volume, also one that cannot
//                be read, or a tombstone. By that report a lost replica is known from one that was never made

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import type { ObservedReplica } from '../model/objects.js';

/** On those disks. */
export function strayReports(state: ClusterState, disks: ReadonlySet<string>): Stored<ObservedReplica>[] {
  return state
    .all('observedReplicas')
    .filter((report) => disks.has(report.disk) && !isNamed(state, report))
    .flatMap(({ replica }) => state.stored('observedReplicas', replica) ?? []);
}

function isNamed(state: ClusterState, { replica, volumeId }: ObservedReplica): boolean {
  if (state.get('tombstones', replica) !== null || state.unreadable.has(keys.tombstone(replica))) return true;
  if (state.unreadable.has(keys.volume(volumeId))) return true;
  const legs = state.get('volumes', volumeId)?.legs ?? [];
  return legs.some((leg) => leg.replicas.some((entry) => entry.replica === replica));
}
