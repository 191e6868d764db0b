// SPDX-License-Identifier: Apache-2.0
//
// What travels between the API server and its clients.

import Type, { type Static } from 'typebox';
import { CordonKind, CordonMode } from './jobs.js';
import { DiskClass, DiskSelector, DiskTags, DiskWeight, DomainLevel, Location } from './location.js';
import { activeMax } from './multi-active.js';
import { Address, ClusterKeyId, MemberState, Name, NbdExport, NodeAddress, Nqn, Role, Uuid } from './objects.js';
import { Erasure, pgCountMax, Redundancy } from './pools.js';
import { legsMax } from './route.js';
import { groupMembersMax } from './snapshots.js';
import { ApiRole } from './tokens.js';

const strict = { additionalProperties: false } as const;
const MiB = 1024 * 1024;

export const blockSizeBytes = 4096;
export const volumeSizeBytesMax = 2 ** 50;

export const VolumeCreateRequest = Type.Object(
  {
    name: Name,
    sizeBytes: Type.Integer({ minimum: blockSizeBytes, maximum: volumeSizeBytesMax, multipleOf: blockSizeBytes }),
    /** Whose PGs hold it. None named: a default pool for the number of copies, made when it is needed first. */
    pool: Type.Optional(Name),
    copies: Type.Optional(Type.Integer({ minimum: 1, maximum: 8 })),
    legs: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
    stripeSizeBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024, maximum: 16 * MiB })),
    controllers: Type.Optional(Type.Array(Name, { maxItems: 15, uniqueItems: true })),
    /** Controllers that drive it and serve hosts at once, each a share of the legs and of the hosts. @default 1 */
    active: Type.Optional(Type.Integer({ minimum: 1, maximum: activeMax })),
    leaseMs: Type.Optional(Type.Integer({ minimum: 10, maximum: 1000 })),
    /** What is written is stored encrypted, under a key of the volume's own that the cluster key wraps. @default false */
    encrypt: Type.Optional(Type.Boolean()),
    /** Its replicas keep a checksum of each 4 KiB block, verify every read, and repair from one another. @default false */
    checksums: Type.Optional(Type.Boolean()),
  },
  strict,
);
export type VolumeCreateRequest = Static<typeof VolumeCreateRequest>;

export const VolumeResizeRequest = Type.Object(
  {
    /** Not less than it is. */
    sizeBytes: Type.Integer({ minimum: blockSizeBytes, maximum: volumeSizeBytesMax, multipleOf: blockSizeBytes }),
  },
  strict,
);
export type VolumeResizeRequest = Static<typeof VolumeResizeRequest>;

export const SnapshotCreateRequest = Type.Object({ name: Name }, strict);
export type SnapshotCreateRequest = Static<typeof SnapshotCreateRequest>;

export const SnapshotGroupCreateRequest = Type.Object(
  {
    /** Of the group, and of each snapshot. */
    name: Name,
    /** By name. */
    volumes: Type.Array(Name, { minItems: 1, maxItems: groupMembersMax, uniqueItems: true }),
  },
  strict,
);
export type SnapshotGroupCreateRequest = Static<typeof SnapshotGroupCreateRequest>;

/** A volume that begins as a snapshot. */
export const CloneRequest = Type.Object(
  {
    name: Name,
    controllers: Type.Optional(Type.Array(Name, { maxItems: 15, uniqueItems: true })),
    leaseMs: Type.Optional(Type.Integer({ minimum: 10, maximum: 1000 })),
  },
  strict,
);
export type CloneRequest = Static<typeof CloneRequest>;

export const PoolCreateRequest = Type.Object(
  {
    name: Name,
    redundancy: Redundancy,
    /** @default 'node' */
    domain: Type.Optional(DomainLevel),
    class: Type.Optional(DiskClass),
    tags: Type.Optional(DiskTags),
    /** @default about a hundred places for each disk */
    pgCount: Type.Optional(Type.Integer({ minimum: 1, maximum: pgCountMax })),
  },
  strict,
);
export type PoolCreateRequest = Static<typeof PoolCreateRequest>;

