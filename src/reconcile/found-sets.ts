// SPDX-License-Identifier: Apache-2.0
//
// Which in-sync set of a leg was in force at last, from what its members keep and from what copies of the configuration say.
//
// Invariants:  - the newest set that anybody knows of counts, and only when all of its members were seen, and all who were
//                about to be let in: one that was not seen may keep a newer one
//              - a loss is accepted by volume, in so many words; then those count that were seen of the newest set with any

import type { InSyncMember, Leadership, VolumeObject } from '../model/objects.js';
import { compareRanks, type Rank, type SetNote } from '../model/set-note.js';

/** The set of one leg, as of one moment. */
interface Candidate extends Rank {
  readonly inSync: readonly InSyncMember[];
  readonly coming: readonly string[];
}

export interface LegVerdict {
  readonly leg: number;
  /** What the leg begins with; null: nothing is left of it. */
  readonly inSync: readonly InSyncMember[] | null;
  /** Of the newest set that was found. */
  readonly rank: Rank;
  /** Members of the newest set, and who was about to join it, that were not seen: what only they hold is lost without them. */
  readonly missing: readonly string[];
  /** Why it cannot be said which set was in force; null: it can. */
  readonly doubt: string | null;
}

export interface SetsView {
  readonly volume: VolumeObject;
  /** In all copies. */
  readonly leaderships: readonly (Rank & { readonly value: Leadership })[];
  readonly notes: readonly SetNote[];
  /** Replicas that are on a disk that was seen, or that such a disk makes anew out of what it has. */
  readonly isSeen: (replica: string) => boolean;
  /** Members without which a leg cannot be read. */
  readonly needs: number;
}

export function legVerdict(view: SetsView, leg: number): LegVerdict {
  const candidates = candidatesOf(view, leg);
  const [newest] = candidates;
  if (newest === undefined)
    return { leg, inSync: null, rank: { epoch: 0, revision: 0 }, missing: [], doubt: 'nobody says who was in sync' };
  const equals = candidates.filter((each) => compareRanks(each, newest) === 0);
  const coming = equals.flatMap((each) => each.coming);
  const expected = new Set([...newest.inSync.map(({ replica }) => replica), ...coming]);
  const missing = [...expected].filter((replica) => !view.isSeen(replica));
  const placed = new Set(view.volume.legs[leg]?.replicas.map(({ replica }) => replica));
  const strangers = newest.inSync.filter(({ replica }) => !placed.has(replica));
  const doubt =
    strangers.length === 0
      ? null
      : `no copy of the volume's description names ${strangers.map(({ replica }) => replica).join(', ')}, in sync at last`;
  const usable = candidates.find((each) => seenOf(view, each, placed).length >= view.needs);
  const inSync = missing.length === 0 && doubt === null ? newest.inSync : usableSet(view, usable, placed);
  const { epoch, revision } = newest;
  return { leg, inSync, rank: { epoch, revision }, missing, doubt };
}

function usableSet(view: SetsView, usable: Candidate | undefined, placed: ReadonlySet<string>): InSyncMember[] | null {
  return usable === undefined ? null : seenOf(view, usable, placed);
}

function seenOf({ isSeen }: SetsView, { inSync }: Candidate, placed: ReadonlySet<string>): InSyncMember[] {
  return inSync.filter(({ replica }) => isSeen(replica) && placed.has(replica));
}

/** The newest first. */
function candidatesOf({ volume, leaderships, notes }: SetsView, leg: number): Candidate[] {
  const noted = notes.filter((note) => note.volumeId === volume.id && note.leg === leg);
  const stored = leaderships.flatMap(({ value, epoch, revision }) => {
    const inSync = value.legs[leg]?.inSync;
    return inSync === undefined ? [] : [{ epoch, revision, inSync, coming: [] }];
  });
  return [...noted, ...stored].sort((a, b) => compareRanks(b, a));
}

/** How large the volume was at last; undefined: as it was made. */
export function foundSize({ leaderships, notes, volume }: SetsView): Leadership['size'] {
  const said = [
    ...leaderships.map(({ value, epoch, revision }) => ({ epoch, revision, size: value.size })),
    ...notes.filter(({ volumeId }) => volumeId === volume.id),
  ];
  return said.sort((a, b) => compareRanks(b, a))[0]?.size;
}
