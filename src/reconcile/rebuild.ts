// SPDX-License-Identifier: Apache-2.0
//
// Makes the replicas of volumes follow the map of their pool: a replica is given a successor on its PG's new disk, and goes
// when every replica that stays is in sync. The volume's controller does the copying; this only says what it shall hold.
//
// Invariants:  - a replica in an in-sync set is never dropped; the controller takes it out by swap first
//              - no more than `rebuildsMax` legs are rebuilt at once, the most endangered first
//              - no disk is promised more than the pool's map gives it
//              - what a lost disk must still delete is remembered until it is back

import type { ClusterState } from '../model/cluster-state.js';
import { isUndriven } from '../model/generation.js';
import { keys } from '../model/keys.js';
import type { Leadership, LegPlacement, ReplicaPlacement, VolumeObject } from '../model/objects.js';
import type { TombstoneObject } from '../model/pools.js';
import { diskIdsOf, pgsOfVolume } from '../placement/pool.js';
import { isBeingCopied } from './copying.js';
import { cordonOf } from './cordons.js';
import { nodeOfDisk } from './disk-places.js';
import { homesOf, insteadOf } from './homes.js';
import { promisedPerDisk } from './promised.js';

export interface RebuildLimits {
  /** Legs of the whole cluster that are rebuilt at once. */
  readonly rebuildsMax: number;
  /** Of them, those that write to one disk. */
  readonly rebuildsPerDiskMax: number;
}

export interface RebuildView {
  readonly state: ClusterState;
  /** Nodes that were away for longer than the grace time: what is on them is given up. */
  readonly lostNodes: ReadonlySet<string>;
  readonly limits: RebuildLimits;
  readonly newUuid: () => string;
}

/** One change of one volume, to be made if nothing of it changed meanwhile. */
export interface VolumeChange extends PlannedChange {
  /** Whole objects are written: they must still be what this was planned on. */
  readonly expect: readonly { readonly key: string; readonly revision: number | null }[];
}

interface PlannedChange {
  readonly volumeId: string;
  readonly why: string;
  /** Null: the last of it is gone. */
  readonly volume: VolumeObject | null;
  /** Changed only where nothing was ever written: then a new replica is as good as the old one. */
  readonly leadership: Leadership | null;
  readonly tombstones: readonly TombstoneObject[];
}

/** Replicas that one change may bury: a transaction of the store holds a bounded number of keys. */
const buriedMax = 40;

export function planRebuild(asked: RebuildView): VolumeChange[] {
  const view = { ...asked, maps: new Maps(asked.state) };
  const changes = view.state.all('volumes').flatMap((volume) => planVolume(view, volume) ?? []);
  const changed = new Set(changes.map((change) => change.volumeId));
  return [...changes, ...planSuccessors(view, changed)].map((change) => ({
    ...change,
    expect: plannedOn(view.state, change.volumeId),
  }));
}

function plannedOn(state: ClusterState, volumeId: string): VolumeChange['expect'] {
  return [
    { key: keys.volume(volumeId), revision: state.stored('volumes', volumeId)?.revision ?? null },
    { key: keys.leadership(volumeId), revision: state.stored('leaderships', volumeId)?.revision ?? null },
  ];
}

type View = RebuildView & { readonly maps: Maps };

interface PoolMap {
  readonly disks: string[][];
  readonly pgCount: number;
  readonly capacityBytes: ReadonlyMap<string, number>;
  readonly domains: ReadonlyMap<string, string>;
}

/** The pools' maps, each looked up once. */
class Maps {
  readonly #state: ClusterState;
  readonly #pools = new Map<string, PoolMap | null>();

  constructor(state: ClusterState) {
    this.#state = state;
  }

  /** The disks of each leg; null: the volume belongs to no pool. */
  wanted(volume: VolumeObject): string[][] | null {
    const pool = this.#pool(volume);
    if (pool === null) return null;
    return pgsOfVolume(volume, pool.pgCount).map((pg, index) => {
      const disks = pool.disks[pg] ?? [];
      const leg = volume.legs[index];
      return leg === undefined ? disks : homesOf(disks, leg, (disk) => pool.domains.get(disk));
    });
  }

  capacityBytes(volume: VolumeObject, disk: string): number {
    return this.#pool(volume)?.capacityBytes.get(disk) ?? 0;
  }

