// SPDX-License-Identifier: Apache-2.0
//
// The cluster's objects as one process last read them, indexed. Filled from a listing, kept up by watch events.
//
// Invariants:  - an object that cannot be read is left out and named in `unreadable`; the others are not affected
//              - `version(kind)` grows whenever something of that kind changed, so that a loop can see that nothing did

import type { HostObject } from './hosts.js';
import type { CordonObject, HandOverObject, JobObject, ScrubObject } from './jobs.js';
import { keys } from './keys.js';
import type {
  ClusterKeyObject,
  ClusterObject,
  Codec,
  DiskObject,
  Leadership,
  LiveObject,
  NodeLinkObject,
  NodeObject,
  ObservedReplica,
  ObservedVolume,
  VolumeNameObject,
  VolumeObject,
} from './objects.js';
import { codecs } from './objects.js';
import type { PgMapObject, PoolNameObject, PoolObject, TombstoneObject } from './pools.js';
import type { ReservationObject } from './reservations.js';
import type { SnapshotGroupObject, SnapshotHoldObject, SnapshotNameObject, SnapshotObject } from './snapshots.js';
import type { TokenObject } from './tokens.js';

export interface Stored<T> {
  readonly key: string;
  readonly value: T;
  /** Of the last change to this key; what a compare-and-swap compares. */
  readonly revision: number;
}

interface Kinds {
  cluster: ClusterObject;
  /** One, `current`. */
  clusterKeys: ClusterKeyObject;
  nodes: NodeObject;
  nodeLinks: NodeLinkObject;
  lives: LiveObject;
  /** By NQN. */
  hosts: HostObject;
  /** Of the API, by name. */
  tokens: TokenObject;
  disks: DiskObject;
  volumes: VolumeObject;
  volumeNames: VolumeNameObject;
  pools: PoolObject;
  poolNames: PoolNameObject;
  pgMaps: PgMapObject;
  tombstones: TombstoneObject;
  /** `disk/<id>` or `node/<name>`. */
  cordons: CordonObject;
  jobs: JobObject;
  /** By volume. */
  handOvers: HandOverObject;
  /** By volume. */
  scrubs: ScrubObject;
  snapshots: SnapshotObject;
  /** `<volume id>/<name>`. */
  snapshotNames: SnapshotNameObject;
  /** By name. */
  snapshotGroups: SnapshotGroupObject;
  /** `<group id>/<volume id>`. */
  snapshotHolds: SnapshotHoldObject;
  leaderships: Leadership;
  /** By volume; absent: nobody has ever registered. */
  reservations: ReservationObject;
  observedReplicas: ObservedReplica;
  observedVolumes: ObservedVolume;
}

export type Kind = keyof Kinds;

const prefixes: { [K in Kind]: { prefix: string; codec: Codec<Kinds[K]> } } = {
  cluster: { prefix: keys.cluster, codec: codecs.cluster },
  clusterKeys: { prefix: keys.clusterKeys, codec: codecs.clusterKey },
  nodes: { prefix: keys.nodes, codec: codecs.node },
  nodeLinks: { prefix: keys.nodeLinks, codec: codecs.nodeLink },
  lives: { prefix: keys.lives, codec: codecs.live },
  hosts: { prefix: keys.hosts, codec: codecs.host },
  tokens: { prefix: keys.tokens, codec: codecs.token },
  disks: { prefix: keys.disks, codec: codecs.disk },
  volumes: { prefix: keys.volumes, codec: codecs.volume },
  volumeNames: { prefix: keys.volumeNames, codec: codecs.volumeName },
  pools: { prefix: keys.pools, codec: codecs.pool },
  poolNames: { prefix: keys.poolNames, codec: codecs.poolName },
  pgMaps: { prefix: keys.pgMaps, codec: codecs.pgMap },
  tombstones: { prefix: keys.tombstones, codec: codecs.tombstone },
  cordons: { prefix: keys.cordons, codec: codecs.cordon },
  jobs: { prefix: keys.jobs, codec: codecs.job },
  handOvers: { prefix: keys.handOvers, codec: codecs.handOver },
  scrubs: { prefix: keys.scrubs, codec: codecs.scrub },
  snapshots: { prefix: keys.snapshots, codec: codecs.snapshot },
  snapshotNames: { prefix: keys.snapshotNames, codec: codecs.snapshotName },
  snapshotGroups: { prefix: keys.snapshotGroups, codec: codecs.snapshotGroup },
  snapshotHolds: { prefix: keys.snapshotHolds, codec: codecs.snapshotHold },
  leaderships: { prefix: keys.leaderships, codec: codecs.leadership },
  reservations: { prefix: keys.reservations, codec: codecs.reservation },
  observedReplicas: { prefix: keys.observedReplicas, codec: codecs.observedReplica },
  observedVolumes: { prefix: keys.observedVolumes, codec: codecs.observedVolume },
};

const kinds = Object.keys(prefixes) as Kind[];

