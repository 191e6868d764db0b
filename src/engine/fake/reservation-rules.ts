// SPDX-License-Identifier: Apache-2.0
//
// The fake's rules of NVMe reservations, as pure functions.

import type { HostReservationAction, ReservationNotice, ReservationState } from '../descriptions.js';

/** NVMe statuses, without the phase tag. */
export const reservationStatus = Object.freeze({
  success: 0,
  invalidField: 0x4002,
  conflict: 0x4083,
  interrupted: 0x021,
  anaInaccessible: 0x302,
  hostPathError: 0x370,
  invalidOpcode: 0x4001,
});

export interface HostCommand {
  readonly action: HostReservationAction;
  readonly key: string;
  /** The new key, or the one to preempt. */
  readonly other: string;
  readonly rtype: number;
  readonly ignoreKey: boolean;
}

type Rights = Pick<ReservationState, 'rtype' | 'holder' | 'registrants' | 'generation'>;

const registrantsMax = 64;
const belongsToAll = (rtype: number): boolean => rtype >= 5;

export function keyOf(state: Rights, host: string): string | null {
  return state.registrants.find((registrant) => registrant.host === host)?.key ?? null;
}

export function holdsReservation(state: Rights, host: string): boolean {
  if (state.rtype === 0) return false;
  return belongsToAll(state.rtype) ? keyOf(state, host) !== null : state.holder === host;
}

export function allows(state: Rights, host: string, access: 'read' | 'write'): boolean {
  if (state.rtype === 0 || holdsReservation(state, host)) return true;
  if (access === 'read' && [1, 3, 5].includes(state.rtype)) return true;
  return state.rtype >= 3 && keyOf(state, host) !== null;
}

function without(state: Rights, hosts: readonly string[]): Rights {
  const registrants = state.registrants.filter((registrant) => !hosts.includes(registrant.host));
  const held = belongsToAll(state.rtype) ? registrants.length > 0 : !hosts.includes(state.holder ?? '');
  return { ...state, registrants, ...(held ? {} : { rtype: 0, holder: null }) };
}

const counted = (state: Rights): Rights => ({ ...state, generation: state.generation + 1 });
const taken = (state: Rights, host: string, rtype: number): Rights => ({
  ...state,
  rtype,
  holder: belongsToAll(rtype) ? null : host,
});

/** What becomes of the state, or the status of a command that changes nothing. */
export function judge(state: Rights, host: string, command: HostCommand): Rights | number {
  const own = keyOf(state, host);
  const { action, key, rtype, ignoreKey } = command;
  if (action === 'register' || action === 'replace' || action === 'unregister')
    return judgeRegister(state, host, command);
  if (ignoreKey) return reservationStatus.invalidField;
  if (action === 'acquire' || action === 'preempt' || action === 'preempt_and_abort') {
    if (rtype < 1 || rtype > 6) return reservationStatus.invalidField;
    if (own === null || own !== key) return reservationStatus.conflict;
    if (action !== 'acquire') return judgePreempt(state, host, command);
    if (state.rtype === 0) return taken(state, host, rtype);
    return holdsReservation(state, host) && state.rtype === rtype ? state : reservationStatus.conflict;
  }
  if (own === null || own !== key) return reservationStatus.conflict;
  if (action === 'clear') return counted({ ...state, registrants: [], rtype: 0, holder: null });
  if (!holdsReservation(state, host)) return state;
  if (state.rtype !== rtype) return reservationStatus.invalidField;
  return { ...state, rtype: 0, holder: null };
}

function judgeRegister(state: Rights, host: string, command: HostCommand): Rights | number {
  const { action, key, other, ignoreKey } = command;
  const own = keyOf(state, host);
  const matches = own !== null && (ignoreKey || own === key);
  const added = { ...state, registrants: [...state.registrants, { host, key: other }] };
  const full = state.registrants.length >= registrantsMax;
  if (action === 'unregister') return matches ? counted(without(state, [host])) : reservationStatus.conflict;
  if (other === '0') return reservationStatus.invalidField;
  if (action === 'register') {
    if (own !== null) return own === other ? state : reservationStatus.conflict;
    return full ? reservationStatus.invalidField : counted(added);
  }
  if (own === null) {
    if (!ignoreKey) return reservationStatus.conflict;
    return full ? reservationStatus.invalidField : counted(added);
  }
  if (!matches) return reservationStatus.conflict;
  const registrants = state.registrants.map((entry) => (entry.host === host ? { host, key: other } : entry));
  return counted({ ...state, registrants });
}

function judgePreempt(state: Rights, host: string, { other, rtype }: HostCommand): Rights | number {
  const all = belongsToAll(state.rtype);
  if (other === '0' && !all) return reservationStatus.invalidField;
  const hit = state.registrants.filter((registrant) => other === '0' || registrant.key === other);
  if (hit.length === 0) return reservationStatus.conflict;
  const takes = other === '0' || (!all && hit.some((registrant) => state.holder === registrant.host));
  const gone = hit.map((registrant) => registrant.host).filter((each) => each !== host);
  const registrants = state.registrants.filter((registrant) => !gone.includes(registrant.host));
  const left = { ...state, registrants };
  return counted(takes ? taken(left, host, rtype) : left);
}

export function noticesOf(
  command: HostCommand,
  at: { host: string; version: number; before: Rights; after: Rights },
): ReservationNotice[] {
  const { host, version, before, after } = at;
  const others = (state: Rights): string[] =>
    state.registrants.map((registrant) => registrant.host).filter((each) => each !== host);
  const notices: ReservationNotice[] = [];
  const add = (kind: number, hosts: string[]): void => {
    if (hosts.length > 0) notices.push({ version, kind, hosts });
  };
  if (command.action === 'clear') {
    add(3, others(before));
  } else if (command.action === 'preempt' || command.action === 'preempt_and_abort') {
    add(
      1,
      others(before).filter((each) => keyOf(after, each) === null),
    );
    if (before.rtype !== 0 && before.rtype !== after.rtype) add(2, others(after));
  } else if (before.rtype >= 3 && after.rtype === 0) {
    add(2, others(after));
  }
  return notices;
}
