// SPDX-License-Identifier: Apache-2.0
//
// The objects that live in the store, each with the version of its format.
//
// Invariants:  - epoch and in-sync sets of a volume are one object under one key (Leadership)
//              - a value of an unknown format is refused, never guessed at or overwritten

import Type, { type Static, type TSchema } from 'typebox';
import { checker } from './check.js';
import { BasaltError } from './errors.js';
import { generationMax } from './generation.js';
import { HostObject } from './hosts.js';
import { CordonObject, HandOverObject, JobObject, ScrubObject } from './jobs.js';
import { DiskClass, DiskTags, DiskWeight, Location } from './location.js';
import { Erasure, PgMapObject, PoolNameObject, PoolObject, TombstoneObject } from './pools.js';
import { ReservationObject } from './reservations.js';
import { RouteRange } from './route.js';
import { SnapshotGroupObject, SnapshotHoldObject, SnapshotNameObject, SnapshotObject } from './snapshots.js';
import { TokenObject } from './tokens.js';

export const formatVersion = 1;

const strict = { additionalProperties: false } as const;
const Format = Type.Literal(formatVersion);

export const namePattern = '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$';
export const Name = Type.String({ pattern: namePattern });
export const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
export const Nqn = Type.String({ pattern: '^nqn\\.\\d{4}-\\d{2}\\.[^\\s:]+(:\\S+)?$', maxLength: 223 });
const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const Role = Type.Union([Type.Literal('disk'), Type.Literal('controller'), Type.Literal('api')]);
export type Role = Static<typeof Role>;

export const Address = Type.Object({ traddr: Type.String(), trsvcid: Type.String({ pattern: '^\\d{1,5}$' }) }, strict);
export type Address = Static<typeof Address>;

/** Of a node itself. `secure`: it speaks TLS and nothing else there; who has no key for that does not get in. */
export const NodeAddress = Type.Object({ ...Address.properties, secure: Type.Optional(Type.Literal(true)) }, strict);
export type NodeAddress = Static<typeof NodeAddress>;

export const ClusterObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    createdAtMs: Count,
    /** Of the store, as epochs carry it (generation.ts). Absent: 0, it was never rebuilt. */
    generation: Type.Optional(Type.Integer({ minimum: 1, maximum: generationMax })),
  },
  strict,
);
export type ClusterObject = Static<typeof ClusterObject>;

export const NodeObject = Type.Object(
  { format: Format, name: Name, roles: Type.Array(Role), location: Type.Optional(Location) },
  strict,
);
export type NodeObject = Static<typeof NodeObject>;

/**
 * By what subsystem of its own a disk node lets controllers reach all its replicas at once (decision 017). Apart from the
 * node's other objects: versions that do not know it read those as before, and connect to each replica.
 */
export const NodeLinkObject = Type.Object(
  {
    format: Format,
    name: Name,
    /** Of the process that has it: one of another version may have come since. */
    incarnation: Type.String({ minLength: 1, maxLength: 20 }),
    nqn: Nqn,
  },
  strict,
);
export type NodeLinkObject = Static<typeof NodeLinkObject>;

export const LiveObject = Type.Object(
  {
    format: Format,
    name: Name,
    kind: Type.Union([Type.Literal('node'), Type.Literal('embedded')]),
    /** Of the engine's process; replicas show it as their subsystem's serial number. */
    incarnation: Type.String({ minLength: 1, maxLength: 20 }),
    engine: Type.String(),
    roles: Type.Array(Role),
    internal: Type.Union([NodeAddress, Type.Null()]),
    hosts: Type.Union([NodeAddress, Type.Null()]),
    /** Set while the process hands over what it serves. */
    draining: Type.Boolean(),
  },
  strict,
);
export type LiveObject = Static<typeof LiveObject>;

export const DiskObject = Type.Object(
  {
    format: Format,
    /** UUID of the disk's lvstore. */
    id: Uuid,
    cluster: Uuid,
    node: Name,
    path: Type.String(),
    lvstore: Type.String(),
    clusterSizeBytes: Bytes,
    totalBytes: Bytes,
    freeBytes: Bytes,
    buffered: Type.Boolean(),
    class: Type.Optional(DiskClass),
    tags: Type.Optional(DiskTags),
    weight: Type.Optional(DiskWeight),
  },
  strict,
);
export type DiskObject = Static<typeof DiskObject>;

export const ReplicaPlacement = Type.Object(
  {
    replica: Uuid,
    disk: Uuid,
    node: Name,
    /** Its PG has another disk now: it goes as soon as the others hold everything. */
    leaving: Type.Optional(Type.Literal(true)),
    /** The lvol of the same disk that it begins as: of a clone. Absent: it begins empty. */
    source: Type.Optional(Type.String()),
    /** The disk that its PG names: it was moved from there by hand, and stays where it is for as long as that holds. */
    insteadOf: Type.Optional(Uuid),
  },
  strict,
);
export type ReplicaPlacement = Static<typeof ReplicaPlacement>;

export const LegPlacement = Type.Object({ replicas: Type.Array(ReplicaPlacement) }, strict);
export type LegPlacement = Static<typeof LegPlacement>;

