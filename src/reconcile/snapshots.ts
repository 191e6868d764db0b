// SPDX-License-Identifier: Apache-2.0
//
// Every change of a snapshot's object, as pure functions from the present object to the next one, which its caller puts
// into the store by compare-and-swap.
//
// Invariants:  - a try that ended without being recorded is over for good: what it may have made is left over, and is never
//                counted as a copy
//              - copies become fewer here; more are made by snapshot-copies.ts
//              - an object goes when nothing that it names can exist any more

import type { Leadership, VolumeObject } from '../model/objects.js';
import {
  onePerPlace,
  type SnapshotCopy,
  type SnapshotCut,
  type SnapshotLeftover,
  type SnapshotObject,
  snapshotLvol,
} from '../model/snapshots.js';
import { replicaBytesAt } from '../placement/leg-size.js';

/** Tries in all; the first ones hold requests for `holdMs` at most, the others for longer, on disks that are slow. */
export const snapshotTriesMax = 20;
const shortTries = 10;
export const holdMs = 45;
export const longHoldMs = 250;

export function holdFor(snapshot: Pick<SnapshotObject, 'failedCount'>): number {
  return snapshot.failedCount < shortTries ? holdMs : longHoldMs;
}

/**
 * Null: the volume's size is changing, or a member has no place any more; to be tried later. `places`: of the members of
 * legs with parity, which strips they have.
 */
export function planCut(
  snapshot: SnapshotObject,
  volume: VolumeObject,
  at: { leadership: Leadership; attempt: string; places?: ReadonlyMap<string, number> | undefined },
): SnapshotObject | null {
  const { leadership, attempt, places } = at;
  const { size } = leadership;
  if (size !== undefined && (size.growing || size.servedBytes !== volume.sizeBytes)) return null;
  const copies: SnapshotCopy[] = [];
  for (const [leg, { inSync }] of leadership.legs.entries()) {
    for (const { replica } of inSync) {
      const placed = volume.legs[leg]?.replicas.find((entry) => entry.replica === replica);
      if (placed === undefined) return null;
      const place = places?.get(replica);
      if (volume.erasure !== undefined && place === undefined) return null;
      const copy = { leg, replica, disk: placed.disk, node: placed.node };
      copies.push(place === undefined ? copy : { ...copy, place });
    }
  }
  const { problem: _, ...rest } = snapshot;
  const identity = volume.erasure === undefined ? {} : { identity: leadership.begun?.identity ?? volume.id };
  return { ...rest, phase: 'cutting', cut: { attempt, epoch: leadership.epoch, ...identity, copies } };
}

export function planReady(
  snapshot: SnapshotObject,
  volume: VolumeObject,
  at: { cutAtMs: number; heldUs: number; wholeBytes?: number },
): SnapshotObject {
  const { sizeBytes, route } = volume;
  const whole = at.wholeBytes === undefined ? {} : { wholeBytes: at.wholeBytes };
  const legSizeBytes = replicaBytesAt(volume, sizeBytes);
  return {
    ...snapshot,
    phase: 'ready',
    shape: { sizeBytes, legSizeBytes, ...(route === undefined ? {} : { route: [...route] }), ...whole },
    cutAtMs: Math.round(at.cutAtMs),
    heldUs: Math.round(at.heldUs),
  };
}

export interface FailedTry {
  readonly problem: string;
  /** No member was asked: nothing is left over. */
  readonly unasked?: boolean;
  /** Another try would end as this one. */
  readonly hopeless?: boolean;
  /** It was too early: that does not count. */
  readonly early?: boolean;
}

export function planTryFailed(snapshot: SnapshotObject, failed: FailedTry): SnapshotObject {
  const failedCount = snapshot.failedCount + (failed.early === true ? 0 : 1);
  const over = failed.hopeless === true || failedCount >= snapshotTriesMax;
  const { cut: _, ...unasked } = snapshot;
  const rest = failed.unasked === true ? unasked : withoutCut(snapshot);
  return { ...rest, phase: over ? 'failed' : 'wanted', failedCount, problem: failed.problem };
}

