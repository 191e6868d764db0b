// SPDX-License-Identifier: Apache-2.0
//
// Gives a volume in use to another pool: of another class of disks, another failure domain, more copies or fewer. Pure. One
// change of the volume names the pool; from then on its replicas follow that pool's map as they do after a failure (rebuild.ts):
// successors are made and copied, join the sets by swap, and only then the old ones leave. Copies of snapshots follow.
//
//   begun: the volume names the pool → each leg: copied → in sync → the old replicas left the set → they are deleted
//
// Invariants:  - the sets of the legs are the only authority all along: nothing is served from a replica that is not in one
//              - a leg has never fewer members in sync than the fewer of the copies before and after
//              - whether there is room is judged in one transaction with what all who place anything rewrite, and again for
//                each leg that gets successors
//              - mirrors stay mirrors and coded legs keep their places: what a leg is made of does not change here

import type { ClusterState } from '../model/cluster-state.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import { type PoolObject, redundancyText } from '../model/pools.js';
import { copyWaitingFor } from './drain.js';
import { replicaBytes } from './growth.js';
import type { MoveStep } from './move-controller.js';
import { promised, whyUndriven } from './move-replica.js';
import { promisedPerDisk } from './promised.js';
import { homesOfVolume } from './rebuild.js';
import { both, noStep, replace, type StoreStep } from './store-step.js';

export interface PoolChange {
  readonly volumeId: string;
  /** Pools, by their ids. */
  readonly from: string;
  readonly to: string;
}

/** The volume as it is when it belongs to the pool. */
function inPool(volume: VolumeObject, pool: PoolObject): VolumeObject {
  const copies = pool.redundancy.kind === 'copies' ? pool.redundancy.copies : 1;
  return { ...volume, pool: pool.id, copies };
}

/** Why a volume cannot go to the pool, exactly; null: it can. */
export function whyNotChange(state: ClusterState, volume: VolumeObject, to: string): string | null {
  const pool = state.get('pools', to);
  if (pool === null) return 'the pool is gone';
  if (volume.pool === undefined) return `${volume.name} is in no pool: copy it into a new volume`;
  return whyOtherKind(volume, pool) ?? whyNoRoom(state, volume, pool);
}

function whyOtherKind({ name, erasure }: VolumeObject, { name: pool, redundancy }: PoolObject): string | null {
  const has = erasure === undefined ? 'is mirrored' : `is coded ${erasure.data}+${erasure.parity}`;
  const isSame =
    redundancy.kind === 'copies'
      ? erasure === undefined
      : erasure?.data === redundancy.data && erasure.parity === redundancy.parity;
  if (isSame) return null;
  const able = erasure === undefined ? 'of copies' : `of ${erasure.data}+${erasure.parity}`;
  return `${name} ${has}, and pool ${pool} has ${redundancyText(redundancy)}: take a pool ${able}, or copy it into a new volume`;
}

function whyNoRoom(state: ClusterState, volume: VolumeObject, pool: PoolObject): string | null {
  const map = state.get('pgMaps', pool.id);
  const homes = homesOfVolume(state, inPool(volume, pool));
  if (map === null || homes === null) return `pool ${pool.name} has no map`;
  const taken = promisedPerDisk(state);
  const each = replicaBytes(volume, state.get('leaderships', volume.id));
  const coming = new Map<string, number>();
  homes.forEach((disks, leg) => {
    const there = new Set(volume.legs[leg]?.replicas.map(({ disk }) => disk));
    for (const disk of disks.filter((id) => !there.has(id))) coming.set(disk, (coming.get(disk) ?? 0) + each);
  });
  for (const [disk, bytes] of coming) {
    const capacityBytes = map.disks.find(({ id }) => id === disk)?.capacityBytes ?? 0;
    const leftBytes = Math.max(0, capacityBytes - (taken.get(disk) ?? 0));
    if (bytes > leftBytes)
      return `disk ${disk} of pool ${pool.name} has ${leftBytes} bytes left, and its replicas of ${volume.name} may come to take ${bytes}`;
  }
  return null;
}

export interface ChangeRest {
  /** To come, and to go. */
  readonly replicas: number;
  readonly snapshotCopies: number;
  readonly tombstones: number;
}

