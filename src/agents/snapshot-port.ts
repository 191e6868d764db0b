// SPDX-License-Identifier: Apache-2.0
//
// What a volume's controller needs of the store to make snapshots.

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { type ClusterLink, type Commit, onChangeOf } from './cluster-link.js';

export interface SnapshotPort {
  /** The whole of the store, as the watch last showed it. */
  state(): ClusterState;
  /** Calls `listener` when something of snapshots has changed. Returns the function that ends it. */
  onChange(listener: () => void): () => void;
  /** False: something is not as it was expected to be. */
  commit(commit: Commit, signal: AbortSignal): Promise<boolean>;
  /** Of this volume, as the watch last showed them, oldest first. */
  all(): Stored<SnapshotObject>[];
  /** False: the object, or the leadership when its revision is given, is another one by now. */
  swap(
    present: Stored<SnapshotObject>,
    to: { next: SnapshotObject; leadershipRevision?: number },
    signal: AbortSignal,
  ): Promise<boolean>;
}

const watched = ['snapshots', 'snapshotGroups', 'snapshotHolds'] as const;

export function snapshotPort(link: ClusterLink, volumeId: string): SnapshotPort {
  return {
    state: () => link.state,
    onChange: (listener) => onChangeOf(link, watched, listener),
    commit: (commit, signal) => link.commit(commit, signal),
    all: () =>
      link.state
        .all('snapshots')
        .filter((snapshot) => snapshot.volumeId === volumeId)
        .sort((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1))
        .flatMap((snapshot) => link.state.stored('snapshots', snapshot.id) ?? []),
    swap: (present, { next, leadershipRevision }, signal) => {
      const leadership =
        leadershipRevision === undefined ? [] : [{ key: keys.leadership(volumeId), revision: leadershipRevision }];
      const expect = [{ key: present.key, revision: present.revision }, ...leadership];
      return link.commit({ expect, put: [{ key: present.key, text: codecs.snapshot.encode(next) }] }, signal);
    },
  };
}
