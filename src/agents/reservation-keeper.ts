// SPDX-License-Identifier: Apache-2.0
//
// Keeps the reservations that hosts have on one volume: what an engine works out goes into the store, what the store
// holds goes into this node's engine, on the controller that drives the volume and on those that stand by.
//
// Invariants:  - a change counts when it was swapped in together with the leadership's revision: whoever lost the right
//                to drive the volume changes nothing, and whoever got it has all that was changed before
//              - whoever got it reads the object before it serves
//              - an unknown outcome is settled by reading, or by the same swap, before anything else is put there
//              - while the store is away a command waits, and then may be tried again; I/O goes on as it may

import type { Stored } from '../model/cluster-state.js';
import type { Leadership } from '../model/objects.js';
import {
  noReservation,
  type ReservationObject,
  type ReservationState,
  reservationAfter,
  reservationState,
} from '../model/reservations.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import type { Versioned } from './leadership-register.js';
import type { ReservationPort } from './reservation-port.js';
import { Backoff, whenAborted } from './signal.js';

/** What a controller knows of its own right to drive the volume. */
export interface Right {
  /** Of the leadership that gives it; null: there is none. */
  readonly rightRevision: number | null;
  /** The same, after asking the store. */
  confirmRight(signal: AbortSignal): Promise<number | null>;
}

/** What an engine asks: event nvmf_reservation_change. */
export interface ReservationChange {
  readonly nqn: string;
  readonly nsid: number;
  readonly host: string;
  readonly next: ReservationState;
}

export interface ReservationKeeperOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly volumeId: string;
  readonly right: () => Right;
  /** Has the engine take `current` into force; resolves when it is. */
  readonly apply: () => Promise<void>;
  /** The engine gives up a little later. */
  readonly answerMs: number;
}

export class ReservationKeeper {
  readonly #options: ReservationKeeperOptions;
  readonly #port: ReservationPort;
  readonly #log: RateLimitedLog;
  /** What this process read or put there last; the watch may be behind it, or before it. */
  #own: { revision: number; state: ReservationState } | null = null;
  #ending: AbortController | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(options: ReservationKeeperOptions) {
    this.#options = options;
    this.#port = options.link.reservations(options.volumeId);
    this.#log = new RateLimitedLog(options.context.log, options.context.clock);
  }

  get current(): ReservationState {
    return this.#present.state;
  }

  /** Revision null: the object does not exist. */
  get #present(): { revision: number | null; state: ReservationState } {
    const stored: Stored<ReservationObject> | null = this.#options.link.state.stored(
      'reservations',
      this.#options.volumeId,
    );
    const own = this.#own;
    if (own !== null && own.revision >= (stored?.revision ?? 0)) return own;
    if (stored === null) return { revision: null, state: noReservation };
    return { revision: stored.revision, state: reservationState(stored.value) };
  }

  /**
   * Before the volume is served under a new epoch: nobody who held an earlier one changes anything any more, so what is
   * read now stays. `granted`: the leadership as the watch showed it, with all that was changed before it.
   */
  async lead(granted: Versioned<Leadership> | null, signal: AbortSignal): Promise<void> {
    const { link, volumeId, context } = this.#options;
    const seen = link.state.stored('leaderships', volumeId)?.revision ?? 0;
    if (granted !== null && seen >= granted.revision) return;
    const backoff = new Backoff({ clock: context.clock, minMs: 20, maxMs: 1_000 });
    for (;;) {
      signal.throwIfAborted();
      try {
        await this.#read(signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#log.warn('read', { volume: volumeId, error: reason(error) }, 'reservations cannot be read; trying on');
      }
      await backoff.wait(signal);
    }
  }

  /** A host's command waits in the engine. A new one means that the one before it was given up there. */
  asked(change: ReservationChange): void {
    this.#ending?.abort(new Error('the engine asks for something else'));
    const ending = new AbortController();
    this.#ending = ending;
    const before = this.#running;
    this.#running = (async () => {
      await before;
      await this.#answer(change, ending);
    })();
  }

  async stop(): Promise<void> {
    this.#ending?.abort(new Error('the volume is served no more'));
    await this.#running;
  }

  async #answer(change: ReservationChange, ending: AbortController): Promise<void> {
    const { context, answerMs } = this.#options;
    const timer = context.clock.setTimer(answerMs, () => ending.abort(new Error(`not done within ${answerMs} ms`)));
    try {
      const outcome = await this.#make(change.next, ending.signal);
      if (outcome === 'no right') await this.#refuse(change, 'elsewhere');
      else await this.#options.apply();
    } catch (error) {
      this.#log.warn('change', { host: change.host, error: reason(error) }, 'a reservation was not changed');
      await this.#refuse(change, 'later');
    } finally {
      timer.cancel();
    }
  }

  /** `known`: the store holds it, or something else that the engine has not seen. */
  async #make(next: ReservationState, signal: AbortSignal): Promise<'known' | 'no right'> {
    const { right, volumeId, context } = this.#options;
    const backoff = new Backoff({ clock: context.clock, minMs: 20, maxMs: 1_000 });
    for (;;) {
      signal.throwIfAborted();
      const leadershipRevision = right().rightRevision;
      if (leadershipRevision === null) return 'no right';
      const { revision, state } = this.#present;
      if (state.change === next.change || next.version !== state.version + 1) return 'known';
      const swap = { revision, leadershipRevision, next: reservationAfter(volumeId, state, next) };
      try {
        const swapped = await this.#port.swap(swap, signal);
        if (swapped !== null) {
          this.#learn(swapped);
          return 'known';
        }
        // The object, or only the leadership; or an earlier try that had no answer was carried out.
        await this.#read(signal);
        if (this.#present.state.change !== next.change) await within(right().confirmRight(signal), signal);
      } catch (error) {
        signal.throwIfAborted();
        // Whatever became of it: the next try expects the same revisions, so that only one of them is carried out.
        this.#log.warn('swap', { volume: volumeId, error: reason(error) }, 'reservations cannot be put; trying on');
        await backoff.wait(signal);
      }
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    this.#learn(await this.#port.read(signal));
  }

  #learn(found: Versioned<ReservationObject> | null): void {
    if (found === null || found.revision < (this.#own?.revision ?? 0)) return;
    this.#own = { revision: found.revision, state: reservationState(found.value) };
  }

  async #refuse(change: ReservationChange, retry: 'later' | 'elsewhere'): Promise<void> {
    const { nqn, nsid, next } = change;
    if (next.change === null) return;
    await this.#options.context.engine
      .rpc('basalt_ns_refuse_reservation', { nqn, nsid, change: next.change, retry })
      .catch((error) => this.#log.warn('refuse', { error: reason(error) }, 'engine did not take an answer'));
  }
}

/** What waits for others may go on; nobody waits for it any more. */
async function within<T>(running: Promise<T>, signal: AbortSignal): Promise<T> {
  running.catch(() => {});
  await Promise.race([running, whenAborted(signal)]);
  signal.throwIfAborted();
  return running;
}