export const NbdExport = Type.Object({ node: Name, path: Type.String({ minLength: 1, maxLength: 107 }) }, strict);
export type NbdExport = Static<typeof NbdExport>;

export const ClusterKeyId = Type.String({ pattern: '^[0-9a-f]{32}$' });

export const VolumeEncryption = Type.Object(
  {
    cipher: Type.Literal('aes-256-xts'),
    /** Of the cluster key that wraps the data key. */
    keyId: ClusterKeyId,
    /** The data key, sealed by AES-256-GCM: nonce, ciphertext, tag; base64 (docs/security.md). */
    wrappedKey: Type.String({ pattern: '^[A-Za-z0-9+/]+={0,2}$', maxLength: 256 }),
    /** The volume that the data key was drawn for, when that is another one: clones are read with their origin's. */
    drawnFor: Type.Optional(Uuid),
  },
  strict,
);
export type VolumeEncryption = Static<typeof VolumeEncryption>;

/** Which cluster key wraps the data keys of new volumes. The key itself is never stored. */
export const ClusterKeyObject = Type.Object({ format: Format, keyId: ClusterKeyId }, strict);
export type ClusterKeyObject = Static<typeof ClusterKeyObject>;

export const VolumeObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    name: Name,
    sizeBytes: Bytes,
    blockSizeBytes: Bytes,
    stripeSizeBytes: Bytes,
    /** Whole ones; 1 with erasure coding. */
    copies: Type.Integer({ minimum: 1, maximum: 8 }),
    /** Its legs are of data and parity members. Absent: they are mirrors. Versions that do not know the field refuse it. */
    erasure: Type.Optional(Erasure),
    /** Size of each replica. */
    legSizeBytes: Bytes,
    legs: Type.Array(LegPlacement),
    /** Of its pool's PGs; absent in volumes from before there were pools. */
    pool: Type.Optional(Uuid),
    route: Type.Optional(Type.Array(RouteRange, { minItems: 1 })),
    /** Nodes that may serve it, in the order of preference. */
    controllers: Type.Array(Name),
    /** Of each of them, which range of controller ids it hands out; absent: by their order. */
    controllerSlots: Type.Optional(Type.Array(Type.Integer({ minimum: 0 }))),
    /** Host NQNs that may connect. None: nobody. */
    hosts: Type.Array(Nqn),
    nbd: Type.Array(NbdExport),
    /** Absent: its data is stored as it is. Versions that do not know the field refuse the volume. */
    encryption: Type.Optional(VolumeEncryption),
    /** Its replicas verify what they read. Absent: they do not. */
    checksums: Type.Optional(Type.Literal(true)),
    /** Of a clone: the snapshot that it began as, and what that was called. */
    origin: Type.Optional(Type.Object({ snapshotId: Uuid, volume: Name, snapshot: Name }, strict)),
    phase: Type.Union([Type.Literal('live'), Type.Literal('deleting')]),
    /**
     * Of a volume with several active controllers (decision 020): the volumes that it is a stripe of, and what serves hosts.
     * It has no legs itself. Versions that do not know the fields refuse it.
     */
    parts: Type.Optional(Type.Array(Uuid, { minItems: 2, maxItems: 8 })),
    fronts: Type.Optional(Type.Array(Uuid, { minItems: 2, maxItems: 8 })),
    /** Which front each host belongs to, also of those that were detached. `leaving`: something of it may be on the way there. */
    hostFronts: Type.Optional(
      Type.Array(
        Type.Object(
          { host: Nqn, front: Type.Integer({ minimum: 0 }), leaving: Type.Optional(Type.Literal(true)) },
          strict,
        ),
      ),
    ),
    /** It is a part of that volume: it has no name, and no hosts. */
    partOf: Type.Optional(Uuid),
    /** The job that nobody may drive it for: who does hands it back. */
    suspended: Type.Optional(Uuid),
    /** Deleted without waiting for nodes that are away. */
    forced: Type.Optional(Type.Literal(true)),
  },
  strict,
);
export type VolumeObject = Static<typeof VolumeObject>;

export const VolumeNameObject = Type.Object({ format: Format, volumeId: Uuid }, strict);
export type VolumeNameObject = Static<typeof VolumeNameObject>;

