// SPDX-License-Identifier: Apache-2.0
//
// Node links (decision 017) as the store tells of them: who has one, and whom it lets in.

import type { ClusterState } from '../model/cluster-state.js';
import type { LiveObject } from '../model/objects.js';

/** The link of the process that last said that it is that node; null: it has none, or is of a version that knows none. */
export function linkOf(state: ClusterState, live: LiveObject): string | null {
  const said = state.get('nodeLinks', live.name);
  return said?.incarnation === live.incarnation ? said.nqn : null;
}

export interface LinkControllers {
  /** Every controller that may come to drive a volume, so that its first attachment finds the link open. */
  readonly present: readonly string[];
  /** Not seen to be alive, and driving a volume as far as the store knows: taken off the list, they lose it. */
  readonly driving: readonly string[];
}

/** Whom a disk node lets in by its link. What they may attach there is up to each replica. */
export function linkControllers(state: ClusterState): LinkControllers {
  const present = new Set<string>();
  for (const { name, roles } of state.all('nodes')) if (roles.includes('controller')) present.add(name);
  for (const { name, kind } of state.all('lives')) if (kind === 'embedded') present.add(name);
  const driving = new Set<string>();
  for (const { controller } of state.all('leaderships'))
    if (controller !== null && !present.has(controller)) driving.add(controller);
  return { present: [...present], driving: [...driving] };
}
