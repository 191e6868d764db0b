// SPDX-License-Identifier: Apache-2.0
//
// Moving replicas of one volume from one disk to another one that is named, while hosts use it. Pure. The same machinery
// as after a failure does it: the leg is given a replica on the other disk and the old one is marked as leaving; the
// volume's controller copies, lets the new one in by swap and the old one out by swap; then the old one is deleted
// (rebuild.ts). Copies of snapshots follow (snapshot-copies.ts).
//
//   begun: one change of the volume's placement → copied → in sync → the old one left the set → it is deleted, and copies of
//   snapshots were made anew → the next leg
//
// Invariants:  - the old replica stays in the set until every replica that stays is in it
//              - one leg after the other; what is refused by `whyNotMove` is never begun
//              - space on the other disk is promised once: by one transaction with what all who place anything rewrite
//              - called off before the new replica is in sync, the old one stays and the new one goes

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { isUndriven } from '../model/generation.js';
import { keys } from '../model/keys.js';
import { diskClassDefault, selects } from '../model/location.js';
import {
  codecs,
  type DiskObject,
  formatVersion,
  type Leadership,
  type ReplicaPlacement,
  type VolumeObject,
} from '../model/objects.js';
import type { PgMapObject, PoolObject } from '../model/pools.js';
import { diskIdsOf, pgsOfVolume } from '../placement/pool.js';
import { isBeingCopied } from './copying.js';
import { cordonOf } from './cordons.js';
import { copyWaitingFor } from './drain.js';
import { replicaBytes } from './growth.js';
import { homesOf } from './homes.js';
import type { MoveStep } from './move-controller.js';
import { promisedPerDisk } from './promised.js';
import { withSuccessors } from './rebuild.js';
import { both, noStep, replace, type StoreStep } from './store-step.js';

export interface ReplicaMove {
  readonly volumeId: string;
  readonly legs: readonly number[];
  /** Disks. */
  readonly from: string;
  readonly to: string;
}

/** Legs of the volume that have something on the disk, whether it stays or goes. */
export function legsOn(volume: VolumeObject, disk: string): number[] {
  return volume.legs.flatMap(({ replicas }, leg) => (replicas.some((entry) => entry.disk === disk) ? [leg] : []));
}

interface Places {
  readonly pool: PoolObject;
  readonly map: PgMapObject;
  /** What the leg's PG names, and where it belongs after what was moved by hand. */
  readonly named: readonly string[];
  readonly homes: readonly string[];
}

function placesOf(state: ClusterState, volume: VolumeObject, leg: number): Places | null {
  const pool = volume.pool === undefined ? null : state.get('pools', volume.pool);
  const map = volume.pool === undefined ? null : state.get('pgMaps', volume.pool);
  const placed = volume.legs[leg];
  if (pool === null || map === null || placed === undefined) return null;
  const named = diskIdsOf(map)[pgsOfVolume(volume, pool.pgCount)[leg] ?? -1] ?? [];
  return { pool, map, named, homes: homesOf(named, placed, (disk) => domainIn(map, disk)) };
}

function domainIn(map: PgMapObject, disk: string): string | undefined {
  return map.disks.find((entry) => entry.id === disk)?.domain;
}

/** Why a leg's replica cannot go there, exactly; null: it can. `more`: of the same move, legs that are to go there besides. */
export function whyNotMove(
  state: ClusterState,
  of: { volume: VolumeObject; leg: number; from: string; to: string; more?: number },
): string | null {
  const { volume, leg, from, to } = of;
  const placed = volume.legs[leg];
  if (placed === undefined) return `${volume.name} has no leg ${leg}: it has ${volume.legs.length}`;
  const staying = placed.replicas.filter((entry) => entry.leaving !== true);
  const there = staying.map(({ disk, node }) => `${disk} (${node})`).join(', ');
  if (staying.some(({ disk }) => disk === to)) return `leg ${leg} has a replica on disk ${to} already`;
  if (!staying.some(({ disk }) => disk === from))
    return `leg ${leg} has no replica on disk ${from}; it has them on ${there}`;
  const places = placesOf(state, volume, leg);
  if (places === null) return `${volume.name} is in no pool: copy it into a new volume`;
  const disk = state.get('disks', to);
  if (disk === null) return `disk ${to} is no part of the cluster`;
  return (
    whyUnfit(state, disk, places) ??
    whyMeeting(places, { leg, from, to }) ??
    whyTooSmall(state, { volume, disk, map: places.map, count: 1 + (of.more ?? 0) })
  );
}

