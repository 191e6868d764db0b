// SPDX-License-Identifier: Apache-2.0

import { systemClock } from '../../src/env/clock.js';

/**
 * Asks until what it sees `holds`, with pauses of a twentieth of the time since the first question, 20 to 100 ms: the
 * answer is hardly late, and waiting does not take the machine from what is waited for.
 * @throws {Error} after `timeoutMs`, with what was seen last; and what `ask` throws
 */
export async function pollUntil<T, Found extends T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T>,
  holds: (seen: T) => seen is Found,
  shown?: (seen: T) => string,
): Promise<Found>;
export async function pollUntil<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T>,
  holds: (seen: T) => boolean,
  shown?: (seen: T) => string,
): Promise<T>;
export async function pollUntil<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T>,
  holds: (seen: T) => boolean,
  shown: (seen: T) => string = (seen) => JSON.stringify(seen),
): Promise<T> {
  const startMs = systemClock.now();
  for (;;) {
    const seen = await ask();
    if (holds(seen)) return seen;
    const waitedMs = systemClock.now() - startMs;
    if (waitedMs > timeoutMs) throw new Error(`waited ${timeoutMs / 1000} s for ${what}; last seen: ${shown(seen)}`);
    await systemClock.sleep(Math.min(100, Math.max(20, waitedMs / 20)));
  }
}
