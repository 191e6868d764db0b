// SPDX-License-Identifier: Apache-2.0
//
// Wrong tokens: each is logged with the address that it came from, and an address that shows too many is not listened to for a
// while, so that nobody has many tries, or learns from how long answers take.
//
// Invariants:  - who shows a token that was right from the same address before is judged by it alone: a neighbour's
//                mistakes lock nobody out
//              - a listener on loopback holds nobody off: there all users of the machine have one address
//              - what strangers make it remember is bounded
//              - no part of a token is logged but its name

import { createHash } from 'node:crypto';
import type { Clock } from '../env/clock.js';
import { RateLimitedLog } from '../env/rate-limited-log.js';
import { BasaltError, isBasaltError } from '../model/errors.js';
import { parseToken } from '../model/tokens.js';
import type { Caller } from './tokens.js';

/** Within `windowMs`, `failuresMax` wrong ones are let pass; then the address is held off for `heldMs`. */
export const tokenGuardLimits = {
  failuresMax: 10,
  windowMs: 60_000,
  heldMs: 60_000,
  addressesMax: 4096,
  knownMax: 4096,
};

export interface Asking {
  readonly address: string;
  /** The header. */
  readonly authorization: string | undefined;
  /** By a listener that they reach. */
  readonly strangers: boolean;
}

interface Failures {
  count: number;
  readonly sinceMs: number;
  heldUntilMs: number | null;
}

export class TokenGuard {
  readonly #clock: Clock;
  readonly #log: RateLimitedLog;
  readonly #failures = new Map<string, Failures>();
  /** Addresses with the digests of what was right from there; the oldest first. */
  readonly #known = new Set<string>();

  constructor(clock: Clock, log: { warn(fields: object, message: string): void }) {
    this.#clock = clock;
    this.#log = new RateLimitedLog(log, clock);
  }

  /** `judge`'s answer. @throws TOO_MANY_ATTEMPTS before it is asked */
  async ask(from: Asking, judge: () => Promise<Caller>): Promise<Caller> {
    const { authorization } = from;
    if (authorization === undefined) return judge();
    const origin = originOf(from.address);
    const known = `${origin} ${createHash('sha256').update(authorization).digest('base64')}`;
    if (from.strangers && !this.#known.has(known)) this.#refuseHeld(origin);
    try {
      const caller = await judge();
      remember(this.#known, known, tokenGuardLimits.knownMax);
      return caller;
    } catch (error) {
      if (isBasaltError(error) && error.code === 'UNAUTHENTICATED') {
        this.#known.delete(known);
        this.#failed(origin, from);
      }
      throw error;
    }
  }

  #refuseHeld(origin: string): void {
    const failures = this.#failures.get(origin);
    const now = this.#clock.now();
    if (failures?.heldUntilMs == null || now >= failures.heldUntilMs) return;
    const retryAfterS = Math.ceil((failures.heldUntilMs - now) / 1000);
    throw new BasaltError('TOO_MANY_ATTEMPTS', { address: origin, retryAfterS });
  }

  #failed(origin: string, { address, authorization = '', strangers }: Asking): void {
    const now = this.#clock.now();
    const before = this.#failures.get(origin);
    const over = before === undefined || now >= (before.heldUntilMs ?? before.sinceMs + tokenGuardLimits.windowMs);
    const failures = over ? { count: 0, sinceMs: now, heldUntilMs: null } : before;
    failures.count++;
    this.#failures.delete(origin);
    this.#failures.set(origin, failures);
    dropOldest(this.#failures, tokenGuardLimits.addressesMax);
    const token = parseToken(/^Bearer ([^\s]+)$/i.exec(authorization)?.[1] ?? '')?.name ?? null;
    const fields = { address, token, failures: failures.count };
    this.#log.warn(`token ${origin}`, fields, 'a token was refused: it is unknown, revoked or expired');
    if (!strangers || failures.heldUntilMs !== null || failures.count < tokenGuardLimits.failuresMax) return;
    failures.heldUntilMs = now + tokenGuardLimits.heldMs;
    const heldS = tokenGuardLimits.heldMs / 1000;
    this.#log.warn(`held ${origin}`, { address: origin, heldS }, 'too many wrong tokens: the address is held off');
  }
}

function remember(set: Set<string>, entry: string, sizeMax: number): void {
  set.delete(entry);
  set.add(entry);
  dropOldest(set, sizeMax);
}

function dropOldest(entries: Map<string, unknown> | Set<string>, sizeMax: number): void {
  for (const oldest of entries.keys()) {
    if (entries.size <= sizeMax) return;
    entries.delete(oldest);
  }
}

/** Whom an address stands for: of IPv6, a whole /64 is one machine's to choose from. */
export function originOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1] ?? address;
  if (!address.includes(':')) return address;
  const [plain = ''] = address.split('%', 1);
  const [head = '', tail] = plain.split('::', 2);
  const groups = head === '' ? [] : head.split(':');
  // What stands behind `::` does not reach into the first half unless there is much of it.
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const whole =
    tail === undefined ? groups : [...groups, ...Array<string>(8 - groups.length - after.length).fill('0'), ...after];
  return `${whole
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}
