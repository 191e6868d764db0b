// SPDX-License-Identifier: Apache-2.0
//
// Copies of snapshots follow the replicas of their volume: where a leg's replica came to be after the cut, its disk makes
// a copy out of another one; where no replica stays, a copy goes once all disks that matter have theirs. Pure.
//
//   a replica is in sync on a disk without a copy → its disk node writes down that it makes one (`making`), makes it, and
//   writes down that it is one → copies on disks that the leg has left are left over
//
// Of a leg with parity each copy has a place (which strips it holds), whichever place the replica of its disk has by now. A
// disk without a copy gets the place that no other disk of the leg has: from the copy that has it, or recomputed from others.
//
// A disk may be dead while its node is up, and nobody says so. What is known is who could not be read a moment ago (the
// copier's `doubtful`), and that a replica in sync was written to: only a copy beside one counts when others go.
//
// Invariants:  - an lvol is named in the store before it is made, and counts as a copy only when it is whole and durable
//              - a copy goes only while every disk of its leg's replicas has one, and serves; with parity while another one,
//                on such a disk, has its place
//              - a name is not made again while the same name is yet to be removed

import type { ClusterState } from '../model/cluster-state.js';
import type { ReplicaPlacement, VolumeObject } from '../model/objects.js';
import {
  onePerPlace,
  type SnapshotCopy,
  type SnapshotCut,
  type SnapshotMaking,
  type SnapshotObject,
  snapshotLvol,
} from '../model/snapshots.js';
import { unmadeOf } from './clone-source.js';
import { diskIsUp, nodeOfDisk } from './disk-places.js';

/** One whose copies are known: it is not being cut, and not being deleted. */
export type ReadySnapshot = SnapshotObject & { readonly cut: SnapshotCut };

export function isReady(snapshot: SnapshotObject): snapshot is ReadySnapshot {
  return snapshot.phase === 'ready' && snapshot.cut !== undefined;
}

const noDoubt: ReadonlySet<string> = new Set();

/** What a copy is called on its disk. */
export function copyLvol(snapshot: ReadySnapshot, replica: string): string {
  return snapshotLvol(snapshot.id, snapshot.cut.attempt, replica);
}

/** Its disk is one of the cluster's, on a node that is up, wherever that was when it was made. */
export function copyIsUp(state: ClusterState, copy: Pick<SnapshotCopy, 'disk'>): boolean {
  return diskIsUp(state, copy.disk);
}

/** Where it is now. */
export function nodeOfCopy(state: ClusterState, copy: Pick<SnapshotCopy, 'disk' | 'node'>): string {
  return nodeOfDisk(state, copy.disk) ?? copy.node;
}

/** It is up, on a disk that its leg stays on and that held all that was written when somebody last wrote. */
export function copyServes(state: ClusterState, volume: VolumeObject, copy: SnapshotCopy): boolean {
  const replicas = volume.legs[copy.leg]?.replicas ?? [];
  return (
    copyIsUp(state, copy) &&
    replicas.some((entry) => entry.disk === copy.disk && isHome(state, volume, { leg: copy.leg, entry }))
  );
}

/** The snapshot with a copy more to be made on that disk; null: it needs none there, or there is nothing to make it of. */
export function planMaking(state: ClusterState, snapshot: SnapshotObject, disk: string): SnapshotObject | null {
  if (!isReady(snapshot)) return null;
  const volume = state.get('volumes', snapshot.volumeId);
  if (volume === null || volume.phase !== 'live') return null;
  for (const [leg, { replicas }] of volume.legs.entries()) {
    const placed = replicas.find((entry) => entry.disk === disk && isHome(state, volume, { leg, entry }));
    if (placed === undefined || isCovered(snapshot, leg, disk)) continue;
    const wanted = missingPlaces(state, snapshot, { volume, leg })
      .map((place) => ({ place, sources: sourcesOf(state, snapshot, { leg, disk, place }) }))
      .find(({ sources }) => sources.length > 0);
    const from = wanted?.sources[0]?.[0];
    if (wanted === undefined || from === undefined || isNamed(snapshot, copyLvol(snapshot, placed.replica))) continue;
    const { place } = wanted;
    const { replica } = placed;
    const entry = { leg, replica, disk, node: nodeOfCopy(state, placed), from: from.replica };
    const making = [...(snapshot.making ?? []), place === undefined ? entry : { ...entry, place }];
    return { ...snapshot, making };
  }
  return null;
}

/**
 * Of a leg with parity, the places that none of its disks has or gets, those first that no other disk has either: a copy of
 * those is one more. Of a mirror: all of the leg.
 */
