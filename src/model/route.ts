// SPDX-License-Identifier: Apache-2.0
//
// A volume's route: ranges of its addresses, each with the rule that computes stripe → leg → PG. Nothing is stored per stripe.
//
// Invariants:  - ranges follow one another without a gap, from address 0 to the volume's size
//              - growth lengthens the last range or appends one; an address that exists keeps its leg, its offset and its PG

import Type, { type Static } from 'typebox';

const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const legsMax = 1024;

/** What happens when the seed gives a leg the PG of an earlier leg: the next PG that none has (`spread`), or that one again. */
export const ConflictRule = Type.Union([Type.Literal('spread'), Type.Literal('any')]);
export type ConflictRule = Static<typeof ConflictRule>;

export const RouteRange = Type.Object(
  {
    startBytes: Bytes,
    lengthBytes: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    stripeSizeBytes: Type.Integer({ minimum: 1, maximum: 2 ** 30 }),
    /** Legs are numbered over the whole volume; a range stripes over `legCount` of them. */
    firstLeg: Type.Integer({ minimum: 0, maximum: legsMax - 1 }),
    legCount: Type.Integer({ minimum: 1, maximum: legsMax }),
    /** Where the range begins in each of its legs. */
    legOffsetBytes: Bytes,
    seed: Type.Integer({ minimum: 0, maximum: 0xffff_ffff }),
    conflict: ConflictRule,
  },
  { additionalProperties: false },
);
export type RouteRange = Static<typeof RouteRange>;