export const PoolPlanRequest = Type.Object(
  {
    /** Disks by id, or nodes by name, that the plan does without. */
    without: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 1000 })),
    /** Other weights, by disk id. */
    weights: Type.Optional(Type.Record(Uuid, DiskWeight)),
    /** What moving may take, for the time that it says. */
    bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
  },
  strict,
);
export type PoolPlanRequest = Static<typeof PoolPlanRequest>;

export const PoolView = Type.Object(
  {
    id: Uuid,
    name: Name,
    redundancy: Redundancy,
    domain: DomainLevel,
    selector: DiskSelector,
    pgCount: Type.Integer(),
    mapVersion: Type.Integer(),
    disks: Type.Integer(),
    volumes: Type.Integer(),
    /** What volumes were promised, at their full size. */
    promisedBytes: Type.Integer(),
    /** What fits when PGs are filled evenly until the first disk is full. */
    usableBytes: Type.Integer(),
    /** What the best of all maps of these disks could hold. */
    optimumBytes: Type.Integer(),
    /** Legs whose replicas are not yet on their PG's disks. */
    legsMoving: Type.Integer(),
    /** PGs with a disk that is away. */
    pgsDegraded: Type.Integer(),
  },
  strict,
);
export type PoolView = Static<typeof PoolView>;

export const PoolPlanDisk = Type.Object(
  {
    disk: Uuid,
    node: Name,
    pgsBefore: Type.Integer(),
    pgsAfter: Type.Integer(),
    inBytes: Type.Integer(),
    outBytes: Type.Integer(),
  },
  strict,
);

export const PoolPlanView = Type.Object(
  {
    pool: Name,
    /** Places of PGs that move. */
    moves: Type.Array(
      Type.Object(
        {
          pg: Type.Integer(),
          from: Type.Union([Uuid, Type.Null()]),
          to: Uuid,
          bytes: Type.Integer(),
        },
        strict,
      ),
    ),
    /** The least that has to move for the best map, in places of a PG. */
    movesMin: Type.Number(),
    /** At most: replicas are thin. */
    bytes: Type.Integer(),
    bytesPerSecond: Type.Integer(),
    seconds: Type.Integer(),
    usableBytesBefore: Type.Integer(),
    usableBytesAfter: Type.Integer(),
    optimumBytes: Type.Integer(),
    /** Those that something changes for. */
    disks: Type.Array(PoolPlanDisk),
  },
  strict,
);
export type PoolPlanView = Static<typeof PoolPlanView>;

export const MoveControllerRequest = Type.Object({ to: Name }, strict);
export type MoveControllerRequest = Static<typeof MoveControllerRequest>;

export const MoveReplicaRequest = Type.Object(
  {
    /** Only this one. @default every leg that has a replica on the disk */
    leg: Type.Optional(Type.Integer({ minimum: 0, maximum: legsMax - 1 })),
    /** Disks. */
    from: Uuid,
    to: Uuid,
  },
  strict,
);
export type MoveReplicaRequest = Static<typeof MoveReplicaRequest>;

export const ChangePoolRequest = Type.Object(
  {
    /** The pool that it goes to. */
    pool: Name,
  },
  strict,
);
export type ChangePoolRequest = Static<typeof ChangePoolRequest>;

