// SPDX-License-Identifier: Apache-2.0
//
// What travels between the API server and its clients.

import Type, { type Static } from 'typebox';
import { Address, MemberState, Name, NbdExport, Nqn, Role, Uuid } from './objects.js';

const strict = { additionalProperties: false } as const;
const MiB = 1024 * 1024;

export const blockSizeBytes = 4096;
export const volumeSizeBytesMax = 2 ** 50;

export const VolumeCreateRequest = Type.Object(
  {
    name: Name,
    sizeBytes: Type.Integer({ minimum: blockSizeBytes, maximum: volumeSizeBytesMax, multipleOf: blockSizeBytes }),
    copies: Type.Optional(Type.Integer({ minimum: 1, maximum: 8 })),
    legs: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
    stripeSizeBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024, maximum: 16 * MiB })),
    controllers: Type.Optional(Type.Array(Name, { maxItems: 15, uniqueItems: true })),
    leaseMs: Type.Optional(Type.Integer({ minimum: 10, maximum: 1000 })),
  },
  strict,
);
export type VolumeCreateRequest = Static<typeof VolumeCreateRequest>;

export const AttachRequest = Type.Object(
  {
    host: Type.Optional(Nqn),
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
    nbd: Type.Array(Type.Object({ path: Type.String(), uri: Type.String() }, strict)),
    problem: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);

export const ReplicaView = Type.Object({ replica: Uuid, node: Name, disk: Uuid, state: MemberState }, strict);

export const VolumeView = Type.Object(
  {
    id: Uuid,
    name: Name,
    sizeBytes: Type.Integer(),
    blockSizeBytes: Type.Integer(),
    stripeSizeBytes: Type.Integer(),
    copies: Type.Integer(),
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
    legs: Type.Array(Type.Array(ReplicaView)),
    paths: Type.Array(PathView),
  },
  strict,
);
export type VolumeView = Static<typeof VolumeView>;

export const NodeView = Type.Object(
  {
    name: Name,
    roles: Type.Array(Role),
    state: Type.Union([Type.Literal('up'), Type.Literal('draining'), Type.Literal('down')]),
    engine: Type.Union([Type.String(), Type.Null()]),
    internal: Type.Union([Address, Type.Null()]),
    hosts: Type.Union([Address, Type.Null()]),
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
