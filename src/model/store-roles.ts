// SPDX-License-Identifier: Apache-2.0
//
// What each component writes in the store, for the roles of an etcd cluster that has users. All of them read everything: they
// follow the whole state, and no secret is in it in clear.
//
// Disk nodes and controllers have one role: whichever live node comes first by name plans maps and runs jobs for all, so each
// writes what those need. What nodes never write is what says who may come in (tokens, hosts and their keys, the cluster key in
// use), pools, names of volumes and pools, and what API servers remember of requests.
//
// Invariant:   a node writes nothing outside its role (held by every test that runs nodes over agents/testing or in src/sim)

import { keys } from './keys.js';

export type StoreRole = 'api' | 'node';

export interface Writes {
  readonly prefixes: readonly string[];
  readonly keys: readonly string[];
}

/** Of the store's users; whoever reads, reads all of this. */
export const storePrefix = '/basalt/';

export const writesOf: Readonly<Record<StoreRole, Writes>> = Object.freeze({
  api: { prefixes: [storePrefix], keys: [] },
  node: {
    prefixes: [
      keys.nodes,
      keys.nodeLinks,
      keys.lives,
      keys.disks,
      keys.volumes,
      keys.leaderships,
      keys.reservations,
      keys.handOvers,
      keys.scrubs,
      keys.snapshots,
      `${keys.root}names/snapshots/`,
      keys.snapshotGroups,
      keys.snapshotHolds,
      keys.pgMaps,
      keys.tombstones,
      keys.cordons,
      keys.jobs,
      `${keys.root}observed/`,
    ],
    keys: [keys.cluster, keys.placement],
  },
});

export function mayWrite(role: StoreRole, key: string): boolean {
  const { prefixes, keys: single } = writesOf[role];
  return single.includes(key) || prefixes.some((prefix) => key.startsWith(prefix));
}

/** What etcdctl (of etcd 3.4 and newer) is told to make the roles `basalt-api` and `basalt-node`. */
export function roleCommands(): string[] {
  return (['api', 'node'] as const).flatMap((role) => {
    const name = `basalt-${role}`;
    const grant = (how: 'read' | 'readwrite', key: string, prefix: boolean): string =>
      `etcdctl role grant-permission ${name} ${how} ${key}${prefix ? ' --prefix=true' : ''}`;
    const { prefixes, keys: single } = writesOf[role];
    return [
      `etcdctl role add ${name}`,
      ...(prefixes.includes(storePrefix) ? [] : [grant('read', storePrefix, true)]),
      ...prefixes.map((prefix) => grant('readwrite', prefix, true)),
      ...single.map((key) => grant('readwrite', key, false)),
    ];
  });
}