/** What of the disk itself is in the way. */
function whyUnfit(state: ClusterState, disk: DiskObject, { pool, map }: Places): string | null {
  const { selector } = pool;
  const [diskClass, tags] = [disk.class ?? diskClassDefault, disk.tags ?? []];
  if (!selects({ class: selector.class, tags: [] }, { class: diskClass, tags }))
    return `pool ${pool.name} takes disks of class ${selector.class}, and disk ${disk.id} is of class ${diskClass}`;
  const lacking = selector.tags.filter((tag) => !tags.includes(tag));
  if (lacking.length > 0)
    return `pool ${pool.name} takes disks with the tags ${selector.tags.join(', ')}, and disk ${disk.id} lacks ${lacking.join(', ')}`;
  if (state.get('lives', disk.node) === null) return `node ${disk.node} of disk ${disk.id} is down`;
  const cordon = cordonOf(state, disk);
  const words = { cordon: 'cordoned: it gets nothing new', drain: 'being drained', removed: 'removed' };
  if (cordon !== null) return `disk ${disk.id} is ${words[cordon]}`;
  if (disk.weight === 0) return `disk ${disk.id} has the weight 0`;
  if (domainIn(map, disk.id) === undefined)
    return `pool ${pool.name} does not use disk ${disk.id} yet: its map is made anew seconds after a disk came`;
  return null;
}

/** What of the leg's other disks is in the way. */
function whyMeeting({ pool, map, homes }: Places, at: { leg: number; from: string; to: string }): string | null {
  if (!homes.includes(at.from))
    return `the replica of leg ${at.leg} on disk ${at.from} is about to move: its PG has other disks now`;
  const domain = domainIn(map, at.to);
  const other = homes.find((disk) => disk !== at.from && domainIn(map, disk) === domain);
  if (other === undefined) return null;
  return other === at.to
    ? `disk ${at.to} is about to get a replica of leg ${at.leg}: its PG names it`
    : `disk ${at.to} stands in the same ${pool.domain} (${domain}) as disk ${other}, which has another replica of leg ${at.leg}`;
}

function whyTooSmall(
  state: ClusterState,
  of: { volume: VolumeObject; disk: DiskObject; map: PgMapObject; count: number },
): string | null {
  const { volume, disk, map, count } = of;
  const capacityBytes = map.disks.find((entry) => entry.id === disk.id)?.capacityBytes ?? 0;
  const leftBytes = Math.max(0, capacityBytes - (promisedPerDisk(state).get(disk.id) ?? 0));
  const bytes = count * replicaBytes(volume, state.get('leaderships', volume.id));
  if (bytes <= leftBytes) return null;
  const what = count === 1 ? 'the replica' : `the ${count} replicas`;
  return `disk ${disk.id} has ${leftBytes} bytes left, and ${what} may come to take ${bytes}`;
}

