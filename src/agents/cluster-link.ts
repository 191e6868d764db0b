// SPDX-License-Identifier: Apache-2.0
//
// An agent's connection to the store: the cluster's state as it changes, and the few ways of writing.

import type { ClusterState, Kind } from '../model/cluster-state.js';
import type { LeadershipPort } from './leadership-register.js';
import type { ReservationPort } from './reservation-port.js';

export interface Commit {
  /** Keys that must be at these revisions; null: must not exist. */
  readonly expect?: readonly { key: string; revision: number | null }[];
  readonly put?: readonly { key: string; text: string; leased?: boolean }[];
  readonly remove?: readonly string[];
}

export interface ClusterLink {
  readonly state: ClusterState;
  /** Calls `listener` after changes, several at once where they come together. Returns the function that ends it. */
  onChange(listener: () => void): () => void;
  /** All of it or, when an expectation does not hold, nothing: false. */
  commit(commit: Commit, signal: AbortSignal): Promise<boolean>;
  leadership(volumeId: string): LeadershipPort;
  reservations(volumeId: string): ReservationPort;
}

/** `link.onChange`, for who looks at objects of some kinds only: called after the first change, then when one of these did. */
export function onChangeOf(
  link: Pick<ClusterLink, 'state' | 'onChange'>,
  kinds: readonly Kind[],
  listener: () => void,
): () => void {
  let seen = '';
  return link.onChange(() => {
    const now = kinds.map((kind) => link.state.version(kind)).join(' ');
    if (now === seen) return;
    seen = now;
    listener();
  });
}
