// SPDX-License-Identifier: Apache-2.0
//
// The fake's methods for reservations: the keeper's side of a namespace, and those of its own host.

import type { HostReservationAction, HostReservationResult, ReservationState } from '../descriptions.js';
import { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { Refused } from './refusal.js';
import type { FakeReservation } from './reservation.js';
import { type HostCommand, reservationStatus as status } from './reservation-rules.js';
import type { EngineState } from './state.js';

const actions: readonly HostReservationAction[] = [
  'register',
  'unregister',
  'replace',
  'acquire',
  'preempt',
  'preempt_and_abort',
  'release',
  'clear',
  'report',
];
const againMs = 20;

function findShared(state: EngineState, fields: Fields): FakeReservation {
  const nqn = fields.string('nqn');
  const nsid = fields.natural('nsid', 1, 1024);
  const reservation = state.subsystem(nqn).namespaces.get(nsid)?.reservation;
  if (reservation === undefined) throw new Refused('notFound', `namespace ${nsid} of ${nqn} does not exist`);
  if (!reservation.shared) throw new Refused('invalid', `namespace ${nsid} of ${nqn} has no shared_reservations`);
  return reservation;
}

function readHosts(fields: Fields, name: string): string[] {
  const hosts = fields.strings(name, 1, 64);
  if (hosts.some((host) => !/^[0-9a-f-]{36}$/.test(host))) fields.refuse(name, 'must be UUIDs');
  return hosts;
}

function readState(fields: Fields): ReservationState {
  const nested = fields.object('reservation');
  const uuidOrNull = (name: string): string | null => (nested.isNull(name) ? null : nested.uuidOr(name, () => ''));
  const state = {
    version: nested.natural('version'),
    change: uuidOrNull('change'),
    generation: nested.natural('generation', 0, 0xffff_ffff),
    rtype: nested.natural('rtype', 0, 6),
    holder: uuidOrNull('holder'),
    registrants: nested.array('registrants', 0, 64).map((entry, index) => {
      const one = new Fields(entry, `params.reservation.registrants[${index}]`);
      const registrant = { host: one.uuidOr('host', () => ''), key: String(one.epoch('key')) };
      one.end();
      return registrant;
    }),
    notices: nested.array('notices', 0, 64).map((entry, index) => {
      const one = new Fields(entry, `params.reservation.notices[${index}]`);
      const notice = {
        version: one.natural('version'),
        kind: one.natural('kind', 1, 3),
        hosts: readHosts(one, 'hosts'),
      };
      one.end();
      return notice;
    }),
  };
  const one = state.rtype !== 0 && state.rtype < 5;
  const found = state.registrants.some((registrant) => registrant.host === state.holder);
  if (one && !found) nested.refuse('registrants', 'is held by nobody that is registered');
  nested.end();
  return state;
}

function readCommand(fields: Fields): HostCommand & { timeoutMs: number } {
  const action = fields.choice('action', actions);
  const keyIn = (name: string): string => (fields.has(name) ? String(fields.epoch(name)) : '0');
  return {
    action,
    key: keyIn('key'),
    other: keyIn(action === 'register' || action === 'replace' ? 'new_key' : 'preempt_key'),
    rtype: fields.naturalOr('rtype', 0, 0, 255),
    ignoreKey: fields.booleanOr('ignore_key', false),
    timeoutMs: fields.naturalOr('timeout_ms', 10_000, 1, 600_000),
  };
}

const mayHelp = ({ status: code }: HostReservationResult): boolean =>
  (code & 0x4000) === 0 && (((code >> 8) & 7) === 3 || code === status.interrupted);

async function runCommand(state: EngineState, fields: Fields): Promise<HostReservationResult> {
  const name = fields.string('name');
  const command = readCommand(fields);
  fields.end();
  const remote = state.remotes.get(state.bdev(name, 'nvme').name);
  if (remote === undefined) throw new Refused('notFound', `bdev ${name} is not of an NVMe-oF controller`);
  const { clock } = state.network;
  const endMs = clock.now() + command.timeoutMs;
  let last: HostReservationResult = { status: status.hostPathError, text: 'no path' };
  let end: (result: HostReservationResult) => void = () => {};
  const late = new Promise<HostReservationResult>((resolve) => {
    end = resolve;
  });
  const timer = clock.setTimer(command.timeoutMs, () => end(last));
  while (clock.now() < endMs) {
    last = await Promise.race([remote(command), late]);
    if (!mayHelp(last)) break;
    await clock.sleep(againMs);
  }
  timer.cancel();
  return last;
}

export const reservationMethods: Record<string, Handler> = {
  basalt_ns_set_reservation: (state, fields) => {
    const reservation = findShared(state, fields);
    const kept = readState(fields);
    fields.end();
    reservation.set(kept);
    return true;
  },
  basalt_ns_refuse_reservation: (state, fields) => {
    const reservation = findShared(state, fields);
    const change = fields.uuidOr('change', () => '');
    const retry = fields.choice('retry', ['later', 'elsewhere']);
    fields.end();
    reservation.refuse(change, retry);
    return true;
  },
  basalt_ns_get_reservation: (state, fields) => {
    const reservation = findShared(state, fields);
    fields.end();
    return reservation.describe();
  },
  basalt_nvme_reservation: runCommand,
};