/** What has yet to happen, of what there was to do. */
export function restOfMove(
  state: ClusterState,
  move: ReplicaMove,
): { replicas: number; snapshotCopies: number; tombstones: number } {
  const of = (entry: { leg: number; disk: string }): boolean =>
    entry.disk === move.from && move.legs.includes(entry.leg);
  const volume = state.get('volumes', move.volumeId);
  const on = volume === null ? [] : legsOn(volume, move.from);
  const snapshots = state.all('snapshots').filter((snapshot) => snapshot.volumeId === move.volumeId);
  const copies = snapshots.flatMap(({ cut, making = [] }) => [...(cut?.copies ?? []), ...making].filter(of));
  const node = state.get('disks', move.from)?.node;
  const isUp = node !== undefined && state.get('lives', node) !== null;
  const buried = state
    .all('tombstones')
    .filter((entry) => entry.volumeId === move.volumeId && entry.disk === move.from);
  return {
    replicas: on.filter((leg) => move.legs.includes(leg)).length,
    snapshotCopies: copies.length,
    tombstones: isUp ? buried.length : 0,
  };
}

export function planMoveReplica(state: ClusterState, move: ReplicaMove & { readonly newUuid: () => string }): MoveStep {
  const stored = state.stored('volumes', move.volumeId);
  const led = state.stored('leaderships', move.volumeId);
  if (stored === null || led === null || stored.value.phase !== 'live')
    return { do: 'fail', why: 'the volume is gone' };
  for (const leg of move.legs) {
    const step = moveLeg(state, { stored, led, leg, move });
    if (step.do !== 'done') return step;
  }
  const rest = restOfMove(state, move);
  if (rest.tombstones > 0) return { do: 'wait', why: 'moved replicas are being deleted' };
  if (rest.snapshotCopies === 0) return { do: 'done' };
  const ofThis = (volumeId: string, leg: number): boolean => volumeId === move.volumeId && move.legs.includes(leg);
  return { do: 'wait', why: copyWaitingFor(state, new Set([move.from]), ofThis) ?? 'copies of snapshots follow' };
}

interface LegMove {
  readonly stored: Stored<VolumeObject>;
  readonly led: Stored<Leadership>;
  readonly leg: number;
  readonly move: ReplicaMove & { readonly newUuid: () => string };
}

function moveLeg(state: ClusterState, at: LegMove): MoveStep {
  const { stored, led, leg, move } = at;
  const volume = stored.value;
  const replicas = volume.legs[leg]?.replicas ?? [];
  const old = replicas.find((entry) => entry.disk === move.from);
  const fresh = replicas.find((entry) => entry.disk === move.to && entry.leaving !== true);
  if (old !== undefined && old.leaving !== true) return begin(state, at);
  if (fresh === undefined)
    return { do: 'fail', why: `disk ${move.to} is no place for leg ${leg} any more: its PG has other disks now` };
  if (!isInSync(led.value, leg, fresh)) return { do: 'wait', why: copyingWaitsFor(state, { volume, led, leg, fresh }) };
  if (old !== undefined) return { do: 'wait', why: `leg ${leg}: the old replica is being let go` };
  return { do: 'done' };
}

function begin(state: ClusterState, at: LegMove): MoveStep {
  const { stored, led, leg, move } = at;
  const { from, to, newUuid } = move;
  const volume = stored.value;
  const why = whyNotMove(state, { volume, leg, from, to });
  if (why !== null) return { do: 'fail', why };
  if (volume.suspended !== undefined) return { do: 'wait', why: `${volume.name} is going back to a snapshot` };
  const idle = whyUndriven(state, volume, led.value);
  if (idle !== null) return { do: 'wait', why: idle };
  // The one that is to go may be on a dead disk of a node that is up: then nobody copies to it, and it is not waited for.
  const comes = ({ disk, replica }: ReplicaPlacement): boolean =>
    disk !== from || isBeingCopied(state, volume.id, { leg, replica });
  const joining = volume.legs[leg]?.replicas.some(
    (entry) =>
      entry.leaving !== true &&
      !isInSync(led.value, leg, entry) &&
      state.get('lives', entry.node) !== null &&
      comes(entry),
  );
  if (joining === true) return { do: 'wait', why: `leg ${leg} is being rebuilt` };
  const places = placesOf(state, volume, leg);
  if (places === null) return { do: 'fail', why: 'the pool is gone' };
  const disks = places.homes.map((disk) => (disk === from ? to : disk));
  const pgDisk = places.named[places.homes.indexOf(from)] ?? from;
  const drawn = withSuccessors({ state, newUuid }, { volume, leg, disks });
  const isBack = (entry: ReplicaPlacement): boolean => entry.disk === to && entry.leaving !== true;
  const replicas = drawn.replicas.map((entry): ReplicaPlacement => {
    if (!isBack(entry)) return entry;
    const { insteadOf: _, ...plain } = entry;
    // Where the PG has it anyway, nothing is to be remembered.
    return pgDisk === to ? plain : { ...plain, insteadOf: pgDisk };
  });
  const next = { ...volume, legs: volume.legs.map((each, index) => (index === leg ? { replicas } : each)) };
  const step = both(placed(at, next), promised(state, volume));
  return { do: 'change', why: `leg ${leg} gets a replica on disk ${to}`, step };
}