/** What has yet to happen until the volume is in the pool, and nowhere else. */
export function restOfChange(state: ClusterState, { volumeId, to }: Pick<PoolChange, 'volumeId' | 'to'>): ChangeRest {
  const volume = state.get('volumes', volumeId);
  const pool = state.get('pools', to);
  const homes = volume === null || pool === null ? null : homesOfVolume(state, inPool(volume, pool));
  if (volume === null || homes === null) return { replicas: 0, snapshotCopies: 0, tombstones: 0 };
  const led = state.get('leaderships', volumeId);
  const isHome = (at: { leg: number; disk: string }): boolean => homes[at.leg]?.includes(at.disk) === true;
  const replicas = volume.legs.map((leg, index) => {
    const inSync = new Set(led?.legs[index]?.inSync.map(({ replica }) => replica));
    const staying = leg.replicas.filter((entry) => entry.leaving !== true && isHome({ leg: index, disk: entry.disk }));
    const there = staying.filter(({ replica }) => inSync.has(replica)).length;
    return (homes[index]?.length ?? 0) - there + leg.replicas.length - staying.length;
  });
  const snapshots = state.all('snapshots').filter((snapshot) => snapshot.volumeId === volumeId);
  const copies = snapshots.flatMap(({ cut, making = [] }) => [
    ...(cut?.copies ?? []).filter((copy) => !isHome(copy)),
    ...making,
  ]);
  const isUp = (disk: string): boolean => state.get('lives', state.get('disks', disk)?.node ?? '') !== null;
  const buried = state.all('tombstones').filter((entry) => entry.volumeId === volumeId && isUp(entry.disk));
  return {
    replicas: replicas.reduce((sum, count) => sum + count, 0),
    snapshotCopies: copies.length,
    tombstones: buried.length,
  };
}

export function planChangePool(state: ClusterState, change: PoolChange): MoveStep {
  const stored = state.stored('volumes', change.volumeId);
  const led = state.stored('leaderships', change.volumeId);
  if (stored === null || led === null || stored.value.phase !== 'live')
    return { do: 'fail', why: 'the volume is gone' };
  const volume = stored.value;
  const pool = state.get('pools', change.to);
  if (pool === null) return { do: 'fail', why: 'the pool is gone' };
  if (volume.pool === change.from) {
    if (volume.suspended !== undefined) return { do: 'wait', why: `${volume.name} is going back to a snapshot` };
    const why = whyNotChange(state, volume, change.to);
    if (why !== null) return { do: 'fail', why };
    return { do: 'change', why: `it belongs to pool ${pool.name} now`, step: named(state, volume, pool) };
  }
  if (volume.pool !== change.to) return { do: 'fail', why: 'it was given to another pool meanwhile' };
  const rest = restOfChange(state, change);
  if (rest.replicas > 0)
    return { do: 'wait', why: whyUndriven(state, volume, led.value) ?? copiesWaitFor(state, volume) };
  if (rest.tombstones > 0) return { do: 'wait', why: 'replicas that left are being deleted' };
  if (rest.snapshotCopies === 0) return { do: 'done' };
  const homes = new Set(volume.legs.flatMap((leg) => leg.replicas.map(({ disk }) => disk)));
  const elsewhere = new Set(state.all('disks').flatMap(({ id }) => (homes.has(id) ? [] : [id])));
  const ofThis = (volumeId: string): boolean => volumeId === volume.id;
  return { do: 'wait', why: copyWaitingFor(state, elsewhere, ofThis) ?? 'copies of snapshots follow' };
}

function copiesWaitFor(state: ClusterState, volume: VolumeObject): string {
  const coming = volume.legs.flatMap(({ replicas }) => replicas.filter((entry) => entry.leaving !== true));
  const down = coming.find((entry) => state.get('lives', entry.node) === null);
  if (down !== undefined) return `node ${down.node} of disk ${down.disk} is down`;
  return 'replicas are copied, or wait for their turn';
}

/** The change counts only for the pool, the sets and the promises of space that it was planned on. */
function named(state: ClusterState, volume: VolumeObject, pool: PoolObject): StoreStep {
  const stored = state.stored('volumes', volume.id);
  if (stored === null) return noStep;
  const step = replace(stored, codecs.volume.encode(inPool(volume, pool)));
  const same = [state.stored('leaderships', volume.id), state.stored('pools', pool.id)].flatMap((entry) =>
    entry === null ? [] : [{ key: entry.key, revision: entry.revision }],
  );
  return both({ ...step, expect: [...step.expect, ...same] }, promised(state, volume));
}

/** What calling it off changes: the volume names its former pool again, and what has moved goes back. */
export function planCallOffChange(state: ClusterState, change: PoolChange): { step: StoreStep; text: string } {
  const volume = state.get('volumes', change.volumeId);
  const former = state.get('pools', change.from);
  if (volume === null || volume.pool !== change.to) return { step: noStep, text: 'nothing has changed' };
  if (former === null || whyNotChange(state, volume, change.from) !== null)
    return { step: noStep, text: 'it cannot go back: it is in the pool, and its replicas follow' };
  return {
    step: named(state, volume, former),
    text: `it belongs to pool ${former.name}, and what has moved goes back`,
  };
}