export class ClusterState {
  readonly #maps = new Map<Kind, Map<string, Stored<unknown>>>(kinds.map((kind) => [kind, new Map()]));
  readonly #versions = new Map<Kind, number>();
  /** Of each kind, its objects in order, since it changed last. */
  readonly #ordered = new Map<Kind, readonly unknown[]>();
  /** Kinds whose objects a copy shows as well. */
  readonly #shared = new Set<Kind>();
  readonly #lastLives = new Map<string, LiveObject>();
  readonly unreadable = new Map<string, string>();
  #placementRevision: number | null = null;
  #revision = 0;

  /** Of the latest change of the store that is known: what is here was so then. */
  get revision(): number {
    return this.#revision;
  }

  /** Of `keys.placement`, whatever that holds; null: nothing was ever placed. Whoever promises space expects and rewrites it. */
  get placementRevision(): number | null {
    return this.#placementRevision;
  }

  /** Applies one change; null deletes. Keys that are none of ours are ignored. */
  apply(key: string, text: string | null, revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
    if (key === keys.placement) {
      this.#placementRevision = text === null ? null : revision;
      return;
    }
    const kind = kinds.find((entry) => key.startsWith(prefixes[entry].prefix));
    if (kind === undefined) return;
    this.#versions.set(kind, this.version(kind) + 1);
    this.#ordered.delete(kind);
    const map = this.#own(kind);
    const id = key.slice(prefixes[kind].prefix.length);
    this.unreadable.delete(key);
    if (text === null) {
      map.delete(id);
      return;
    }
    try {
      const value = prefixes[kind].codec.decode(text, key);
      map.set(id, { key, value, revision });
      if (kind === 'lives') this.#lastLives.set(id, value as LiveObject);
    } catch (error) {
      map.delete(id);
      this.unreadable.set(key, error instanceof Error ? error.message : String(error));
    }
  }

  /** Makes the state what a whole listing says; keys that are not in it are gone. */
  replace(entries: readonly { key: string; value: string; revision: number }[]): void {
    const present = new Set(entries.map((entry) => entry.key));
    for (const map of this.#maps.values()) {
      for (const stored of [...map.values()]) if (!present.has(stored.key)) this.apply(stored.key, null, 0);
    }
    if (!present.has(keys.placement)) this.#placementRevision = null;
    for (const key of [...this.unreadable.keys()]) if (!present.has(key)) this.apply(key, null, 0);
    for (const entry of entries) this.apply(entry.key, entry.value, entry.revision);
  }

  /** As it is now, whatever is applied here later. Costs little: what does not change is not copied. */
  copy(): ClusterState {
    const copy = new ClusterState();
    for (const kind of kinds) {
      copy.#maps.set(kind, this.#map(kind));
      copy.#versions.set(kind, this.version(kind));
      const ordered = this.#ordered.get(kind);
      if (ordered !== undefined) copy.#ordered.set(kind, ordered);
      copy.#shared.add(kind);
      this.#shared.add(kind);
    }
    copy.#placementRevision = this.#placementRevision;
    copy.#revision = this.#revision;
    for (const [name, live] of this.#lastLives) copy.#lastLives.set(name, live);
    for (const [key, problem] of this.unreadable) copy.unreadable.set(key, problem);
    return copy;
  }

  version(kind: Kind): number {
    return this.#versions.get(kind) ?? 0;
  }

  stored<K extends Kind>(kind: K, id: string): Stored<Kinds[K]> | null {
    return (this.#map(kind).get(id) as Stored<Kinds[K]> | undefined) ?? null;
  }

  get<K extends Kind>(kind: K, id: string): Kinds[K] | null {
    return this.stored(kind, id)?.value ?? null;
  }

  all<K extends Kind>(kind: K): Kinds[K][] {
    const known = this.#ordered.get(kind) as readonly Kinds[K][] | undefined;
    if (known !== undefined) return [...known];
    const ordered = [...this.#map(kind).entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, stored]) => stored.value as Kinds[K]);
    this.#ordered.set(kind, ordered);
    return [...ordered];
  }

  /** What a process last said about itself, also when its lease has run out since. */
  lastLive(name: string): LiveObject | null {
    return this.#lastLives.get(name) ?? null;
  }

  volumeByName(name: string): VolumeObject | null {
    const entry = this.get('volumeNames', name);
    return entry === null ? null : this.get('volumes', entry.volumeId);
  }

  poolByName(name: string): PoolObject | null {
    const entry = this.get('poolNames', name);
    return entry === null ? null : this.get('pools', entry.poolId);
  }

  /** To be changed: nobody else sees it. */
  #own(kind: Kind): Map<string, Stored<unknown>> {
    const map = this.#map(kind);
    if (!this.#shared.delete(kind)) return map;
    const own = new Map(map);
    this.#maps.set(kind, own);
    return own;
  }

  #map(kind: Kind): Map<string, Stored<unknown>> {
    const map = this.#maps.get(kind);
    if (map === undefined) throw new Error(`no such kind of object: ${kind}`);
    return map;
  }
}