function missingPlaces(
  state: ClusterState,
  snapshot: ReadySnapshot,
  at: { volume: VolumeObject; leg: number },
): (number | undefined)[] {
  const { volume, leg } = at;
  const { erasure } = volume;
  if (erasure === undefined) return [undefined];
  const homes = homeDisks(volume, leg);
  const held = [...snapshot.cut.copies, ...(snapshot.making ?? [])].filter((each) => each.leg === leg);
  const taken = new Set(held.filter(({ disk }) => homes.has(disk)).map(({ place }) => place));
  const places = Array.from({ length: erasure.data + erasure.parity }, (_, place) => place);
  const missing = places.filter((place) => !taken.has(place));
  const elsewhere = new Set(held.filter((each) => copyIsUp(state, each)).map(({ place }) => place));
  return [...missing.filter((place) => !elsewhere.has(place)), ...missing.filter((place) => elsewhere.has(place))];
}

function homeDisks(volume: VolumeObject, leg: number): Set<string> {
  const replicas = volume.legs[leg]?.replicas ?? [];
  return new Set(replicas.filter((entry) => entry.leaving !== true).map((entry) => entry.disk));
}

/** It holds the leg and stays: what else the leg has left is kept beside it. */
function isHome(state: ClusterState, volume: VolumeObject, at: { leg: number; entry: ReplicaPlacement }): boolean {
  const inSync = state.get('leaderships', volume.id)?.legs[at.leg]?.inSync ?? [];
  return at.entry.leaving !== true && inSync.some((member) => member.replica === at.entry.replica);
}

function isCovered(snapshot: ReadySnapshot, leg: number, disk: string): boolean {
  const on = (entry: { leg: number; disk: string }): boolean => entry.leg === leg && entry.disk === disk;
  return snapshot.cut.copies.some(on) || (snapshot.making ?? []).some(on);
}

function isNamed(snapshot: ReadySnapshot, lvol: string): boolean {
  return snapshot.leftovers.some((entry) => entry.lvol === lvol);
}

/**
 * Ways to have what is wanted, the best one first: each is copies of the leg that make it up, one that holds it, or as many
 * others as a leg with parity has data members, and all that there are beside them. `doubtful`: lvols of copies that could not
 * be read a moment ago. None: there are too few.
 */
export function sourcesOf(
  state: ClusterState,
  snapshot: ReadySnapshot,
  at: { leg: number; disk: string; place?: number | undefined },
  doubtful: ReadonlySet<string> = noDoubt,
): SnapshotCopy[][] {
  const volume = state.get('volumes', snapshot.volumeId);
  const rank = (copy: SnapshotCopy): number =>
    (doubtful.has(copyLvol(snapshot, copy.replica)) ? 2 : 0) +
    (volume !== null && copyServes(state, volume, copy) ? 0 : 1);
  const able = snapshot.cut.copies
    .filter((copy) => copy.leg === at.leg && copy.disk !== at.disk && copyIsUp(state, copy))
    .filter((copy) => state.get('lives', nodeOfCopy(state, copy))?.internal != null)
    .sort((a, b) => rank(a) - rank(b));
  if (at.place === undefined) return able.map((copy) => [copy]);
  const same = able.find(({ place }) => place === at.place);
  const isSure = same !== undefined && !doubtful.has(copyLvol(snapshot, same.replica));
  const all = onePerPlace(able);
  const others = all.filter((copy) => copy !== same);
  const isEnough = others.length >= (volume?.erasure?.data ?? 1);
  return [...(same !== undefined && (isSure || !isEnough) ? [[same]] : []), ...(isEnough ? [all] : [])];
}

/**
 * Of what is being made: another copy to be named as its source where the present one is not up; the same object: there is
 * none better.
 */
export function planSource(state: ClusterState, snapshot: SnapshotObject, entry: SnapshotMaking): SnapshotObject {
  if (!isReady(snapshot)) return snapshot;
  const present = snapshot.cut.copies.find((copy) => copy.leg === entry.leg && copy.replica === entry.from);
  const isNeeded = entry.place === undefined || present?.place === entry.place;
  if (present !== undefined && isNeeded && copyIsUp(state, present)) return snapshot;
  const from = sourcesOf(state, snapshot, entry)[0]?.[0];
  if (from === undefined || from.replica === entry.from) return snapshot;
  const making = (snapshot.making ?? []).map((each) => (isSame(each, entry) ? { ...each, from: from.replica } : each));
  return { ...snapshot, making };
}

export function isSame(a: SnapshotMaking, b: SnapshotMaking): boolean {
  return a.replica === b.replica && a.disk === b.disk;
}

/** It is whole, and on stable media. Null: it is wanted no more. */
export function planMade(snapshot: SnapshotObject, entry: SnapshotMaking): SnapshotObject | null {
  if (!isReady(snapshot) || !(snapshot.making ?? []).some((each) => isSame(each, entry))) return null;
  const { from: _, ...copy } = entry;
  const copies = [...snapshot.cut.copies, copy];
  const rest = withMaking(snapshot, (each) => !isSame(each, entry));
  return { ...rest, cut: { ...snapshot.cut, copies } };
}

