// SPDX-License-Identifier: Apache-2.0
//
// Reservations of hosts on a volume, as they live in the store: one object per volume, absent until the first
// registration. Engines work out every change (native/ns); here it is kept.
//
// Invariants:  - changed only by whoever holds the volume's leadership, together with its revision
//              - `version` grows by one with each change; `change` names the one that made it

import Type, { type Static } from 'typebox';

const strict = { additionalProperties: false } as const;
const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const Format = Type.Literal(1);
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

/** A host, by its NVMe host identifier: the same on all of its paths. */
export const Registrant = Type.Object({ host: Uuid, key: Type.String({ pattern: '^[1-9][0-9]{0,19}$' }) }, strict);
export type Registrant = Static<typeof Registrant>;

/** What hosts that are connected to any controller are told, once. */
export const ReservationNotice = Type.Object(
  {
    /** Of the change that it is about. */
    version: Count,
    /** As NVMe numbers it: 1 registration preempted, 2 reservation released, 3 reservation preempted. */
    kind: Type.Integer({ minimum: 1, maximum: 3 }),
    hosts: Type.Array(Uuid, { minItems: 1, maxItems: 64 }),
  },
  strict,
);
export type ReservationNotice = Static<typeof ReservationNotice>;

const state = {
  version: Count,
  change: Type.Union([Uuid, Type.Null()]),
  /** NVMe's, which counts registrations and what ends them. */
  generation: Type.Integer({ minimum: 0, maximum: 0xffff_ffff }),
  /** NVMe's type; 0: nothing is reserved. */
  rtype: Type.Integer({ minimum: 0, maximum: 6 }),
  /** Null: nobody, or all registrants, as the type says. */
  holder: Type.Union([Uuid, Type.Null()]),
  registrants: Type.Array(Registrant, { maxItems: 64 }),
  /** The latest. */
  notices: Type.Array(ReservationNotice, { maxItems: 64 }),
};

export const ReservationState = Type.Object(state, strict);
export type ReservationState = Static<typeof ReservationState>;

export const ReservationObject = Type.Object({ format: Format, volumeId: Uuid, ...state }, strict);
export type ReservationObject = Static<typeof ReservationObject>;

/** Of a volume that nobody has ever registered with. */
export const noReservation: ReservationState = Object.freeze({
  version: 0,
  change: null,
  generation: 0,
  rtype: 0,
  holder: null,
  registrants: [],
  notices: [],
});

export function isReserved(reservation: ReservationState): boolean {
  return reservation.rtype !== 0;
}

/** Notices of so many changes are kept for controllers that were away. */
const noticesKept = 16;

/** The object after a change that an engine worked out. */
export function reservationAfter(
  volumeId: string,
  before: ReservationState,
  next: ReservationState,
): ReservationObject {
  const notices = [...before.notices, ...next.notices].slice(-noticesKept);
  return { format: 1, volumeId, ...next, notices };
}

/** Without what only the store needs. */
export function reservationState(object: ReservationObject | null): ReservationState {
  if (object === null) return noReservation;
  const { format, volumeId, ...rest } = object;
  return rest;
}
