// SPDX-License-Identifier: Apache-2.0
//
// What of the store's objects a disk keeps a copy of: those that are everybody's, and of each volume with a replica or a
// copy of a snapshot there what makes it that volume. What agents report, what is under way (jobs, hand-overs, scrubs) and
// leases are not kept: they come anew, or are begun anew.

import type { ClusterState, Kind } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type DiskObject, type VolumeObject } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';

export const everybodysKinds = [
  'cluster',
  'clusterKeys',
  'nodes',
  'hosts',
  'tokens',
  'disks',
  'pools',
  'poolNames',
  'pgMaps',
  'cordons',
] as const;

export const keptKinds = [
  ...everybodysKinds,
  'volumes',
  'volumeNames',
  'leaderships',
  'reservations',
  'snapshots',
  'snapshotNames',
  'snapshotGroups',
  'tombstones',
] as const satisfies readonly Kind[];

/** One to be kept, in the form in which it is read. */
export interface ConfigurationObject {
  readonly key: string;
  readonly revision: number;
  readonly value: object;
}

/** In the order of their keys. */
export function configurationOf(state: ClusterState, disk: string): ConfigurationObject[] {
  const objects: ConfigurationObject[] = [];
  const add = (kind: (typeof keptKinds)[number], id: string): void => {
    const stored = state.stored(kind, id);
    if (stored !== null) objects.push(stored);
  };
  for (const { kind, id } of everybodys(state)) add(kind, id);
  const isConcerned = (volume: VolumeObject | null): boolean =>
    volume !== null &&
    (isOn(volume, disk) || (volume.parts ?? []).some((part) => isConcerned(state.get('volumes', part))));
  const volumes = state.all('volumes').filter(isConcerned);
  const concerned = new Set(volumes.map(({ id }) => id));
  const snapshots = state
    .all('snapshots')
    .filter((snapshot) => concerned.has(snapshot.volumeId) || disksOf(snapshot).includes(disk));
  for (const { id, name, partOf, fronts = [] } of volumes) {
    add('volumes', id);
    if (partOf === undefined) add('volumeNames', name);
    for (const driven of [id, ...fronts]) add('leaderships', driven);
    add('reservations', id);
  }
  for (const { id, name, volumeId } of snapshots) {
    add('snapshots', id);
    add('snapshotNames', `${volumeId}/${name}`);
  }
  for (const { name, members } of state.all('snapshotGroups'))
    if (members.some(({ volumeId }) => concerned.has(volumeId))) add('snapshotGroups', name);
  for (const { replica, disk: at } of state.all('tombstones')) if (at === disk) add('tombstones', replica);
  return objects.sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** How much room a disk has is told by its node as soon as that is up; it changes all the time. */
export function keptText({ key, value }: ConfigurationObject): string {
  if (!key.startsWith(keys.disks)) return JSON.stringify(value);
  return codecs.disk.encode({ ...(value as DiskObject), freeBytes: 0 });
}

function everybodys(state: ClusterState): { kind: (typeof everybodysKinds)[number]; id: string }[] {
  const at = <K extends (typeof everybodysKinds)[number]>(kind: K, ids: readonly string[]) =>
    ids.map((id) => ({ kind, id }));
  return [
    ...at('cluster', ['']),
    ...at('clusterKeys', ['current']),
    ...at(
      'nodes',
      state.all('nodes').map(({ name }) => name),
    ),
    ...at(
      'hosts',
      state.all('hosts').map(({ nqn }) => nqn),
    ),
    ...at(
      'tokens',
      state.all('tokens').map(({ name }) => name),
    ),
    ...at(
      'disks',
      state.all('disks').map(({ id }) => id),
    ),
    ...at(
      'pools',
      state.all('pools').map(({ id }) => id),
    ),
    ...at(
      'poolNames',
      state.all('pools').map(({ name }) => name),
    ),
    ...at(
      'pgMaps',
      state.all('pools').map(({ id }) => id),
    ),
    ...at(
      'cordons',
      state.all('cordons').map(({ kind, name }) => `${kind}/${name}`),
    ),
  ];
}

function isOn(volume: VolumeObject, disk: string): boolean {
  return volume.legs.some(({ replicas }) => replicas.some((entry) => entry.disk === disk));
}

/** Where lvols of it are, or may be. */
function disksOf({ cut, making = [], leftovers }: SnapshotObject): string[] {
  return [...(cut?.copies ?? []), ...making, ...leftovers].map(({ disk }) => disk);
}
