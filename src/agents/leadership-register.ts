// SPDX-License-Identifier: Apache-2.0
//
// The leadership object of one volume as its would-be holder sees it: the last value that was known, and swaps whose
// outcome is always known in the end.
//
// Invariants:  - a swap that was answered with "unknown" is settled by reading before anything else is decided
//              - one reading or swap at a time, in the order in which they were asked for
//              - the store being away makes callers wait, never fail (until their signal aborts)

import type { Clock } from '../env/clock.js';
import { BasaltError, isBasaltError } from '../model/errors.js';
import type { Leadership } from '../model/objects.js';
import { type RateLimitedLog, reason } from './context.js';
import { Backoff } from './signal.js';

export interface Versioned<T> {
  readonly value: T;
  readonly revision: number;
}

export interface LeadershipPort {
  /** Null: the volume does not exist (any more). */
  read(signal: AbortSignal): Promise<Versioned<Leadership> | null>;
  /**
   * Null: the key is no longer at `present.revision`, and nothing was changed.
   * @throws STORE_UNKNOWN_OUTCOME, STORE_UNREACHABLE
   */
  swap(present: Versioned<Leadership>, next: Leadership, signal: AbortSignal): Promise<Versioned<Leadership> | null>;
}

export interface RegisterOptions {
  readonly port: LeadershipPort;
  readonly clock: Clock;
  readonly log: RateLimitedLog;
  readonly volumeId: string;
}

export class LeadershipRegister {
  #known: Versioned<Leadership> | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #options: RegisterOptions;

  constructor(options: RegisterOptions) {
    this.#options = options;
  }

  /** What the store was last known to hold. */
  get known(): Leadership {
    if (this.#known === null) throw new BasaltError('INTERNAL', { detail: 'leadership used before it was read' });
    return this.#known.value;
  }

  /** The same, with the revision to expect of it. */
  get versioned(): Versioned<Leadership> {
    if (this.#known === null) throw new BasaltError('INTERNAL', { detail: 'leadership used before it was read' });
    return this.#known;
  }

  get isKnown(): boolean {
    return this.#known !== null;
  }

  /** As the watch showed it: a swap finds out whether it is still so. */
  assume(found: Versioned<Leadership>): void {
    this.#known = found;
  }

  /** @throws NOT_FOUND when the volume has no leadership */
  refresh(signal: AbortSignal): Promise<Leadership> {
    return this.#inTurn(() => this.#refresh(signal));
  }

  async #refresh(signal: AbortSignal): Promise<Leadership> {
    const found = await this.#persist('read', signal, () => this.#options.port.read(signal));
    if (found === null) throw new BasaltError('NOT_FOUND', { kind: 'volume', name: this.#options.volumeId });
    this.#known = found;
    return found.value;
  }

  /**
   * Swaps in what `plan` makes of the present object; null from it means that nothing is to be done.
   * True: the store holds it. False: someone else changed the object; `known` is theirs now.
   */
  swap(plan: (present: Leadership) => Leadership | null, signal: AbortSignal): Promise<boolean> {
    return this.#inTurn(() => this.#swap(plan, signal));
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const next = this.#turn.then(run, run);
    this.#turn = next.catch(() => {});
    return next;
  }

  async #swap(plan: (present: Leadership) => Leadership | null, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      const present = this.#known;
      if (present === null) throw new BasaltError('INTERNAL', { detail: 'leadership swapped before it was read' });
      const next = plan(present.value);
      if (next === null) return true;
      const outcome = await this.#swapOnce(present, next, signal);
      if (outcome !== 'again') return outcome === 'done';
    }
  }

  async #swapOnce(
    present: Versioned<Leadership>,
    next: Leadership,
    signal: AbortSignal,
  ): Promise<'done' | 'lost' | 'again'> {
    const { port } = this.#options;
    let unsettled = false;
    const swapped = await this.#persist('swap', signal, async () => {
      if (unsettled) return this.#settle(present, next, signal);
      try {
        return await port.swap(present, next, signal);
      } catch (error) {
        // Whatever it was that failed: only reading tells whether the swap happened.
        unsettled = true;
        throw error;
      }
    });
    if (swapped === 'again') return 'again';
    if (swapped !== null) {
      this.#known = swapped;
      return 'done';
    }
    // A first try whose outcome was unknown may have happened after all, and made the second one fail.
    return sameObject(await this.#refresh(signal), next) ? 'done' : 'lost';
  }

  async #settle(
    present: Versioned<Leadership>,
    next: Leadership,
    signal: AbortSignal,
  ): Promise<Versioned<Leadership> | null | 'again'> {
    const found = await this.#options.port.read(signal);
    if (found === null) return null;
    if (String(found.revision) === String(present.revision)) return 'again';
    // Only the holder writes under its instance, so equality means that this swap happened.
    return sameObject(found.value, next) ? found : null;
  }

  async #persist<T>(operation: string, signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
    const backoff = new Backoff({ clock: this.#options.clock, minMs: 20, maxMs: 1000 });
    for (;;) {
      signal.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        if (!passes(error)) throw error;
        this.#options.log.warn(
          `leadership-${operation}`,
          { volume: this.#options.volumeId, error: reason(error) },
          'store cannot be asked; trying on',
        );
      }
      await backoff.wait(signal);
    }
  }
}

/** Failures that say nothing about the volume: the store is away, late or full. */
function passes(error: unknown): boolean {
  const codes = [
    'STORE_UNREACHABLE',
    'STORE_UNKNOWN_OUTCOME',
    'DEADLINE_EXCEEDED',
    'STORE_NO_SPACE',
    'STORE_REJECTED',
  ] as const;
  return codes.some((code) => isBasaltError(error, code));
}

function sameObject(a: Leadership, b: Leadership): boolean {
  return canonical(a) === canonical(b);
}

/** Member order and field order do not matter to equality. */
function canonical(value: Leadership): string {
  const legs = value.legs.map((leg) => leg.inSync.map((entry) => `${entry.replica}@${entry.incarnation ?? ''}`).sort());
  return JSON.stringify([
    value.volumeId,
    value.epoch,
    value.controller,
    value.instance,
    value.clean,
    value.leaseMs,
    value.rebuilt ?? null,
    value.size === undefined ? null : [value.size.servedBytes, value.size.wantedBytes, value.size.growing],
    legs,
  ]);
}
