// SPDX-License-Identifier: Apache-2.0
//
// Where a disk is. Its own object says so, which the node writes that has opened it; placements and copies of snapshots
// record where it was when they were made. A disk that was carried to another node is right in the first, wrong in the
// others, until placements follow (rebuild.ts); copies keep what was recorded, and nobody goes by that.

import type { ClusterState } from '../model/cluster-state.js';

/** Null: nobody ever said that it has it. */
export function nodeOfDisk(state: ClusterState, disk: string): string | null {
  return state.get('disks', disk)?.node ?? null;
}

/** The node that has it is up. */
export function diskIsUp(state: ClusterState, disk: string): boolean {
  const node = nodeOfDisk(state, disk);
  return node !== null && state.get('lives', node) !== null;
}
