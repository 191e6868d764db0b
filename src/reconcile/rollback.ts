// SPDX-License-Identifier: Apache-2.0
//
// Going back to a snapshot in place: the volume gets other replicas, which begin as the copies of the snapshot, as a
// clone's do; the old ones are given up. Pure; what is next is computed from what the store holds.
//
//   suspended: who drives it hands it back, clean, and nobody takes it then → one swap of replicas, sets and epoch → its disks make
//   the replicas, and it is served again
//
// Invariants:  - nothing is swapped before the last holder has said itself that it drives the volume no more
//              - before the swap the volume is what it was, after it the snapshot; there is nothing in between
//              - whoever suspended it ends that, whatever comes of it

import type { ClusterState, Stored } from '../model/cluster-state.js';
import {
  codecs,
  type Leadership,
  type LegPlacement,
  type ReplicaPlacement,
  type VolumeObject,
} from '../model/objects.js';
import { copiesNeeded, onePerPlace, type SnapshotCopy, type SnapshotObject, tooFewCopies } from '../model/snapshots.js';
import { awaitsSource } from './clone-source.js';
import { volumeSize } from './growth.js';
import { insteadOf } from './homes.js';
import { isActive, type MoveStep } from './move-controller.js';
import { copyIsUp, copyLvol, isReady, nodeOfCopy, type ReadySnapshot } from './snapshot-copies.js';
import { both, noStep, replace, type StoreStep } from './store-step.js';

export interface Rollback {
  readonly jobId: string;
  readonly volumeId: string;
  readonly snapshotId: string;
  /** The swap was made. */
  readonly swapped: boolean;
  readonly newUuid: () => string;
}

export type RollbackStep = MoveStep | { readonly do: 'swap'; readonly why: string; readonly step: StoreStep };

export function planRollback(state: ClusterState, at: Rollback): RollbackStep {
  const stored = state.stored('volumes', at.volumeId);
  const led = state.stored('leaderships', at.volumeId);
  if (stored === null || led === null || stored.value.phase !== 'live')
    return { do: 'fail', why: 'the volume is gone' };
  const volume = stored.value;
  if (at.swapped) return isMade(state, volume) ? { do: 'done' } : { do: 'wait', why: 'its disks make its replicas' };
  const snapshot = state.stored('snapshots', at.snapshotId);
  const why = whyNot(state, { volume, leadership: led.value, snapshot: snapshot?.value ?? null });
  if (why !== null) return { do: 'fail', why };
  if (snapshot === null || !isReady(snapshot.value)) return { do: 'fail', why: 'the snapshot is gone' };
  const holder = led.value.controller;
  if (volume.suspended !== at.jobId) return suspend(state, { stored, leadership: led.value, jobId: at.jobId });
  if (holder !== null) return { do: 'wait', why: `${holder} ends what is under way` };
  if (!led.value.clean) return { do: 'wait', why: 'it was not left in good order: it is taken over first' };
  const swapped = swapOf(state, { volume, leadership: led.value, snapshot: snapshot.value, newUuid: at.newUuid });
  const step = both(
    both(
      replace(stored, codecs.volume.encode(swapped.volume)),
      replace(led, codecs.leadership.encode(swapped.leadership)),
    ),
    // It has these copies still: nobody gave them up, or deleted it.
    replace(snapshot, codecs.snapshot.encode(snapshot.value)),
  );
  return { do: 'swap', why: `${volume.name} is what ${snapshot.value.name} holds`, step };
}

function suspend(
  state: ClusterState,
  at: { stored: Stored<VolumeObject>; leadership: Leadership; jobId: string },
): RollbackStep {
  const { value: volume } = at.stored;
  if (volume.suspended !== undefined) return { do: 'fail', why: `job ${volume.suspended} is going back already` };
  const holder = at.leadership.controller;
  const isLeft = holder === null && at.leadership.clean;
  if (!isLeft && (holder === null || !isActive(state, at.leadership, holder)))
    return { do: 'wait', why: `nobody drives ${volume.name} for now` };
  const step = replace(at.stored, codecs.volume.encode({ ...volume, suspended: at.jobId }));
  return { do: 'change', why: `${volume.name} is suspended`, step };
}

/** Ends the suspension by that job, if it is one. */
export function planResume(state: ClusterState, at: Pick<Rollback, 'jobId' | 'volumeId'>): StoreStep {
  const stored = state.stored('volumes', at.volumeId);
  if (stored === null || stored.value.suspended !== at.jobId) return noStep;
  const { suspended: _, ...volume } = stored.value;
  return replace(stored, codecs.volume.encode(volume));
}

function isMade(state: ClusterState, volume: VolumeObject): boolean {
  return volume.legs.every(
    ({ replicas }, leg) => !replicas.some((entry) => awaitsSource(state, volume, { leg, entry })),
  );
}