  #pool(volume: VolumeObject): PoolMap | null {
    const id = volume.pool;
    if (id === undefined) return null;
    const known = this.#pools.get(id);
    if (known !== undefined) return known;
    const [pool, map] = [this.#state.get('pools', id), this.#state.get('pgMaps', id)];
    const made =
      pool === null || map === null
        ? null
        : {
            disks: diskIdsOf(map),
            pgCount: pool.pgCount,
            capacityBytes: new Map(map.disks.map((disk) => [disk.id, disk.capacityBytes])),
            domains: new Map(map.disks.map((disk) => [disk.id, disk.domain])),
          };
    this.#pools.set(id, made);
    return made;
  }
}

/** The disks of each leg, as the map of the volume's pool has them now; null: it has none. */
export function homesOfVolume(state: ClusterState, volume: VolumeObject): string[][] | null {
  return new Maps(state).wanted(volume);
}

/** What needs no copying: burying, dropping, and exchanging what was never written. */
function planVolume(view: View, volume: VolumeObject): PlannedChange | null {
  const followed = planFollowed(view.state, volume);
  if (followed !== null) return followed;
  if (volume.phase === 'deleting') return planBurial(view, volume);
  const leadership = view.state.get('leaderships', volume.id);
  if (leadership === null) return null;
  // A clone holds what its snapshot does from its first moment.
  if (isUndriven(leadership.epoch) && volume.origin === undefined) return planExchange(view, volume, leadership);
  return planDrop(volume, leadership);
}

/** Its disks were carried to other nodes, with what is on them. */
function planFollowed(state: ClusterState, volume: VolumeObject): PlannedChange | null {
  const isAstray = ({ disk, node }: ReplicaPlacement): boolean => (nodeOfDisk(state, disk) ?? node) !== node;
  if (!volume.legs.some(({ replicas }) => replicas.some(isAstray))) return null;
  const legs = volume.legs.map(({ replicas }) => ({
    replicas: replicas.map((entry) => (isAstray(entry) ? { ...entry, node: nodeOf(state, entry.disk) } : entry)),
  }));
  const why = 'its disks are on other nodes now';
  return { volumeId: volume.id, why, volume: { ...volume, legs }, leadership: null, tombstones: [] };
}

/** A volume that is being deleted does not wait for disks that are gone. */
function planBurial(view: View, volume: VolumeObject): PlannedChange | null {
  const gone = (entry: ReplicaPlacement): boolean =>
    view.lostNodes.has(entry.node) || (volume.forced === true && view.state.get('lives', entry.node) === null);
  const buried = volume.legs.flatMap((leg) => leg.replicas.filter(gone)).slice(0, buriedMax);
  if (buried.length === 0) return null;
  const rest = without(volume, buried);
  const empty = rest.legs.every((leg) => leg.replicas.length === 0);
  return {
    volumeId: volume.id,
    why: `${buried.length} replicas of a deleted volume are on nodes that are away`,
    volume: empty ? null : rest,
    leadership: null,
    tombstones: buried.map((entry) => tombstone(view.state, volume, entry)),
  };
}

/** Replicas that have their successors, all in sync, and that are not in the set any more. */
function planDrop(volume: VolumeObject, leadership: Leadership): PlannedChange | null {
  const buried = volume.legs
    .flatMap(({ replicas }, leg) => {
      const inSync = inSyncOf(leadership, leg);
      const staying = replicas.filter((entry) => entry.leaving !== true);
      if (staying.length === 0 || !staying.every((entry) => inSync.has(entry.replica))) return [];
      return replicas.filter((entry) => entry.leaving === true && !inSync.has(entry.replica));
    })
    .slice(0, buriedMax);
  if (buried.length === 0) return null;
  return {
    volumeId: volume.id,
    why: 'their successors are in sync',
    volume: without(volume, buried),
    leadership: null,
    tombstones: buried.map((entry) => burial(volume, entry, leadership.epoch)),
  };
}

/** A volume that nobody drove yet holds nothing: its replicas are exchanged at once. */
function planExchange(view: View, volume: VolumeObject, leadership: Leadership): PlannedChange | null {
  const wanted = view.maps.wanted(volume);
  if (wanted === null) return null;
  const buried: ReplicaPlacement[] = [];
  const legs = volume.legs.map((leg, index): LegPlacement => {
    const disks = wanted[index] ?? [];
    if (!disks.some((disk) => view.lostNodes.has(nodeOf(view.state, disk))) && sameDisks(leg, disks)) return leg;
    const kept = leg.replicas.filter((entry) => disks.includes(entry.disk) && !view.lostNodes.has(entry.node));
    buried.push(...leg.replicas.filter((entry) => !kept.includes(entry)));
    const missing = disks.filter((disk) => !kept.some((entry) => entry.disk === disk));
    return { replicas: [...kept, ...missing.map((disk) => newReplica(view, disk))] };
  });
  const stillLost = legs.some((leg) => leg.replicas.some((entry) => view.lostNodes.has(entry.node)));
  if (buried.length === 0 || buried.length > buriedMax || stillLost) return null;
  return {
    volumeId: volume.id,
    why: 'nothing was written to it yet',
    volume: { ...volume, legs },
    leadership: {
      ...leadership,
      legs: legs.map((leg) => ({ inSync: leg.replicas.map(({ replica }) => ({ replica, incarnation: null })) })),
    },
    tombstones: buried.map((entry) => burial(volume, entry, leadership.epoch)),
  };
}

