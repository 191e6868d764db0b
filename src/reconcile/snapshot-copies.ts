// SPDX-License-Identifier: Apache-2.0
//
// Copies of snapshots follow the replicas of their volume: where a leg's replica came to be after the cut, its disk makes
// a copy out of another one; where no replica stays, a copy goes once all disks that matter have theirs. Pure.
//
//   a replica is in sync on a disk without a copy → its disk node writes down that it makes one (`making`), makes it, and
//   writes down that it is one → copies on disks that the leg has left are left over
//
// Invariants:  - an lvol is named in the store before it is made, and counts as a copy only when it is whole and durable
//              - a copy goes only while every disk of its leg's replicas has one, and is up
//              - a name is not made again while the same name is yet to be removed

import type { ClusterState } from '../model/cluster-state.js';
import type { ReplicaPlacement, VolumeObject } from '../model/objects.js';
import {
  type SnapshotCopy,
  type SnapshotCut,
  type SnapshotMaking,
  type SnapshotObject,
  snapshotLvol,
} from '../model/snapshots.js';
import { unmadeOf } from './clone-source.js';

/** One whose copies are known: it is not being cut, and not being deleted. */
export type ReadySnapshot = SnapshotObject & { readonly cut: SnapshotCut };

export function isReady(snapshot: SnapshotObject): snapshot is ReadySnapshot {
  return snapshot.phase === 'ready' && snapshot.cut !== undefined;
}

/** What a copy is called on its disk. */
export function copyLvol(snapshot: ReadySnapshot, replica: string): string {
  return snapshotLvol(snapshot.id, snapshot.cut.attempt, replica);
}

/** The snapshot with a copy more to be made on that disk; null: it needs none there, or there is nothing to make it of. */
export function planMaking(state: ClusterState, snapshot: SnapshotObject, disk: string): SnapshotObject | null {
  if (!isReady(snapshot)) return null;
  const volume = state.get('volumes', snapshot.volumeId);
  if (volume === null || volume.phase !== 'live') return null;
  for (const [leg, { replicas }] of volume.legs.entries()) {
    const placed = replicas.find((entry) => entry.disk === disk && isHome(state, volume, { leg, entry }));
    if (placed === undefined || isCovered(snapshot, leg, disk)) continue;
    const from = sourceOf(state, snapshot, { leg, disk });
    if (from === null || isNamed(snapshot, copyLvol(snapshot, placed.replica))) continue;
    const { replica, node } = placed;
    const making = [...(snapshot.making ?? []), { leg, replica, disk, node, from: from.replica }];
    return { ...snapshot, making };
  }
  return null;
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

/** A copy of the leg that can be read now. */
function sourceOf(
  state: ClusterState,
  snapshot: ReadySnapshot,
  at: { leg: number; disk: string },
): SnapshotCopy | null {
  const { copies } = snapshot.cut;
  const able = copies.filter(
    (copy) => copy.leg === at.leg && copy.disk !== at.disk && state.get('lives', copy.node)?.internal != null,
  );
  return able[0] ?? null;
}

/** Of what is being made: another source where the present one cannot be read; the same object: there is none better. */
export function planSource(state: ClusterState, snapshot: SnapshotObject, entry: SnapshotMaking): SnapshotObject {
  if (!isReady(snapshot)) return snapshot;
  const present = snapshot.cut.copies.find((copy) => copy.leg === entry.leg && copy.replica === entry.from);
  if (present !== undefined && state.get('lives', present.node) !== null) return snapshot;
  const from = sourceOf(state, snapshot, entry);
  if (from === null || from.replica === entry.from) return snapshot;
  const making = (snapshot.making ?? []).map((each) => (isSame(each, entry) ? { ...each, from: from.replica } : each));
  return { ...snapshot, making };
}

export function isSame(a: SnapshotMaking, b: SnapshotMaking): boolean {
  return a.replica === b.replica && a.disk === b.disk;
}

/** It is whole, and on stable media. Null: it is wanted no more. */
export function planMade(snapshot: SnapshotObject, entry: SnapshotMaking): SnapshotObject | null {
  if (!isReady(snapshot) || !(snapshot.making ?? []).some((each) => isSame(each, entry))) return null;
  const { leg, replica, disk, node } = entry;
  const copies = [...snapshot.cut.copies, { leg, replica, disk, node }];
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
  const homes = volume.legs.map(
    ({ replicas }) => new Set(replicas.filter((entry) => entry.leaving !== true).map((entry) => entry.disk)),
  );
  const isHomely = (entry: { leg: number; disk: string }): boolean => homes[entry.leg]?.has(entry.disk) === true;
  const covered = homes.map((disks, leg) => {
    const up = snapshot.cut.copies.filter((copy) => copy.leg === leg && state.get('lives', copy.node) !== null);
    const held = new Set(up.map((copy) => copy.disk));
    return disks.size > 0 && [...disks].every((disk) => held.has(disk));
  });
  const unneeded = snapshot.cut.copies.filter((copy) => covered[copy.leg] === true && !isHomely(copy));
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

/** Copies on these disks that others are made of. */
export function copyExports(state: ClusterState, disks: ReadonlySet<string>): CopyExport[] {
  return state.all('snapshots').flatMap((snapshot) => {
    if (!isReady(snapshot) || snapshot.making === undefined) return [];
    const { making } = snapshot;
    return snapshot.cut.copies.flatMap((copy) => {
      const wanted = making.filter((entry) => entry.leg === copy.leg && entry.from === copy.replica);
      if (wanted.length === 0 || !disks.has(copy.disk)) return [];
      const readers = [...new Set(wanted.map((entry) => entry.node))];
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
