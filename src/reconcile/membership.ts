// SPDX-License-Identifier: Apache-2.0
//
// Every change of a volume's leadership object, as pure functions from the present object to the next one.
// Callers put the next one into the store by compare-and-swap; only then does it count.
//
// Invariants:  - no function returns a leg with fewer members than it needs: one, or as many as it has data members
//              - an epoch grows by taking over, or by being granted to a successor; it has one instance that uses it
//              - whoever is not named as the controller changes nothing but by taking over

import { BasaltError } from '../model/errors.js';
import { generationOf } from '../model/generation.js';
import { sameMachineBoot } from '../model/incarnation.js';
import type { InSyncMember, Leadership } from '../model/objects.js';

export interface MemberRef {
  readonly leg: number;
  readonly replica: string;
}

/** Members that every leg needs in its set. */
function needsOf(present: Leadership): number {
  return present.needs ?? 1;
}

/** A member that obeys the new epoch now. */
export interface TakenMember extends MemberRef {
  readonly incarnation: string;
}

export interface Holder {
  readonly controller: string;
  readonly instance: string;
}

/**
 * `above`: the highest epoch that a replica is known to have accepted, when that is more than the store knows.
 * @throws STORE_OUTDATED when that is of a later generation of the store: only that store may draw a higher one
 */
export function planNewEpoch(present: Leadership, holder: Holder, above = 0): Leadership {
  if (generationOf(above) > generationOf(present.epoch))
    throw new BasaltError('STORE_OUTDATED', {
      name: present.volumeId,
      detail: `a replica obeys generation ${generationOf(above)} of the store, this is ${generationOf(present.epoch)}`,
    });
  const epoch = Math.max(present.epoch, above) + 1;
  return { ...present, epoch, controller: holder.controller, instance: holder.instance };
}

export function holds(present: Leadership, holder: Holder): boolean {
  return present.controller === holder.controller && present.instance === holder.instance;
}

export interface TakeoverPlan {
  /** What to swap in before serving; null: of a leg too few members were taken over. */
  readonly next: Leadership | null;
  readonly left: readonly MemberRef[];
  /** Every member of the old set obeys: no old read lease can be in use. */
  readonly allTaken: boolean;
  /** Legs of which fewer members than they need are known to have kept their caches, while others were not reached. */
  readonly doubtful: readonly number[];
  readonly empty: readonly number[];
}

/**
 * After the takeover of members: who stays. A member with another incarnation may have lost its cache, so it leaves,
 * unless the volume was left clean or no member with its cache was taken over. Then those stay of which only the process
 * ended: what they had written is with the machine still. A machine that started anew has lost what was not flushed; its
 * members stay only when all have.
 *
 * Of a leg with parity all stay: what a cache has lost is in the logs of the others, durably, and is replayed.
 */
export function planTakeover(present: Leadership, taken: readonly TakenMember[]): TakeoverPlan {
  const left: MemberRef[] = [];
  const doubtful: number[] = [];
  const empty: number[] = [];
  let allTaken = true;
  const legs = present.legs.map(({ inSync }, leg) => {
    const needs = needsOf(present);
    const outcome = takeOverLeg(
      { keepsAll: present.clean || needs > 1, inSync },
      taken.filter((entry) => entry.leg === leg),
    );
    if (outcome.stay.length < needs) empty.push(leg);
    if (outcome.reached < inSync.length) allTaken = false;
    if (outcome.reached < inSync.length && outcome.kept < needs) doubtful.push(leg);
    for (const member of inSync) {
      if (!outcome.stay.some((entry) => entry.replica === member.replica)) left.push({ leg, replica: member.replica });
    }
    return { inSync: outcome.stay };
  });
  const next = empty.length > 0 ? null : { ...present, clean: false, legs };
  return { next, left, allTaken, doubtful, empty };
}

function takeOverLeg(
  { keepsAll, inSync }: { keepsAll: boolean; inSync: readonly InSyncMember[] },
  taken: readonly TakenMember[],
): { stay: InSyncMember[]; reached: number; kept: number } {
  const reached = inSync.flatMap((member) => {
    const found = taken.find((entry) => entry.replica === member.replica);
    if (found === undefined) return [];
    const kept = member.incarnation === found.incarnation;
    const sameBoot = sameMachineBoot(member.incarnation, found.incarnation);
    return [{ member: { replica: member.replica, incarnation: found.incarnation }, kept, sameBoot }];
  });
  const kept = reached.filter((entry) => entry.kept);
  const sameBoot = reached.filter((entry) => entry.sameBoot);
  const stay = keepsAll ? reached : ([kept, sameBoot].find((members) => members.length > 0) ?? reached);
  return { stay: stay.map((entry) => entry.member), reached: reached.length, kept: kept.length };
}

export interface ShrinkPlan {
  /** Null: nothing to swap. */
  readonly next: Leadership | null;
  readonly removed: readonly MemberRef[];
  /** Members that failed and that their leg cannot do without: they stay, and writes wait. */
  readonly last: readonly MemberRef[];
}

/** Members that failed leave, all legs in one swap; where too few would be left none of the leg does. */
export function planShrink(present: Leadership, failed: readonly MemberRef[]): ShrinkPlan {
  const removed: MemberRef[] = [];
  const last: MemberRef[] = [];
  const legs = present.legs.map(({ inSync }, leg) => {
    const gone = inSync.filter((member) =>
      failed.some((entry) => entry.leg === leg && entry.replica === member.replica),
    );
    if (gone.length === 0) return { inSync };
    const refs = gone.map((member) => ({ leg, replica: member.replica }));
    if (inSync.length - gone.length < needsOf(present)) {
      last.push(...refs);
      return { inSync };
    }
    removed.push(...refs);
    return { inSync: inSync.filter((member) => !gone.includes(member)) };
  });
  return { next: removed.length === 0 ? null : { ...present, legs }, removed, last };
}