/** Null: nothing is left that would have to be removed. */
export function planDeletion(snapshot: SnapshotObject): SnapshotObject | null {
  const next: SnapshotObject = { ...withoutCut(snapshot), phase: 'deleting' };
  return next.leftovers.length === 0 ? null : next;
}

function withoutCut(snapshot: SnapshotObject): SnapshotObject {
  const { cut, making = [], ...rest } = snapshot;
  if (cut === undefined) return rest;
  // Every member had answered: nothing is on its way.
  const epoch = snapshot.phase === 'ready' ? 0 : cut.epoch;
  const copies = [...cut.copies, ...making];
  return { ...rest, leftovers: [...rest.leftovers, ...leftoversOf(snapshot.id, { ...cut, copies, epoch })] };
}

function leftoversOf(id: string, cut: SnapshotCut): SnapshotLeftover[] {
  return cut.copies.map(({ replica, disk, node }) => ({
    lvol: snapshotLvol(id, cut.attempt, replica),
    replica,
    disk,
    node,
    epoch: cut.epoch,
  }));
}

/** What a disk node sees of one disk: its lvols, and the epoch that each obeys. */
export interface DiskLvols {
  readonly disk: string;
  readonly epochs: ReadonlyMap<string, bigint>;
}

/** Lvols of the disk that are to be removed. */
export function leftoversOn(snapshot: SnapshotObject, seen: DiskLvols): SnapshotLeftover[] {
  return snapshot.leftovers.filter((entry) => entry.disk === seen.disk && seen.epochs.has(entry.lvol));
}

/**
 * After `removed` went (also some time ago): what the object says next; null: nothing is left of it. The same object: nothing changes. What was
 * never there counts as gone only when its replica obeys a later epoch, or is gone itself, and this node was not making it
 * (`busy`) when it looked: nobody can make it then.
 */
export function planKept(
  snapshot: SnapshotObject,
  seen: DiskLvols,
  removed: ReadonlySet<string>,
  busy: ReadonlySet<string> = new Set(),
): SnapshotObject | null {
  const leftovers = snapshot.leftovers.filter((entry) => {
    if (entry.disk !== seen.disk || busy.has(entry.lvol)) return true;
    if (seen.epochs.has(entry.lvol)) return !removed.has(entry.lvol);
    if (removed.has(entry.lvol)) return false;
    const obeyed = seen.epochs.get(entry.replica);
    return obeyed !== undefined && obeyed <= BigInt(entry.epoch);
  });
  const lost = (copy: SnapshotCopy): boolean =>
    copy.disk === seen.disk &&
    snapshot.cut !== undefined &&
    !seen.epochs.has(snapshotLvol(snapshot.id, snapshot.cut.attempt, copy.replica));
  const { cut } = snapshot;
  const copies = cut?.copies.filter((copy) => snapshot.phase !== 'ready' || !lost(copy));
  const same = leftovers.length === snapshot.leftovers.length && copies?.length === cut?.copies.length;
  if (same) return snapshot;
  if (snapshot.phase === 'deleting' && leftovers.length === 0) return null;
  return { ...snapshot, leftovers, ...(cut === undefined || copies === undefined ? {} : { cut: { ...cut, copies } }) };
}

/** Copies of each leg on disks that can be reached now, none twice. */
export function copiesUp(
  snapshot: SnapshotObject,
  legCount: number,
  isUp: (copy: SnapshotCopy) => boolean,
  isPreferred?: (copy: SnapshotCopy) => boolean,
): SnapshotCopy[][] {
  const copies = snapshot.phase === 'ready' ? (snapshot.cut?.copies ?? []) : [];
  return Array.from({ length: legCount }, (_, leg) =>
    onePerPlace(
      copies.filter((copy) => copy.leg === leg && isUp(copy)),
      isPreferred,
    ),
  );
}