/** What stands in the way, exactly; null: nothing. */
export function whyNot(
  state: ClusterState,
  of: { volume: VolumeObject; leadership: Leadership; snapshot: SnapshotObject | null },
): string | null {
  const { volume, leadership, snapshot } = of;
  if (snapshot === null || snapshot.phase === 'deleting') return 'the snapshot is gone';
  if (!isReady(snapshot) || snapshot.shape === undefined) return 'the snapshot is not made';
  if (volume.hosts.length > 0) return `it is attached to ${volume.hosts.join(', ')}: detach it first`;
  const [nbd] = volume.nbd;
  if (nbd !== undefined) return `it is exported over NBD at ${nbd.path} on ${nbd.node}: detach it first`;
  const { controller } = leadership;
  if (controller !== null && state.get('lives', controller)?.kind === 'embedded')
    return `the program ${controller} has it open: close it there`;
  const size = volumeSize(volume, leadership);
  if (size.growing || size.wantedBytes !== size.servedBytes) return 'it is growing';
  const then = snapshot.shape.sizeBytes;
  if (then !== size.servedBytes)
    return `it has ${size.servedBytes} bytes and had ${then} then: make a clone of the snapshot instead`;
  const needed = copiesNeeded(volume);
  const bare = volume.legs.flatMap((_, leg) => (copiesOf(state, snapshot, leg).length < needed ? [leg] : []));
  if (bare.length > 0) return `${tooFewCopies(volume)} of leg ${bare.join(', ')} of the snapshot can be reached`;
  const away = volume.legs.flatMap((leg, index) =>
    copiesAtHome(leg, copiesOf(state, snapshot, index)).length < needed ? [index] : [],
  );
  return needed === 1 || away.length === 0
    ? null
    : `fewer than ${needed} copies of leg ${away.join(', ')} of the snapshot are on disks that the volume is on: wait until they are made`;
}

function homesOf(leg: LegPlacement): ReplicaPlacement[] {
  return leg.replicas.filter((entry) => entry.leaving !== true);
}

/** Of those on disks that the leg is to stay on, none twice. */
function copiesAtHome(leg: LegPlacement, copies: readonly SnapshotCopy[]): SnapshotCopy[] {
  return onePerPlace(homesOf(leg).flatMap(({ disk }) => copies.find((copy) => copy.disk === disk) ?? []));
}

/** On disks of the cluster that are up. */
function copiesOf(state: ClusterState, snapshot: ReadySnapshot, leg: number): SnapshotCopy[] {
  return snapshot.cut.copies.filter((copy) => copy.leg === leg && copyIsUp(state, copy));
}

function swapOf(
  state: ClusterState,
  of: { volume: VolumeObject; leadership: Leadership; snapshot: ReadySnapshot; newUuid: () => string },
): { volume: VolumeObject; leadership: Leadership } {
  const { suspended: _, ...volume } = of.volume;
  const made = volume.legs.map((leg, index) =>
    swapLeg(state, leg, { copies: copiesOf(state, of.snapshot, index), ...of }),
  );
  const legs = made.map(({ inSync }) => ({ inSync: inSync.map(({ replica }) => ({ replica, incarnation: null })) }));
  const { epoch } = of.leadership;
  const { identity: origin } = of.snapshot.cut;
  const begun = origin === undefined ? {} : { begun: { identity: of.newUuid(), origin } };
  const leadership = {
    ...of.leadership,
    epoch: epoch + 1,
    controller: null,
    instance: null,
    clean: true,
    legs,
    ...begun,
  };
  return { volume: { ...volume, legs: made.map(({ placed }) => placed) }, leadership };
}

/** Where a disk of the leg has no copy, its new replica begins empty and is copied. The old ones go as after a move. */
function swapLeg(
  state: ClusterState,
  leg: LegPlacement,
  of: { copies: readonly SnapshotCopy[]; snapshot: ReadySnapshot; newUuid: () => string },
): { placed: LegPlacement; inSync: ReplicaPlacement[] } {
  const homes = homesOf(leg);
  const at = copiesAtHome(leg, of.copies);
  const sources = at.length > 0 ? at : of.copies.slice(0, 1);
  const inSync = sources.map(
    (copy): ReplicaPlacement => ({
      replica: of.newUuid(),
      disk: copy.disk,
      node: nodeOfCopy(state, copy),
      source: copyLvol(of.snapshot, copy.replica),
      ...insteadOf(leg, copy.disk),
    }),
  );
  const bare = homes.filter(({ disk }) => !sources.some((copy) => copy.disk === disk));
  const empty = bare.map(
    (home): ReplicaPlacement => ({
      replica: of.newUuid(),
      disk: home.disk,
      node: nodeOfCopy(state, home),
      ...insteadOf(leg, home.disk),
    }),
  );
  const old = leg.replicas.map((entry): ReplicaPlacement => ({ ...entry, leaving: true }));
  return { placed: { replicas: [...old, ...inSync, ...empty] }, inSync };
}
