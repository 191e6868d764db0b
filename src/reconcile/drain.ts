// SPDX-License-Identifier: Apache-2.0
//
// What draining a disk or a node has left to do. Replicas move by the map: a disk that is drained is in no pool's map, and
// what follows from that is the placement agent's work (rebuild.ts). Here are the rest and the counting: controllers are
// handed over one volume after the other, and what is still there is found from the store alone.
//
// Invariants:  - a node leaves a volume's controllers only while another one serves it
//              - done means: no volume, no map, no snapshot and no tombstone names the disks, and no volume the node

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { isUndriven } from '../model/generation.js';
import type { CordonKind } from '../model/jobs.js';
import { frontsOf } from '../model/multi-active.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import { type SnapshotCopy, tooFewCopies } from '../model/snapshots.js';
import { controllerNodes, withController, withoutController } from './controllers.js';
import { cordonOf } from './cordons.js';
import { diskIsUp } from './disk-places.js';
import { notReady } from './hand-over.js';
import { isActive, type MoveStep, planHandTo } from './move-controller.js';
import { partSizeBytes } from './parts.js';
import { isReady, sourcesOf } from './snapshot-copies.js';
import { both, removal, replace } from './store-step.js';

export interface DrainTarget {
  readonly kind: CordonKind;
  readonly name: string;
}

export interface DrainRest {
  readonly replicas: number;
  /** Volumes that the node is a controller of. */
  readonly controllers: number;
  /** Maps that name one of the disks. */
  readonly maps: number;
  /** Replicas that were moved and that the disk has yet to delete; one whose node is away does so when it is back. */
  readonly tombstones: number;
  /** Copies of snapshots, which go when others were made of them, and what a disk that is up has yet to delete of them. */
  readonly snapshotCopies: number;
}

export function drainedDisks(state: ClusterState, target: DrainTarget): ReadonlySet<string> {
  const disks = state.all('disks').filter((disk) => (target.kind === 'disk' ? disk.id : disk.node) === target.name);
  return new Set(disks.map((disk) => disk.id));
}

export function restOf(state: ClusterState, target: DrainTarget): DrainRest {
  const disks = drainedDisks(state, target);
  const on = (entry: { disk: string }): boolean => disks.has(entry.disk);
  const isThere = (entry: { disk: string }): boolean => diskIsUp(state, entry.disk);
  const volumes = state.all('volumes');
  return {
    replicas: volumes.reduce((sum, { legs }) => sum + legs.flatMap((leg) => leg.replicas.filter(on)).length, 0),
    controllers: target.kind === 'node' ? volumes.filter((volume) => serves(volume, target.name)).length : 0,
    maps: state.all('pgMaps').filter((map) => map.disks.some((disk) => disks.has(disk.id))).length,
    tombstones: state.all('tombstones').filter((entry) => on(entry) && diskIsUp(state, entry.disk)).length,
    snapshotCopies: state
      .all('snapshots')
      .reduce(
        (sum, { cut, making = [], leftovers }) =>
          sum + [...(cut?.copies ?? []), ...making, ...leftovers.filter(isThere)].filter(on).length,
        0,
      ),
  };
}

function serves(volume: VolumeObject, node: string): boolean {
  return volume.phase === 'live' && volume.controllers.includes(node);
}

/** The next hand-over that can be done; null: none now. `why`: what the others wait for. */
export function planVacating(
  state: ClusterState,
  node: string,
): { change: Extract<MoveStep, { do: 'change' }> | null; why: string | null } {
  let why: string | null = null;
  for (const volume of state.all('volumes')) {
    const stored = serves(volume, node) ? state.stored('volumes', volume.id) : null;
    if (stored === null) continue;
    const step = vacate(state, stored, node);
    if (step.do === 'change') return { change: step, why: null };
    if (step.do !== 'done') why ??= step.why;
  }
  return { change: null, why };
}

/** After a drain a volume has a standby where there are nodes for one. */
const othersWanted = 2;