export const InSyncMember = Type.Object(
  {
    replica: Uuid,
    /** Of the engine that held the replica's cache when it was last known in sync; null: never written to. */
    incarnation: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);
export type InSyncMember = Static<typeof InSyncMember>;

/** Growth of a volume, in the key that a takeover swaps: whoever drives it knows for sure how long its legs are. */
export const GrowingSize = Type.Object(
  {
    /** What hosts may use, and what every leg is long enough for. */
    servedBytes: Bytes,
    /** What was asked for; never less. */
    wantedBytes: Bytes,
    /** Legs may be as long as the wanted size calls for already: it can be changed no more until all are. */
    growing: Type.Boolean(),
  },
  strict,
);
export type GrowingSize = Static<typeof GrowingSize>;

export const Leadership = Type.Object(
  {
    format: Format,
    volumeId: Uuid,
    epoch: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    controller: Type.Union([Name, Type.Null()]),
    /** Drawn anew for every taking of an epoch: tells the holder's own swap from one of a namesake. */
    instance: Type.Union([Uuid, Type.Null()]),
    /** Nothing is in flight or unflushed: every in-sync member of a leg holds the same bytes. */
    clean: Type.Boolean(),
    leaseMs: Type.Integer({ minimum: 10, maximum: 1000 }),
    /** Members without which a leg can be neither read nor written; absent: one. */
    needs: Type.Optional(Type.Integer({ minimum: 2, maximum: 16 })),
    legs: Type.Array(Type.Object({ inSync: Type.Array(InSyncMember, { minItems: 1 }) }, strict)),
    /** Absent until the volume is asked to grow: the size that it was made with. */
    size: Type.Optional(GrowingSize),
    /**
     * Of a volume with erasure coding that began as a snapshot: what its members say that they are of, and what those said
     * that they are copies of. Absent: they say the volume's id. Beside the sets: one change makes other members of them.
     */
    begun: Type.Optional(Type.Object({ identity: Uuid, origin: Uuid }, strict)),
    /**
     * Of a store that was rebuilt, by leg: when what its members said of their set was in the store that was lost. One that says
     * something later was driven since the disks were asked.
     */
    rebuilt: Type.Optional(Type.Array(Type.Object({ epoch: Count, revision: Count }, strict))),
  },
  strict,
);
export type Leadership = Static<typeof Leadership>;

export const ObservedReplica = Type.Object(
  {
    format: Format,
    replica: Uuid,
    volumeId: Uuid,
    disk: Uuid,
    node: Name,
    state: Type.Union([Type.Literal('ready'), Type.Literal('missing')]),
    /** Absent: as it was made. */
    sizeBytes: Type.Optional(Bytes),
    /** Why it cannot be as large as the volume needs it. */
    problem: Type.Optional(Type.String()),
  },
  strict,
);
export type ObservedReplica = Static<typeof ObservedReplica>;

export const MemberState = Type.Union([Type.Literal('in_sync'), Type.Literal('joining'), Type.Literal('out')]);
export type MemberState = Static<typeof MemberState>;

export const ObservedVolume = Type.Object(
  {
    format: Format,
    volumeId: Uuid,
    node: Name,
    state: Type.Union([
      Type.Literal('active'),
      Type.Literal('promoting'),
      Type.Literal('standby'),
      Type.Literal('fenced'),
    ]),
    epoch: Count,
    address: Type.Union([Address, Type.Null()]),
    /** Dirty regions of an unclean takeover that wait for being made equal. */
    resyncing: Type.Boolean(),
    legs: Type.Array(Type.Array(Type.Object({ replica: Uuid, state: MemberState }, strict))),
    nbd: Type.Array(Type.Object({ path: Type.String(), uri: Type.String() }, strict)),
    problem: Type.Union([Type.String(), Type.Null()]),
    /** Where hosts with a key for TLS reach it; absent: there is none of them. */
    tlsAddress: Type.Optional(Address),
    /** What the volume's growth waits for. */
    growth: Type.Optional(Type.String()),
  },
  strict,
);
export type ObservedVolume = Static<typeof ObservedVolume>;

/** Reads and writes one kind of stored object. */
export interface Codec<T> {
  encode(value: T): string;
  /** @throws INTERNAL when the value is damaged, FORMAT_UNKNOWN when another version wrote it. */
  decode(text: string, key: string): T;
}

function codec<S extends TSchema>(schema: S): Codec<Static<S>> {
  const check = checker(schema);
  return {
    encode: (value) => JSON.stringify(check(value, 'stored')),
    decode(text, key) {
      const value = parse(text, key);
      const format = (value as { format?: unknown } | null)?.format;
      if (format !== formatVersion) throw new BasaltError('FORMAT_UNKNOWN', { key, format: String(format) });
      return check(value, key);
    },
  };
}

function parse(text: string, key: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new BasaltError('FORMAT_UNKNOWN', { key, format: 'not JSON' }, { cause });
  }
}

export const codecs = Object.freeze({
  cluster: codec(ClusterObject),
  clusterKey: codec(ClusterKeyObject),
  node: codec(NodeObject),
  nodeLink: codec(NodeLinkObject),
  live: codec(LiveObject),
  host: codec(HostObject),
  token: codec(TokenObject),
  disk: codec(DiskObject),
  volume: codec(VolumeObject),
  volumeName: codec(VolumeNameObject),
  pool: codec(PoolObject),
  poolName: codec(PoolNameObject),
  pgMap: codec(PgMapObject),
  tombstone: codec(TombstoneObject),
  cordon: codec(CordonObject),
  job: codec(JobObject),
  handOver: codec(HandOverObject),
  scrub: codec(ScrubObject),
  snapshot: codec(SnapshotObject),
  snapshotName: codec(SnapshotNameObject),
  snapshotGroup: codec(SnapshotGroupObject),
  snapshotHold: codec(SnapshotHoldObject),
  leadership: codec(Leadership),
  reservation: codec(ReservationObject),
  observedReplica: codec(ObservedReplica),
  observedVolume: codec(ObservedVolume),
});