/** Nobody else has placed anything since the room was looked at. */
export function promised(state: ClusterState, { id }: VolumeObject): StoreStep {
  const key = keys.placement;
  const text = JSON.stringify({ format: formatVersion, volumeId: id });
  return { expect: [{ key, revision: state.placementRevision }], put: [{ key, text }], remove: [] };
}

/** The change counts only for the sets that it was planned on. */
function placed({ stored, led }: Pick<LegMove, 'stored' | 'led'>, volume: VolumeObject): StoreStep {
  const step = replace(stored, codecs.volume.encode(volume));
  return { ...step, expect: [...step.expect, { key: led.key, revision: led.revision }] };
}

/**
 * What calling it off changes: a leg whose new replica is not in sync yet keeps the old one, and the new one goes. One that
 * has both in sync is brought to its end by others.
 */
export function planCallOff(state: ClusterState, move: ReplicaMove): StoreStep {
  const stored = state.stored('volumes', move.volumeId);
  const led = state.stored('leaderships', move.volumeId);
  if (stored === null || led === null || stored.value.phase !== 'live') return noStep;
  const volume = stored.value;
  const legs = volume.legs.map((each, leg) => {
    const under = move.legs.includes(leg) ? each.replicas : [];
    const old = under.find((entry) => entry.disk === move.from && entry.leaving === true);
    const fresh = under.find((entry) => entry.disk === move.to && entry.leaving !== true);
    if (old === undefined || fresh === undefined) return each;
    if (!isInSync(led.value, leg, old) || isInSync(led.value, leg, fresh)) return each;
    const replicas = each.replicas.map((entry): ReplicaPlacement => {
      if (entry === fresh) return { ...entry, leaving: true };
      const { leaving: _, ...back } = entry;
      return entry === old ? back : entry;
    });
    return { replicas };
  });
  return legs.every((leg, index) => leg === volume.legs[index]) ? noStep : placed({ stored, led }, { ...volume, legs });
}

function isInSync(leadership: Leadership, leg: number, entry: ReplicaPlacement): boolean {
  return leadership.legs[leg]?.inSync.some((member) => member.replica === entry.replica) === true;
}

/** Why nobody copies now; null: somebody does, or nothing has to be copied. */
export function whyUndriven(
  state: ClusterState,
  volume: VolumeObject,
  { epoch, controller }: Leadership,
): string | null {
  // What was never driven holds nothing: its replicas are exchanged.
  if (isUndriven(epoch) || (controller !== null && state.get('lives', controller) !== null)) return null;
  return `nobody drives ${volume.name}: its replicas are copied when it is served`;
}

function copyingWaitsFor(
  state: ClusterState,
  at: { volume: VolumeObject; led: Stored<Leadership>; leg: number; fresh: ReplicaPlacement },
): string {
  const { volume, led, leg, fresh } = at;
  if (state.get('lives', fresh.node) === null) return `node ${fresh.node} of disk ${fresh.disk} is down`;
  return whyUndriven(state, volume, led.value) ?? `leg ${leg} is being copied to disk ${fresh.disk}`;
}