function withMaking(snapshot: SnapshotObject, stays: (entry: SnapshotMaking) => boolean): SnapshotObject {
  const { making = [], ...rest } = snapshot;
  const left = making.filter(stays);
  return left.length === 0 ? rest : { ...rest, making: left };
}

/** Copies, and what was to become copies, on disks that their leg has left; null: there are none that may go. */
export function planSurplus(state: ClusterState, snapshot: SnapshotObject): SnapshotObject | null {
  const volume = state.get('volumes', snapshot.volumeId);
  if (!isReady(snapshot) || volume === null || volume.phase !== 'live') return null;
  const homes = volume.legs.map((_, leg) => homeDisks(volume, leg));
  const isHomely = (entry: { leg: number; disk: string }): boolean => homes[entry.leg]?.has(entry.disk) === true;
  const serving = snapshot.cut.copies.filter((copy) => copyServes(state, volume, copy));
  const covered = homes.map((disks, leg) => {
    const held = new Set(serving.filter((copy) => copy.leg === leg).map((copy) => copy.disk));
    return disks.size > 0 && [...disks].every((disk) => held.has(disk));
  });
  const kept = onePerPlace(serving);
  const hasOther = (copy: SnapshotCopy): boolean =>
    !kept.includes(copy) && kept.some((each) => each.leg === copy.leg && each.place === copy.place);
  const unneeded = snapshot.cut.copies.filter((copy) =>
    copy.place === undefined ? covered[copy.leg] === true && !isHomely(copy) : hasOther(copy),
  );
  const awaited =
    unneeded.length === 0 ? new Set<string>() : new Set(unmadeOf(state, snapshot.id).map((each) => each.source));
  const going = unneeded.filter((copy) => !awaited.has(copyLvol(snapshot, copy.replica)));
  const astray = (snapshot.making ?? []).filter((entry) => !isHomely(entry));
  if (going.length + astray.length === 0) return null;
  const leftovers = [...going, ...astray].map(({ replica, disk, node }) => ({
    lvol: copyLvol(snapshot, replica),
    replica,
    disk,
    node,
    // Nothing is on its way: who makes copies is the disk's own node, which knows what it does.
    epoch: 0,
  }));
  const copies = snapshot.cut.copies.filter((copy) => !going.includes(copy));
  return {
    ...withMaking(snapshot, (entry) => !astray.includes(entry)),
    cut: { ...snapshot.cut, copies },
    leftovers: [...snapshot.leftovers, ...leftovers],
  };
}

/** What of a disk is to be read by others, and by whom. */
export interface CopyExport {
  readonly lvol: string;
  readonly disk: string;
  /** Nodes that read it. */
  readonly readers: readonly string[];
}

/** Copies on these disks that others may be made of: any of a leg of which one is being made, since some cannot be read. */
export function copyExports(state: ClusterState, disks: ReadonlySet<string>): CopyExport[] {
  return state.all('snapshots').flatMap((snapshot) => {
    if (!isReady(snapshot) || snapshot.making === undefined) return [];
    const { making } = snapshot;
    return snapshot.cut.copies.flatMap((copy) => {
      const wanted = making.filter((entry) => entry.leg === copy.leg);
      if (wanted.length === 0 || !disks.has(copy.disk)) return [];
      const readers = [...new Set(wanted.map((entry) => nodeOfCopy(state, entry)))];
      return [{ lvol: copyLvol(snapshot, copy.replica), disk: copy.disk, readers }];
    });
  });
}

/**
 * Lvols of the disk that a new copy is best begun as, the best one first: the copies of the leg that were cut next to it,
 * then what the leg holds now. It only decides how much space they share.
 */
export function basesOf(state: ClusterState, snapshot: SnapshotObject, entry: SnapshotMaking): string[] {
  const all = state
    .all('snapshots')
    .filter((each) => each.volumeId === snapshot.volumeId && isReady(each))
    .sort((a, b) => (a.cutAtMs ?? 0) - (b.cutAtMs ?? 0) || (a.id < b.id ? -1 : 1)) as ReadySnapshot[];
  const at = all.findIndex((each) => each.id === snapshot.id);
  const near = all
    .map((each, index) => ({ each, distance: Math.abs(index - at) }))
    .sort((a, b) => a.distance - b.distance)
    .flatMap(({ each, distance }) => {
      const copy = each.cut.copies.find((one) => one.leg === entry.leg && one.disk === entry.disk);
      return copy === undefined ? [] : [{ lvol: copyLvol(each, copy.replica), distance }];
    });
  const head = { lvol: entry.replica, distance: all.length - at };
  const ordered = [...near, head].sort((a, b) => a.distance - b.distance);
  return ordered.map(({ lvol }) => lvol);
}