interface Candidate {
  readonly volume: VolumeObject;
  readonly leg: number;
  readonly disks: readonly string[];
  /** Replicas that hold everything and can be reached. */
  readonly good: number;
  /** Something of it is gone; else it only moves. */
  readonly lost: boolean;
}

/** New replicas for legs whose PG has other disks now, as far as the limits go. */
function planSuccessors(view: View, taken: ReadonlySet<string>): PlannedChange[] {
  const { limits } = view;
  const { candidates, runningOn, running } = survey(view);
  const promised = new Map(promisedPerDisk(view.state));
  candidates.sort(byDanger);
  const next = new Map<string, VolumeObject>();
  let free = limits.rebuildsMax - running;
  for (const candidate of candidates) {
    if (free <= 0) break;
    if (taken.has(candidate.volume.id)) continue;
    const volume = next.get(candidate.volume.id) ?? candidate.volume;
    const leg = withSuccessors(view, { ...candidate, volume });
    const fresh = leg.replicas.filter(
      (entry) => !volume.legs[candidate.leg]?.replicas.some((old) => old.replica === entry.replica),
    );
    const room = fresh.every(
      ({ disk }) =>
        (runningOn.get(disk) ?? 0) < limits.rebuildsPerDiskMax &&
        (promised.get(disk) ?? 0) + volume.legSizeBytes <= view.maps.capacityBytes(volume, disk),
    );
    if (!room) continue;
    for (const { disk } of fresh) {
      runningOn.set(disk, (runningOn.get(disk) ?? 0) + 1);
      promised.set(disk, (promised.get(disk) ?? 0) + volume.legSizeBytes);
    }
    const legs = volume.legs.map((entry, index) => (index === candidate.leg ? leg : entry));
    next.set(volume.id, { ...volume, legs });
    free -= 1;
  }
  return [...next.values()].map((volume) => ({
    volumeId: volume.id,
    why: 'its PGs have other disks now',
    volume,
    leadership: null,
    tombstones: [],
  }));
}

/** The legs that do not follow their PG, and those that are being rebuilt already. */
function survey(view: View): { candidates: Candidate[]; runningOn: Map<string, number>; running: number } {
  const { state } = view;
  const candidates: Candidate[] = [];
  const runningOn = new Map<string, number>();
  let running = 0;
  for (const volume of state.all('volumes')) {
    const leadership = state.get('leaderships', volume.id);
    // Copying is a controller's work: what nobody drives has to wait for one.
    if (volume.phase !== 'live' || leadership === null || !isDriven(state, leadership)) continue;
    const wanted = view.maps.wanted(volume);
    if (wanted === null) continue;
    volume.legs.forEach((leg, index) => {
      const inSync = inSyncOf(leadership, index);
      const disks = wanted[index] ?? [];
      const up = (entry: ReplicaPlacement): boolean => state.get('lives', entry.node) !== null;
      // What the map names no more is waited for only while it is being copied: its disk may be dead below a node that is up.
      const comes = ({ disk, replica }: ReplicaPlacement): boolean =>
        disks.includes(disk) || isBeingCopied(state, volume.id, { leg: index, replica });
      const copying = leg.replicas.filter(
        (entry) =>
          entry.leaving !== true && !inSync.has(entry.replica) && up(entry) && !isMissing(state, entry) && comes(entry),
      );
      for (const { disk } of copying) runningOn.set(disk, (runningOn.get(disk) ?? 0) + 1);
      if (copying.length > 0) running += 1;
      if (follows(state, leg, disks)) return;
      // One step at a time: what is under way for this leg ends first.
      if (copying.length > 0) return;
      const good = leg.replicas.filter((entry) => inSync.has(entry.replica) && up(entry)).length;
      const lost = leg.replicas.some((entry) => view.lostNodes.has(entry.node) || isMissing(state, entry));
      if (!lost && staysOnCordoned(state, leg, disks)) return;
      candidates.push({ volume, leg: index, disks, good, lost });
    });
  }
  return { candidates, runningOn, running };
}