export interface Restore {
  readonly inForce: Leadership['legs'];
  /** These legs only. */
  readonly legs: readonly number[];
  /** What is placed no more is being deleted. */
  readonly isPlaced: (member: MemberRef) => boolean;
}

/**
 * A leg's set was swapped, and none of its members is there to keep the new one: nothing was acknowledged under that, so
 * whoever was of the set in force before has everything still. Who joined since has it too, where there is a place for both; of
 * a leg with parity the old ones come back all or not at all.
 */
export function planRestore(present: Leadership, { inForce, legs: of, isPlaced }: Restore): Leadership | null {
  let isNew = false;
  const legs = present.legs.map((now, leg) => {
    const known = inForce[leg]?.inSync ?? [];
    const before = known.filter(({ replica }) => isPlaced({ leg, replica }));
    const lacks = before.some((member) => !now.inSync.some((entry) => entry.replica === member.replica));
    if (!of.includes(leg) || !lacks || (needsOf(present) > 1 && before.length < known.length)) return now;
    isNew = true;
    const joined = now.inSync.filter((entry) => !before.some((member) => member.replica === entry.replica));
    return { inSync: needsOf(present) > 1 ? before : [...before, ...joined] };
  });
  return isNew ? { ...present, legs } : null;
}

/**
 * A copied member joins; null when it is in the set with that incarnation already. `insteadOf`: it has taken over the place of
 * that one, which leaves in the same swap. Legs with parity have no place for both.
 */
export function planJoin(present: Leadership, member: MemberRef & InSyncMember, insteadOf?: string): Leadership | null {
  const inSync = present.legs[member.leg]?.inSync ?? [];
  if (inSync.some((entry) => entry.replica === member.replica && entry.incarnation === member.incarnation)) return null;
  const others = inSync.filter((entry) => entry.replica !== member.replica && entry.replica !== insteadOf);
  const joined = { inSync: [...others, { replica: member.replica, incarnation: member.incarnation }] };
  return { ...present, legs: present.legs.map((entry, leg) => (leg === member.leg ? joined : entry)) };
}

/** The holder's own signed stop. `clean` only when everything is equal and flushed. */
export function planHandOver(present: Leadership, clean: boolean): Leadership {
  return { ...present, controller: null, instance: null, clean };
}

/** The same, with the next epoch drawn for `to` already. What is not clean is for whoever comes, and takes it over. */
export function planGrant(present: Leadership, to: string): Leadership {
  return { ...present, epoch: present.epoch + 1, controller: to, instance: null, clean: true };
}

/**
 * The same for an instance that is known beforehand: the successor need not swap again before it serves. It promises
 * nothing about what is in flight or unequal - the marks on the members tell that - so that whoever grants may go on under
 * its own epoch until the members obey the new one.
 */
export function planDirectGrant(present: Leadership, to: Holder): Leadership {
  return { ...present, epoch: present.epoch + 1, controller: to.controller, instance: to.instance, clean: false };
}

/** The present epoch was drawn for `controller` by the one before, and nobody has begun to use it. */
export function isGranted(present: Leadership, controller: string): boolean {
  return present.controller === controller && present.instance === null && present.clean;
}

/** What the takeover of members made of a granted epoch, which is the holder's from then on; null: it is not to be had. */
export function planAccept(
  present: Leadership,
  at: { epoch: number; holder: Holder; taken: readonly TakenMember[] },
): Leadership | null {
  if (present.epoch !== at.epoch || !isGranted(present, at.holder.controller)) return null;
  const { next } = planTakeover(present, at.taken);
  return next === null ? null : { ...next, instance: at.holder.instance };
}

type PlacedLegs = readonly { readonly replicas: readonly { replica: string; leaving?: true | undefined }[] }[];

/** What is not in sync and should be, in the order of the volume's legs. */
export function outOfSync(present: Leadership, legs: PlacedLegs): MemberRef[] {
  return legs.flatMap(({ replicas }, leg) =>
    replicas
      .filter(({ leaving }) => leaving !== true)
      .filter(({ replica }) => !present.legs[leg]?.inSync.some((entry) => entry.replica === replica))
      .map(({ replica }) => ({ leg, replica })),
  );
}

/**
 * In-sync members that have a successor: they may leave once every replica that stays is in sync. Those of a leg with parity
 * leave by the swap that lets their successor in; here is what then remains.
 */
export function planRetire(present: Leadership, legs: PlacedLegs): MemberRef[] {
  return legs.flatMap(({ replicas }, leg) => {
    const isInSync = (replica: string): boolean =>
      present.legs[leg]?.inSync.some((entry) => entry.replica === replica) === true;
    const staying = replicas.filter(({ leaving }) => leaving !== true);
    const going = replicas.filter(({ replica, leaving }) => leaving === true && isInSync(replica));
    const refs = going.map(({ replica }) => ({ leg, replica }));
    return staying.length === 0 || !staying.every(({ replica }) => isInSync(replica)) ? [] : refs;
  });
}

/** After the takeover of all that there is to take over, with nothing to be changed: no swap is needed to serve. */
export function isTakenAsIs(present: Leadership, next: Leadership): boolean {
  return !present.clean && sameSets(present, next);
}

export function sameSets(a: Leadership, b: Leadership): boolean {
  return JSON.stringify(a.legs) === JSON.stringify(b.legs);
}