function vacate(state: ClusterState, stored: Stored<VolumeObject>, node: string): MoveStep {
  const volume = stored.value;
  // Each has an epoch of its own.
  const driven = volume.fronts === undefined ? [volume] : frontsOf(volume, partSizeBytes);
  const led = driven.flatMap((each) => {
    const found = state.stored('leaderships', each.id);
    return found === null ? [] : [{ volume: each, key: found.key, revision: found.revision, leadership: found.value }];
  });
  if (led.length < driven.length) return { do: 'wait', why: `${volume.name} is being made` };
  const able = controllerNodes(state).filter((name) => name !== node);
  const others = volume.controllers.filter((name) => able.includes(name));
  const spare = able.find((name) => !volume.controllers.includes(name));
  const more = spare === undefined || others.length >= othersWanted ? null : withController(volume, spare);
  if (more !== null)
    return { do: 'change', why: `${spare} becomes a standby of ${volume.name}`, step: replace(stored, encode(more)) };
  if (others.length === 0)
    return { do: 'wait', why: `${volume.name} has no other controller node that is up and not cordoned` };
  const held = led.find(({ leadership }) => leadership.controller === node);
  if (held !== undefined) {
    // In the volume's order: hosts are connected to those that were there before.
    const to = others.find((name) => notReady(state, held.volume, name) === null) ?? others[0] ?? '';
    return planHandTo(state, { ...held, to });
  }
  const exported = volume.nbd.find((entry) => entry.node === node);
  if (exported !== undefined) return { do: 'wait', why: `${volume.name} is exported over NBD at ${exported.path}` };
  const idle = led.find(({ leadership }) => !isUndriven(leadership.epoch) && !isDriven(state, leadership));
  if (idle !== undefined) return { do: 'wait', why: `nobody drives ${idle.volume.name} for now` };
  let leaves = replace(stored, encode(withoutController(volume, node)));
  for (const { id } of driven) leaves = both(leaves, removal(state.stored('handOvers', id)));
  // It may be handed over to this very node at this moment.
  const step = { ...leaves, expect: [...leaves.expect, ...led.map(({ key, revision }) => ({ key, revision }))] };
  return { do: 'change', why: `${node} serves ${volume.name} no more`, step };
}

function isDriven(state: ClusterState, leadership: Leadership): boolean {
  const { controller } = leadership;
  return controller !== null && (isActive(state, leadership, controller) || isEmbedded(state, controller));
}

function isEmbedded(state: ClusterState, name: string): boolean {
  return state.get('lives', name)?.kind === 'embedded';
}

function encode(volume: VolumeObject): string {
  return codecs.volume.encode(volume);
}

/** Why replicas of the target do not move now; null: nothing is in their way. */
export function waitingFor(state: ClusterState, target: DrainTarget): string | null {
  const disks = drainedDisks(state, target);
  for (const volume of state.all('volumes')) {
    if (!volume.legs.some((leg) => leg.replicas.some((entry) => disks.has(entry.disk)))) continue;
    if (volume.phase === 'deleting') return `${volume.name} is being deleted`;
    const leadership = state.get('leaderships', volume.id);
    const holder = leadership?.controller ?? null;
    if (!isUndriven(leadership?.epoch ?? 0) && (holder === null || state.get('lives', holder) === null))
      return `nobody drives ${volume.name}: its replicas are copied when it is served`;
  }
  const rest = restOf(state, target);
  if (rest.maps > 0) {
    const others = state.all('disks').filter((disk) => !disks.has(disk.id) && cordonOf(state, disk) !== null);
    const why = 'the pools have no maps without it yet';
    return others.length === 0 ? why : `${why}, and ${others.length} of the other disks are cordoned`;
  }
  if (rest.replicas === 0 && rest.tombstones > 0) return 'moved replicas are being deleted';
  return rest.snapshotCopies > 0 ? copyWaitingFor(state, disks) : null;
}

/** Why copies of snapshots are still there; `only`: of those legs. */
export function copyWaitingFor(
  state: ClusterState,
  disks: ReadonlySet<string>,
  only: (volumeId: string, leg: number) => boolean = () => true,
): string | null {
  for (const snapshot of state.all('snapshots')) {
    const { name, volumeId, leftovers } = snapshot;
    const copies = isReady(snapshot) ? snapshot.cut.copies.filter((copy) => only(volumeId, copy.leg)) : [];
    const going = copies.filter((copy) => disks.has(copy.disk));
    if (going.length === 0 && !leftovers.some((entry) => disks.has(entry.disk))) continue;
    const volume = state.get('volumes', volumeId);
    const full = `${volume?.name ?? volumeId}@${name}`;
    // Each is read itself, or recomputed from others.
    const isReadable = ({ leg, place }: SnapshotCopy): boolean =>
      isReady(snapshot) && sourcesOf(state, snapshot, { leg, disk: '', place }).length > 0;
    if (going.some((copy) => !isReadable(copy)))
      return `${tooFewCopies(volume ?? {})} of ${full} can be read: delete it, or bring one back`;
    return going.length > 0 ? `copies of ${full} are made on other disks` : `copies of ${full} are being deleted`;
  }
  return null;
}
