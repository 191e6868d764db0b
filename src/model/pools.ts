// SPDX-License-Identifier: Apache-2.0
//
// Pools and their placement groups, as they live in the store.
//
// Invariants:  - a pool's PG count never changes: volumes compute their PGs from it
//              - the map of a pool is one object under one key; its version grows with every change
//              - a PG names each disk once, and disks of distinct failure domains only

import Type, { type Static } from 'typebox';
import { BasaltError } from './errors.js';
import { DiskSelector, DomainLevel } from './location.js';

const strict = { additionalProperties: false } as const;
const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const Name = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' });
const Format = Type.Literal(1);
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const pgCountMax = 16_384;
export const copiesMax = 8;

export const Redundancy = Type.Union([
  Type.Object({ kind: Type.Literal('copies'), copies: Type.Integer({ minimum: 1, maximum: copiesMax }) }, strict),
  Type.Object(
    {
      kind: Type.Literal('erasure'),
      data: Type.Integer({ minimum: 1, maximum: 16 }),
      parity: Type.Integer({ minimum: 1, maximum: 4 }),
    },
    strict,
  ),
]);
export type Redundancy = Static<typeof Redundancy>;

/** How many disks a PG has. */
export function widthOf(redundancy: Redundancy): number {
  return redundancy.kind === 'copies' ? redundancy.copies : redundancy.data + redundancy.parity;
}

/** How many of a PG's disks hold data that is not redundant: what a byte of a volume is divided among. */
export function dataWidthOf(redundancy: Redundancy): number {
  return redundancy.kind === 'copies' ? 1 : redundancy.data;
}

export function redundancyText(redundancy: Redundancy): string {
  if (redundancy.kind === 'erasure') return `${redundancy.data}+${redundancy.parity}`;
  return redundancy.copies === 1 ? '1 copy' : `${redundancy.copies} copies`;
}

/** @throws POOL_UNSUPPORTED for what this version's engine cannot keep */
export function assertSupported(redundancy: Redundancy): void {
  if (redundancy.kind === 'copies' || redundancy.data >= 2) return;
  const { data, parity } = redundancy;
  const problem = `${data}+${parity} holds ${parity + 1} copies of everything and pays for a log besides; ask for ${parity + 1} copies`;
  throw new BasaltError('POOL_UNSUPPORTED', { field: 'redundancy', problem });
}

/** Of a leg: of so many data and parity members. */
export const Erasure = Type.Object(
  { data: Type.Integer({ minimum: 2, maximum: 16 }), parity: Type.Integer({ minimum: 1, maximum: 4 }) },
  strict,
);
export type Erasure = Static<typeof Erasure>;

export function erasureOf(redundancy: Redundancy): Erasure | undefined {
  return redundancy.kind === 'copies' ? undefined : { data: redundancy.data, parity: redundancy.parity };
}

export const PoolObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    name: Name,
    redundancy: Redundancy,
    /** No two disks of a PG stand in one domain of this level. */
    domain: DomainLevel,
    selector: DiskSelector,
    pgCount: Type.Integer({ minimum: 1, maximum: pgCountMax }),
  },
  strict,
);
export type PoolObject = Static<typeof PoolObject>;

export const PoolNameObject = Type.Object({ format: Format, poolId: Uuid }, strict);
export type PoolNameObject = Static<typeof PoolNameObject>;

/** A disk as it was when the map was made: another one now calls for a new map. */
export const PgDisk = Type.Object({ id: Uuid, node: Name, domain: Type.String(), capacityBytes: Count }, strict);
export type PgDisk = Static<typeof PgDisk>;

export const PgMapObject = Type.Object(
  {
    format: Format,
    poolId: Uuid,
    version: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    disks: Type.Array(PgDisk),
    /** Of each PG, its disks in order, as positions in `disks`. */
    pgs: Type.Array(Type.Array(Type.Integer({ minimum: 0 }))),
  },
  strict,
);
export type PgMapObject = Static<typeof PgMapObject>;

/** A replica that its disk has to delete as soon as it is back. */
export const TombstoneObject = Type.Object(
  { format: Format, replica: Uuid, disk: Uuid, volumeId: Uuid, epoch: Count },
  strict,
);
export type TombstoneObject = Static<typeof TombstoneObject>;
