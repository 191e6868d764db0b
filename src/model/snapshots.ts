// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of volumes, as they live in the store.
//
//   wanted → cutting → ready → deleting → (gone)        cutting → wanted or failed, when a try did not succeed
//
// A group is snapshots of several volumes of one instant (docs/decisions/014-a-group-is-cut-under-holds-that-overlap.md):
//
//   wanted: each member goes from wanted to cutting by itself  → cutting: a round, until every member was cut in it (`voted`)
//   → ready, in one transaction with all members; or given up with all of them: wanted, with another round, or failed
//
// Invariants:  - a try is in the store before the first member is asked to cut for it, and its name is never used again
//              - `ready` names those copies that were cut at the instant, less those that were lost or given up since, and
//                those that were made of them
//              - every lvol that may exist is named: by `cut`, by `making`, or as a leftover until its disk node has removed it
//              - a member of a group is ready when all are; while the group has a round, it changes its phase with the group

import Type, { type Static } from 'typebox';
import type { Erasure } from './pools.js';
import { RouteRange } from './route.js';

const strict = { additionalProperties: false } as const;
const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const Name = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' });
const Format = Type.Literal(1);
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

/** Distinguishes tries of a group. */
export const SnapshotRound = Type.String({ pattern: '^[0-9a-f]{8}$' });

/** Of a leg of data and parity members: which of their strips it holds. Absent: all of the leg. */
const Place = Type.Integer({ minimum: 0, maximum: 19 });

/** A replica of the volume, and so the place of a copy: its disk. */
export const SnapshotCopy = Type.Object(
  { leg: Count, replica: Uuid, disk: Uuid, node: Name, place: Type.Optional(Place) },
  strict,
);
export type SnapshotCopy = Static<typeof SnapshotCopy>;

export const SnapshotCut = Type.Object(
  {
    /** Distinguishes tries. */
    attempt: Type.String({ pattern: '^[0-9a-f]{8}$' }),
    epoch: Count,
    /** What members of legs with parity say that they are of. */
    identity: Type.Optional(Uuid),
    copies: Type.Array(SnapshotCopy),
  },
  strict,
);
export type SnapshotCut = Static<typeof SnapshotCut>;

/** A copy that a disk node makes after the cut: its disk holds a replica, and has none. */
export const SnapshotMaking = Type.Object(
  {
    leg: Count,
    replica: Uuid,
    disk: Uuid,
    node: Name,
    /** The copy that it is made of; of a leg with parity one of those. */
    from: Uuid,
    place: Type.Optional(Place),
  },
  strict,
);
export type SnapshotMaking = Static<typeof SnapshotMaking>;

/** An lvol that is to go. */
export const SnapshotLeftover = Type.Object(
  {
    lvol: Type.String(),
    replica: Uuid,
    disk: Uuid,
    node: Name,
    /** The epoch that it was asked for under: as long as that lasts, the asking may still be on its way. */
    epoch: Count,
  },
  strict,
);
export type SnapshotLeftover = Static<typeof SnapshotLeftover>;

/** What of the volume may change later: a clone is made with what was. */
export const SnapshotShape = Type.Object(
  {
    sizeBytes: Count,
    legSizeBytes: Count,
    route: Type.Optional(Type.Array(RouteRange, { minItems: 1 })),
    /** Of a part: so large its volume was for hosts, at the instant or soon after; never larger than all parts were. */
    wholeBytes: Type.Optional(Count),
  },
  strict,
);
export type SnapshotShape = Static<typeof SnapshotShape>;

export const SnapshotPhase = Type.Union([
  Type.Literal('wanted'),
  Type.Literal('cutting'),
  Type.Literal('ready'),
  Type.Literal('failed'),
  Type.Literal('deleting'),
]);

export const SnapshotObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    name: Name,
    volumeId: Uuid,
    phase: SnapshotPhase,
    createdAtMs: Count,
    /** Tries that did not succeed. */
    failedCount: Count,
    /** Of `cutting` and `ready`. */
    cut: Type.Optional(SnapshotCut),
    /** Of `ready`; absent: none. */
    making: Type.Optional(Type.Array(SnapshotMaking, { minItems: 1 })),
    shape: Type.Optional(SnapshotShape),
    /** When it was cut, and for how long requests were held. */
    cutAtMs: Type.Optional(Count),
    heldUs: Type.Optional(Count),
    leftovers: Type.Array(SnapshotLeftover),
    /** Why the last try did not succeed. */
    problem: Type.Optional(Type.String()),
    /** That it is a member of. Versions that do not know the field refuse the snapshot. */
    group: Type.Optional(Type.Object({ id: Uuid, name: Name }, strict)),
    /** Of a member in `cutting`: the round that it was cut in, while all the others were held. */
    voted: Type.Optional(SnapshotRound),
  },
  strict,
);
export type SnapshotObject = Static<typeof SnapshotObject>;

/** Volumes: a transaction of the store holds a bounded number of keys. */
export const groupMembersMax = 32;

export const SnapshotGroupObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    name: Name,
    phase: Type.Union([Type.Literal('wanted'), Type.Literal('cutting'), Type.Literal('ready'), Type.Literal('failed')]),
    createdAtMs: Count,
    /** Rounds that did not succeed. */
    failedCount: Count,
    /** Of `cutting`. */
    round: Type.Optional(SnapshotRound),
    members: Type.Array(Type.Object({ volumeId: Uuid, snapshotId: Uuid }, strict), {
      minItems: 1,
      maxItems: groupMembersMax,
    }),
    problem: Type.Optional(Type.String()),
    /** It is one snapshot of this volume, whose parts are the members: users know it by the volume's and the snapshot's name. */
    of: Type.Optional(Uuid),
  },
  strict,
);
export type SnapshotGroupObject = Static<typeof SnapshotGroupObject>;

/** One volume of a group tells the others that its requests are held. */
export const SnapshotHoldObject = Type.Object({ format: Format, round: SnapshotRound }, strict);
export type SnapshotHoldObject = Static<typeof SnapshotHoldObject>;

export const SnapshotNameObject = Type.Object({ format: Format, snapshotId: Uuid }, strict);
export type SnapshotNameObject = Static<typeof SnapshotNameObject>;

/** So many of a leg are needed to have it whole. */
export function copiesNeeded(volume: { readonly erasure?: Erasure | undefined }): number {
  return volume.erasure?.data ?? 1;
}

/** What is wrong where a leg cannot be had. */
export function tooFewCopies(volume: { readonly erasure?: Erasure | undefined }): string {
  const needed = copiesNeeded(volume);
  return needed === 1 ? 'no copy' : `fewer than ${needed} copies`;
}

/** Of copies of a leg with the same place, the first one that is preferred, or the first. */
export function onePerPlace(
  copies: readonly SnapshotCopy[],
  isPreferred: (copy: SnapshotCopy) => boolean = () => false,
): SnapshotCopy[] {
  const chosen = new Map<string, SnapshotCopy>();
  for (const copy of copies) {
    const key = `${copy.leg}/${copy.place}`;
    const present = chosen.get(key);
    if (present === undefined || (!isPreferred(present) && isPreferred(copy))) chosen.set(key, copy);
  }
  return copies.filter((copy) => copy.place === undefined || chosen.get(`${copy.leg}/${copy.place}`) === copy);
}

/** What a copy is called on its disk: 62 characters, one fewer than an lvol's name may have. */
export function snapshotLvol(snapshotId: string, attempt: string, replica: string): string {
  return `${snapshotId}.${attempt}.${replica.replaceAll('-', '').slice(0, 16)}`;
}
