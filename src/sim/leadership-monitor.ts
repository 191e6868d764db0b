// SPDX-License-Identifier: Apache-2.0
//
// Looks at every leadership object that the store takes: what must hold whoever wrote it.
//
// Rules:  - an epoch never goes back
//         - an epoch has one holder: its instance never changes but to nobody
//         - a leg always has a member

import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';

export class LeadershipMonitor {
  readonly #last = new Map<string, Leadership>();
  #takeovers = 0;
  #shrinks = 0;
  #violation: string | null = null;

  get takeovers(): number {
    return this.#takeovers;
  }

  get shrinks(): number {
    return this.#shrinks;
  }

  get violation(): string | null {
    return this.#violation;
  }

  saw(key: string, text: string): void {
    if (!key.startsWith(keys.leaderships)) return;
    const next = codecs.leadership.decode(text, key);
    const last = this.#last.get(key);
    this.#last.set(key, next);
    if (next.legs.some((leg) => leg.inSync.length === 0)) this.#fail('a leg without a member', next);
    if (last === undefined) return;
    if (next.epoch < last.epoch) this.#fail(`the epoch goes back from ${last.epoch}`, next);
    if (next.epoch > last.epoch) this.#takeovers++;
    else if (next.instance !== null && next.instance !== last.instance) this.#fail('two holders of one epoch', next);
    const sizeOf = (value: Leadership): number => value.legs.reduce((sum, leg) => sum + leg.inSync.length, 0);
    if (sizeOf(next) < sizeOf(last)) this.#shrinks++;
  }

  #fail(what: string, at: Leadership): void {
    this.#violation ??= `${what} (epoch ${at.epoch}, ${at.controller ?? 'nobody'})`;
  }
}
