// SPDX-License-Identifier: Apache-2.0
//
// Hosts' reservations on a namespace of the fake: the protocol with their keeper, as native/ns/shared_reservation.h has
// it. Without a keeper they live here.

import type { HostReservationResult, ReservationNotice, ReservationState } from '../descriptions.js';
import type { EngineEvent } from '../methods.js';
import { type FakeIo, isIoStatus } from './bdev.js';
import type { FakeNetwork } from './network.js';
import { anaInaccessible, reservationConflict } from './refusal.js';
import {
  allows,
  type HostCommand,
  holdsReservation,
  judge,
  keyOf,
  noticesOf,
  reservationStatus as status,
} from './reservation-rules.js';

export interface FakeReservationOptions {
  readonly nqn: string;
  readonly nsid: number;
  readonly shared: boolean;
  /** Whether hosts may use reservations at all. */
  readonly offered: boolean;
  readonly timeoutMs: number;
  readonly network: FakeNetwork;
  readonly emit: (event: EngineEvent) => void;
  /** Reads a block: goes through only where the volume is served. */
  readonly read: () => Promise<unknown>;
}

type Answer = 'made' | 'other' | 'later' | 'elsewhere' | 'late';

const nothing: ReservationState = {
  version: 0,
  change: null,
  generation: 0,
  rtype: 0,
  holder: null,
  registrants: [],
  notices: [],
};

export class FakeReservation {
  readonly #options: FakeReservationOptions;
  #state: ReservationState = nothing;
  #known: boolean;
  #asked: { change: string; answer: (answer: Answer) => void } | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #running = new Set<{ host: string; access: 'read' | 'write'; left: boolean }>();
  #ended: (() => void)[] = [];
  /** What hosts were told, oldest first. */
  readonly told: ReservationNotice[] = [];

  constructor(options: FakeReservationOptions) {
    this.#options = options;
    this.#known = !options.shared;
  }

  get shared(): boolean {
    return this.#options.shared;
  }

  describe(): object {
    const { notices, ...state } = this.#state;
    return { ...state, known: this.#known, asked: this.#asked?.change ?? null };
  }

  /** The namespace's device as that host may use it. */
  guard(io: FakeIo, host: string): FakeIo {
    const pass = async <T>(access: 'read' | 'write', run: () => Promise<T>): Promise<T> => {
      if (!this.#known) throw anaInaccessible();
      if (!allows(this.#state, host, access)) throw reservationConflict();
      const entry = { host, access, left: false };
      this.#running.add(entry);
      try {
        return await run();
      } finally {
        this.#running.delete(entry);
        for (const go of this.#ended.splice(0)) go();
      }
    };
    return {
      read: (offset, count) => pass('read', () => io.read(offset, count)),
      write: (offset, data) => pass('write', () => io.write(offset, data)),
      flush: () => pass('write', () => io.flush()),
    };
  }

  /** Commands run one after another. */
  run(host: string, command: HostCommand): Promise<HostReservationResult> {
    if (!this.#options.offered) return Promise.resolve(result(status.invalidOpcode));
    const endMs = this.#options.network.clock.now() + this.#options.timeoutMs;
    const next = this.#turn.then(() =>
      command.action === 'report' ? this.#report() : this.#change(host, command, endMs).then(result),
    );
    this.#turn = next.catch(() => {});
    return next;
  }

  set(kept: ReservationState): void {
    const before = this.#state;
    const wasKnown = this.#known;
    this.#state = kept;
    this.#known = true;
    for (const entry of this.#running)
      if (keyOf(before, entry.host) !== null && keyOf(kept, entry.host) === null) entry.left = true;
    if (wasKnown)
      this.told.push(...kept.notices.filter(({ version }) => version > before.version && version <= kept.version));
    const asked = this.#asked;
    if (asked === null) return;
    if (asked.change === kept.change) asked.answer('made');
    else if (kept.version !== before.version || !wasKnown) asked.answer('other');
  }

  refuse(change: string, retry: 'later' | 'elsewhere'): void {
    if (this.#asked?.change === change) this.#asked.answer(retry);
  }

  async #report(): Promise<HostReservationResult> {
    const confirmed = await this.#confirm();
    if (confirmed !== status.success) return result(confirmed);
    const { generation, rtype, registrants } = this.#state;
    const holds = (host: string): boolean => holdsReservation(this.#state, host);
    const report = {
      generation,
      rtype,
      persistent: this.#options.shared,
      registrants: registrants.map((registrant) => ({ ...registrant, holds: holds(registrant.host) })),
    };
    return { ...result(status.success), report };
  }

  async #change(host: string, command: HostCommand, endMs: number): Promise<number> {
    const { clock, random } = this.#options.network;
    while (clock.now() < endMs) {
      if (!this.#known) return status.anaInaccessible;
      const before = this.#state;
      const judged = judge(before, host, command);
      if (typeof judged === 'number' || judged === before) {
        const confirmed = await this.#confirm();
        if (confirmed !== status.success) return confirmed;
        if (typeof judged === 'number') return judged;
        break;
      }
      const version = before.version + 1;
      const notices = noticesOf(command, { host, version, before, after: judged });
      const next = { ...judged, version, change: random.uuid(), notices };
      if (!this.#options.shared) {
        this.set(next);
        break;
      }
      const answer = await this.#ask(host, next, endMs);
      if (answer === 'made') break;
      if (answer === 'elsewhere') return status.anaInaccessible;
      if (answer !== 'other') return status.interrupted;
    }
    return (await this.#outlasted(endMs)) ? status.success : status.interrupted;
  }

  #ask(host: string, next: ReservationState, endMs: number): Promise<Answer> {
    const { nqn, nsid, emit, network } = this.#options;
    return new Promise((resolve) => {
      const answer = (with_: Answer): void => {
        timer.cancel();
        this.#asked = null;
        resolve(with_);
      };
      const timer = network.clock.setTimer(Math.max(0, endMs - network.clock.now()), () => answer('late'));
      this.#asked = { change: next.change ?? '', answer };
      emit({ method: 'nvmf_reservation_change', params: { nqn, nsid, host, next } });
    });
  }

  async #confirm(): Promise<number> {
    if (!this.#options.shared) return status.success;
    if (!this.#known) return status.anaInaccessible;
    try {
      await this.#options.read();
      return status.success;
    } catch (error) {
      if (isIoStatus(error)) return error.status;
      throw error;
    }
  }

  async #outlasted(endMs: number): Promise<boolean> {
    const { clock } = this.#options.network;
    const isLeft = (): boolean =>
      [...this.#running].some((entry) => entry.left || !allows(this.#state, entry.host, entry.access));
    let late = false;
    const timer = clock.setTimer(Math.max(0, endMs - clock.now()), () => {
      late = true;
      for (const go of this.#ended.splice(0)) go();
    });
    while (isLeft() && !late) await new Promise<void>((go) => this.#ended.push(go));
    timer.cancel();
    return !isLeft();
  }
}

function result(code: number): HostReservationResult {
  return { status: code, text: `status 0x${code.toString(16)}` };
}