export const ScrubVolumeRequest = Type.Object(
  {
    /** Of each leg, one after the other. @default as fast as it goes */
    bytesPerS: Type.Optional(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
    /** What differs or cannot be read is rewritten. @default true */
    repair: Type.Optional(Type.Boolean()),
  },
  strict,
);
export type ScrubVolumeRequest = Static<typeof ScrubVolumeRequest>;

/** What draining a disk or a node moves. */
export const DrainPlanView = Type.Object(
  {
    kind: CordonKind,
    name: Type.String(),
    replicas: Type.Integer(),
    /** Of snapshots: they stay. */
    snapshotCopies: Type.Integer(),
    /** At most: replicas are thin. */
    bytes: Type.Integer(),
    /** How each pool would be mapped without it. */
    pools: Type.Array(PoolPlanView),
    /** Whom each volume would be handed over to. */
    controllers: Type.Array(Type.Object({ volume: Name, to: Name }, strict)),
    /** What would keep it from going on at once. */
    waitsFor: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);
export type DrainPlanView = Static<typeof DrainPlanView>;

/** As text: what an NVMe key looks like at most. */
const HostKeyText = Type.String({ minLength: 1, maxLength: 256 });

/** Left out: stays as it is. Null: is taken away. No answer or error ever shows one. */
export const HostKeysRequest = Type.Object(
  {
    /** What the host authenticates with (DH-HMAC-CHAP): `DHHC-1:…:` */
    dhchapKey: Type.Optional(Type.Union([HostKeyText, Type.Null()])),
    /** What controllers prove themselves to the host with; goes with the other one. */
    dhchapCtrlrKey: Type.Optional(Type.Union([HostKeyText, Type.Null()])),
    /** Of its TLS: `NVMeTLSkey-1:…:`. The host comes by TLS and not otherwise. */
    tlsPsk: Type.Optional(Type.Union([HostKeyText, Type.Null()])),
  },
  strict,
);
export type HostKeysRequest = Static<typeof HostKeysRequest>;

export const HostCreateRequest = Type.Object(
  {
    nqn: Nqn,
    dhchapKey: Type.Optional(HostKeyText),
    dhchapCtrlrKey: Type.Optional(HostKeyText),
    tlsPsk: Type.Optional(HostKeyText),
  },
  strict,
);
export type HostCreateRequest = Static<typeof HostCreateRequest>;

/** Which kinds of keys a host has; never what they are. */
export const HostView = Type.Object(
  {
    nqn: Type.String(),
    dhchapKey: Type.Boolean(),
    dhchapCtrlrKey: Type.Boolean(),
    tlsPsk: Type.Boolean(),
    /** Ids of the cluster keys that wrap them. */
    wrappedBy: Type.Array(ClusterKeyId),
    /** Those that it is attached to. */
    volumes: Type.Array(Name),
  },
  strict,
);
export type HostView = Static<typeof HostView>;

const tokenLifeSecondsMax = 10 * 366 * 86_400;

export const TokenCreateRequest = Type.Object(
  {
    name: Name,
    role: ApiRole,
    /** Absent: it lasts until it is revoked. */
    expiresInS: Type.Optional(Type.Integer({ minimum: 1, maximum: tokenLifeSecondsMax })),
  },
  strict,
);
export type TokenCreateRequest = Static<typeof TokenCreateRequest>;

const tokenFields = {
  name: Name,
  role: ApiRole,
  createdAtMs: Type.Integer(),
  expiresAtMs: Type.Union([Type.Integer(), Type.Null()]),
  expired: Type.Boolean(),
};
export const TokenView = Type.Object(tokenFields, strict);
export type TokenView = Static<typeof TokenView>;

/** `token`: what its holder shows, this once. */
export const TokenCreated = Type.Object({ ...tokenFields, token: Type.String() }, strict);
export type TokenCreated = Static<typeof TokenCreated>;

export const AttachRequest = Type.Object(
  {
    host: Type.Optional(Nqn),
    /** Given to the host when it has none; other ones than it has are refused. Goes with `host`. */
    keys: Type.Optional(
      Type.Object(
        {
          dhchapKey: Type.Optional(HostKeyText),
          dhchapCtrlrKey: Type.Optional(HostKeyText),
          tlsPsk: Type.Optional(HostKeyText),
        },
        strict,
      ),
    ),
    nbd: Type.Optional(
      Type.Object({ path: Type.String({ pattern: '^/', maxLength: 107 }), node: Type.Optional(Name) }, strict),
    ),
  },
  strict,
);
export type AttachRequest = Static<typeof AttachRequest>;

export const PathView = Type.Object(
  {
    node: Name,
    state: Type.String(),
    epoch: Type.Integer(),
    address: Type.Union([Address, Type.Null()]),
    /** Where hosts with a key for TLS connect; null: none of the volume's has one, or it is not open yet. */
    tlsAddress: Type.Union([Address, Type.Null()]),
    nbd: Type.Array(Type.Object({ path: Type.String(), uri: Type.String() }, strict)),
    problem: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);

export const ReplicaView = Type.Object({ replica: Uuid, node: Name, disk: Uuid, state: MemberState }, strict);

/** One of the active controllers of a volume that has several, as the hosts see it that belong to it. */
export const FrontView = Type.Object(
  {
    nqn: Type.String(),
    hosts: Type.Array(Type.String()),
    controller: Type.Union([Name, Type.Null()]),
    epoch: Type.Integer(),
    paths: Type.Array(PathView),
  },
  strict,
);

export const PartView = Type.Object(
  { id: Uuid, controller: Type.Union([Name, Type.Null()]), epoch: Type.Integer() },
  strict,
);

export const VolumeView = Type.Object(
  {
    id: Uuid,
    name: Name,
    /** What hosts may use now. */
    sizeBytes: Type.Integer(),
    /** While it grows: what it was asked to become, and what that waits for. */
    growth: Type.Union([
      Type.Object({ sizeBytes: Type.Integer(), problem: Type.Union([Type.String(), Type.Null()]) }, strict),
      Type.Null(),
    ]),
    blockSizeBytes: Type.Integer(),
    stripeSizeBytes: Type.Integer(),
    /** Whole ones; 1 with erasure coding. */
    copies: Type.Integer(),
    /** Its legs are of data and parity members. Absent: they are mirrors. */
    erasure: Type.Optional(Erasure),
    pool: Type.Union([Name, Type.Null()]),
    phase: Type.Union([Type.Literal('creating'), Type.Literal('live'), Type.Literal('deleting')]),
    health: Type.Union([
      Type.Literal('redundant'),
      Type.Literal('resyncing'),
      Type.Literal('degraded'),
      Type.Literal('unserved'),
    ]),
    nqn: Type.String(),
    epoch: Type.Integer(),
    controller: Type.Union([Name, Type.Null()]),
    controllers: Type.Array(Name),
    hosts: Type.Array(Type.String()),
    nbd: Type.Array(NbdExport),
    /** Id of the cluster key that wraps its data key; null: it is not encrypted. */
    encryptedBy: Type.Union([ClusterKeyId, Type.Null()]),
    checksums: Type.Boolean(),
    /** `<volume>@<snapshot>` that it began as, by the names that they had then; null: it began empty. */
    origin: Type.Union([Type.String(), Type.Null()]),
    legs: Type.Array(Type.Array(ReplicaView)),
    paths: Type.Array(PathView),
    /** Of a volume with several active controllers: by which NQN and paths its hosts find it, instead of `nqn` and `paths`. */
    fronts: Type.Optional(Type.Array(FrontView)),
    /** Of the same: who drives which share of its legs. Leg i is of part i mod the number of parts. */
    parts: Type.Optional(Type.Array(PartView)),
  },
  strict,
);
export type VolumeView = Static<typeof VolumeView>;

export const SnapshotView = Type.Object(
  {
    id: Uuid,
    name: Name,
    volume: Name,
    /** `pending`: not cut yet. `failed`: it was not made, and is not tried any more. */
    state: Type.Union([Type.Literal('pending'), Type.Literal('ready'), Type.Literal('failed')]),
    createdAtMs: Type.Integer(),
    /** Null until it is ready. */
    cutAtMs: Type.Union([Type.Integer(), Type.Null()]),
    /** For how long the volume's requests were held. */
    heldUs: Type.Union([Type.Integer(), Type.Null()]),
    sizeBytes: Type.Union([Type.Integer(), Type.Null()]),
    /** What the volume keeps of everything. */
    copiesWanted: Type.Integer(),
    /** Of the leg that has the fewest, on disks that can be reached now. */
    copies: Type.Integer(),
    legs: Type.Array(
      Type.Array(
        Type.Object({ node: Name, disk: Uuid, state: Type.Union([Type.Literal('up'), Type.Literal('down')]) }, strict),
      ),
    ),
    /** Volumes that began as it. */
    clones: Type.Array(Name),
    /** That it is a member of. */
    group: Type.Union([Name, Type.Null()]),
    problem: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);
export type SnapshotView = Static<typeof SnapshotView>;

export const SnapshotGroupView = Type.Object(
  {
    id: Uuid,
    name: Name,
    /** Of all of its snapshots. */
    state: Type.Union([Type.Literal('pending'), Type.Literal('ready'), Type.Literal('failed')]),
    createdAtMs: Type.Integer(),
    /** Of the volume whose requests were held the longest. */
    heldUs: Type.Union([Type.Integer(), Type.Null()]),
    problem: Type.Union([Type.String(), Type.Null()]),
    snapshots: Type.Array(SnapshotView),
  },
  strict,
);
export type SnapshotGroupView = Static<typeof SnapshotGroupView>;

/** Ids of cluster keys; what keys are made of is never sent. */
export const ClusterKeyView = Type.Object(
  {
    /** Wraps the data keys of new volumes; null: there was none yet. */
    current: Type.Union([ClusterKeyId, Type.Null()]),
    keys: Type.Array(
      Type.Object(
        {
          id: ClusterKeyId,
          /** It is in the key file of the server that answers. */
          held: Type.Boolean(),
          /** Whose data key it wraps. */
          volumes: Type.Integer(),
          /** Whose keys it wraps. */
          hosts: Type.Integer(),
        },
        strict,
      ),
    ),
  },
  strict,
);
export type ClusterKeyView = Static<typeof ClusterKeyView>;

export const NodeView = Type.Object(
  {
    name: Name,
    roles: Type.Array(Role),
    state: Type.Union([Type.Literal('up'), Type.Literal('draining'), Type.Literal('down')]),
    engine: Type.Union([Type.String(), Type.Null()]),
    internal: Type.Union([NodeAddress, Type.Null()]),
    /** Of the subsystem by which controllers reach all its replicas over one association. Null: they connect to each. */
    link: Type.Union([Nqn, Type.Null()]),
    hosts: Type.Union([NodeAddress, Type.Null()]),
    location: Location,
    /** Null: it takes new work. */
    cordon: Type.Union([CordonMode, Type.Null()]),
  },
  strict,
);
export type NodeView = Static<typeof NodeView>;

export const DiskView = Type.Object(
  {
    id: Uuid,
    node: Name,
    path: Type.String(),
    state: Type.Union([Type.Literal('up'), Type.Literal('down')]),
    totalBytes: Type.Integer(),
    freeBytes: Type.Integer(),
    promisedBytes: Type.Integer(),
    buffered: Type.Boolean(),
    class: DiskClass,
    tags: DiskTags,
    weight: DiskWeight,
    /** Its own, or its node's. */
    cordon: Type.Union([CordonMode, Type.Null()]),
  },
  strict,
);
export type DiskView = Static<typeof DiskView>;

export const StatusView = Type.Object(
  {
    version: Type.String(),
    cluster: Type.Object({ id: Uuid }, strict),
    store: Type.Object({ endpoints: Type.Array(Type.String()) }, strict),
    health: Type.Union([Type.Literal('ok'), Type.Literal('degraded')]),
    nodes: Type.Array(NodeView),
    disks: Type.Array(DiskView),
    volumes: Type.Array(VolumeView),
  },
  strict,
);
export type StatusView = Static<typeof StatusView>;

export const ErrorView = Type.Object({
  code: Type.String(),
  message: Type.String(),
  field: Type.Optional(Type.String()),
  hint: Type.String(),
  fields: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
});
export type ErrorView = Static<typeof ErrorView>;
