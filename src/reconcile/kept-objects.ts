// SPDX-License-Identifier: Apache-2.0
//
// From the copies of the configuration on many disks, each complete at a revision of its own, to the objects that were in
// the store at last.
//
// Invariants:  - of an object the newest account counts
//              - one that a newer copy of a disk that it concerns does not have was deleted or moved by then, and stays gone
//              - what is everybody's is taken from the newest copy as a whole: every disk has it

import { ClusterState } from '../model/cluster-state.js';
import type { KeptObject } from '../model/configuration-copy.js';
import { keys } from '../model/keys.js';
import { compareMoments, type GoneObject, type Moment, type SurveyedDisk } from '../model/survey.js';
import { configurationOf } from './configuration.js';

/** An object, and when it was changed last. */
export interface Account extends KeptObject, Moment {}

export interface KeptObjects {
  readonly state: ClusterState;
  readonly accounts: ReadonlyMap<string, Account>;
  readonly gone: readonly GoneObject[];
  /** What was true once of a key, in all copies. */
  readonly all: readonly Account[];
}

const perDisk = [
  keys.volumes,
  keys.leaderships,
  keys.reservations,
  keys.snapshots,
  keys.snapshotGroups,
  keys.tombstones,
  keys.volumeNames,
  keys.snapshotNames,
];

type WithCopy = SurveyedDisk & { readonly copy: NonNullable<SurveyedDisk['copy']> };

export function keptObjects(disks: readonly SurveyedDisk[]): KeptObjects {
  const seen = disks.filter((disk): disk is WithCopy => disk.copy !== null);
  const all = seen.flatMap(({ copy }) => copy.objects.map((object) => ({ ...object, generation: copy.generation })));
  const newest = [...seen].sort((a, b) => compareMoments(b.copy, a.copy))[0];
  const accounts = new Map<string, Account>();
  for (const account of all) {
    if (!isPerDisk(account.key)) continue;
    const known = accounts.get(account.key);
    if (known === undefined || compareMoments(account, known) > 0) accounts.set(account.key, account);
  }
  for (const object of newest?.copy.objects ?? [])
    if (!isPerDisk(object.key)) accounts.set(object.key, { ...object, generation: newest?.copy.generation ?? 0 });
  const gone = withoutTheGone(accounts, seen);
  return { state: stateOf(accounts), accounts, gone, all };
}

function isPerDisk(key: string): boolean {
  return perDisk.some((prefix) => key.startsWith(prefix));
}

export function stateOf(accounts: ReadonlyMap<string, Account>): ClusterState {
  const state = new ClusterState();
  for (const { key, text, revision } of accounts.values()) state.apply(key, text, revision);
  return state;
}

/** Takes them out of `accounts`; what concerned a disk only through one of them goes as well. */
function withoutTheGone(accounts: Map<string, Account>, seen: readonly WithCopy[]): GoneObject[] {
  const gone: GoneObject[] = [];
  for (let found = true; found; ) {
    found = false;
    const state = stateOf(accounts);
    for (const { id, node, copy } of seen) {
      const has = new Set(copy.objects.map(({ key }) => key));
      for (const { key } of configurationOf(state, id)) {
        const account = accounts.get(key);
        if (account === undefined || !isPerDisk(key) || has.has(key) || compareMoments(copy, account) < 0) continue;
        accounts.delete(key);
        gone.push({ key, text: account.text, why: `disk ${id} on ${node} knew later that it is there no more` });
        found = true;
      }
    }
    found = dropOrphans(accounts, gone) || found;
  }
  return gone;
}

/** What belongs to a volume that is gone. */
function dropOrphans(accounts: Map<string, Account>, gone: GoneObject[]): boolean {
  const state = stateOf(accounts);
  const fronts = new Set(state.all('volumes').flatMap((volume) => volume.fronts ?? []));
  const has = (volumeId: string): boolean => state.get('volumes', volumeId) !== null || fronts.has(volumeId);
  const orphans = [
    ...state.all('leaderships').map(({ volumeId }) => ({ volumeId, key: keys.leadership(volumeId) })),
    ...state.all('reservations').map(({ volumeId }) => ({ volumeId, key: keys.reservation(volumeId) })),
    ...state.all('snapshots').map(({ volumeId, id }) => ({ volumeId, key: keys.snapshot(id) })),
    ...state.all('snapshots').map(({ volumeId, name }) => ({ volumeId, key: keys.snapshotName(volumeId, name) })),
  ].filter(({ volumeId, key }) => !has(volumeId) && accounts.has(key));
  for (const { key } of orphans) {
    gone.push({ key, text: accounts.get(key)?.text ?? '', why: 'its volume is gone' });
    accounts.delete(key);
  }
  return orphans.length > 0;
}
