// SPDX-License-Identifier: Apache-2.0
//
// Which disks may get something new, and which shall hold nothing.

import type { ClusterState } from '../model/cluster-state.js';
import type { CordonMode } from '../model/jobs.js';

const strength: Readonly<Record<CordonMode, number>> = { cordon: 1, drain: 2, removed: 3 };

/** What holds for a disk: its own cordon or its node's, whichever says more. Null: neither has one. */
export function cordonOf(state: ClusterState, disk: { id: string; node: string }): CordonMode | null {
  const own = state.get('cordons', `disk/${disk.id}`)?.mode ?? null;
  const node = state.get('cordons', `node/${disk.node}`)?.mode ?? null;
  if (own === null || node === null) return own ?? node;
  return strength[own] >= strength[node] ? own : node;
}

/** Of those disks, the ones that get nothing new. */
export function cordonedOf(
  state: ClusterState,
  disks: readonly { readonly id: string; readonly node: string }[],
): ReadonlySet<string> {
  return new Set(disks.filter((disk) => cordonOf(state, disk) !== null).map((disk) => disk.id));
}

/** Its replicas go, and no map names it. */
export function isEmptied(mode: CordonMode | null): boolean {
  return mode === 'drain' || mode === 'removed';
}