function byDanger(a: Candidate, b: Candidate): number {
  return (
    Number(b.lost) - Number(a.lost) ||
    a.good - b.good ||
    (a.volume.id < b.volume.id ? -1 : a.volume.id > b.volume.id ? 1 : a.leg - b.leg)
  );
}

/** The leg with a replica on each of those disks, and what it has elsewhere leaving. */
export function withSuccessors(
  view: Pick<RebuildView, 'state' | 'newUuid'>,
  at: { volume: VolumeObject; leg: number; disks: readonly string[] },
): LegPlacement {
  const leg = at.volume.legs[at.leg] ?? { replicas: [] };
  const leadership = view.state.get('leaderships', at.volume.id);
  const inSync = leadership === null ? new Set<string>() : inSyncOf(leadership, at.leg);
  const isAtHome = (entry: ReplicaPlacement): boolean => at.disks.includes(entry.disk) && !isMissing(view.state, entry);
  const kept = leg.replicas.filter((entry) => entry.leaving !== true && isAtHome(entry));
  const held = new Set(kept.map(({ disk }) => disk));
  const old = leg.replicas.map((entry): ReplicaPlacement => {
    if (kept.includes(entry)) return entry;
    // It was to go, and its disk is wanted again: it holds everything still.
    if (!isAtHome(entry) || !inSync.has(entry.replica) || held.has(entry.disk)) return { ...entry, leaving: true };
    held.add(entry.disk);
    const { leaving: _, ...back } = entry;
    return back;
  });
  const missing = at.disks.filter((disk) => !held.has(disk));
  const fresh = missing.map((disk): ReplicaPlacement => ({ ...newReplica(view, disk), ...insteadOf(leg, disk) }));
  return { replicas: [...old, ...fresh] };
}

/** Draining its disk was called off: what has not moved by then stays, although the map names other disks. */
function staysOnCordoned(state: ClusterState, leg: LegPlacement, disks: readonly string[]): boolean {
  const astray = leg.replicas.filter((entry) => !disks.includes(entry.disk));
  return (
    astray.length > 0 &&
    astray.every(
      (entry) => entry.leaving !== true && cordonOf(state, { id: entry.disk, node: entry.node }) === 'cordon',
    )
  );
}

/** Each of the PG's disks has a replica that stays, and nothing else does. */
function follows(state: ClusterState, leg: LegPlacement, disks: readonly string[]): boolean {
  const staying = leg.replicas.filter((entry) => entry.leaving !== true);
  if (staying.length !== disks.length || staying.some((entry) => isMissing(state, entry))) return false;
  return disks.every((disk) => staying.some((entry) => entry.disk === disk));
}

function sameDisks(leg: LegPlacement, disks: readonly string[]): boolean {
  return (
    leg.replicas.length === disks.length && disks.every((disk) => leg.replicas.some((entry) => entry.disk === disk))
  );
}

/** Its disk is there and does not have it. */
function isMissing(state: ClusterState, entry: ReplicaPlacement): boolean {
  return state.get('observedReplicas', entry.replica)?.state === 'missing';
}

function isDriven(state: ClusterState, leadership: Leadership): boolean {
  return leadership.controller !== null && state.get('lives', leadership.controller) !== null;
}

function inSyncOf(leadership: Leadership, leg: number): ReadonlySet<string> {
  return new Set(leadership.legs[leg]?.inSync.map((entry) => entry.replica));
}

function nodeOf(state: ClusterState, disk: string): string {
  return nodeOfDisk(state, disk) ?? '';
}

function newReplica(view: Pick<RebuildView, 'state' | 'newUuid'>, disk: string): ReplicaPlacement {
  return { replica: view.newUuid(), disk, node: nodeOf(view.state, disk) };
}

function without(volume: VolumeObject, gone: readonly ReplicaPlacement[]): VolumeObject {
  return {
    ...volume,
    legs: volume.legs.map((leg) => ({ replicas: leg.replicas.filter((entry) => !gone.includes(entry)) })),
  };
}

function tombstone(state: ClusterState, volume: VolumeObject, entry: ReplicaPlacement): TombstoneObject {
  return burial(volume, entry, state.get('leaderships', volume.id)?.epoch ?? 0);
}

function burial(volume: VolumeObject, entry: ReplicaPlacement, epoch: number): TombstoneObject {
  return { format: 1, replica: entry.replica, disk: entry.disk, volumeId: volume.id, epoch };
}
