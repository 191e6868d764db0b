// SPDX-License-Identifier: Apache-2.0
//
// Looks at every leadership object that the store takes: what must hold whoever wrote it.
//
// Rules:  - an epoch never goes back
//         - an epoch has one holder: its instance never changes but to nobody, or from nobody where it was drawn for one
//         - a leg always has a member

import { isGrantInstance } from '../model/grant.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership } from '../model/objects.js';
import type { RareEvents } from './rare-events.js';

export class LeadershipMonitor {
  readonly #last = new Map<string, Leadership>();
  readonly #placed = new Map<string, ReadonlySet<string>>();
  readonly #rareEvents: RareEvents;
  #takeovers = 0;
  #shrinks = 0;
  #violation: string | null = null;

  constructor(rareEvents: RareEvents) {
    this.#rareEvents = rareEvents;
  }

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
    if (key.startsWith(keys.volumes)) this.#sawVolume(key, text);
    if (!key.startsWith(keys.leaderships)) return;
    const next = codecs.leadership.decode(text, key);
    const last = this.#last.get(key);
    this.#last.set(key, next);
    if (next.legs.some((leg) => leg.inSync.length === 0)) this.#fail('a leg without a member', next);
    if (last === undefined) return;
    if (next.epoch < last.epoch) this.#fail(`the epoch goes back from ${last.epoch}`, next);
    if (next.epoch > last.epoch) this.#takeovers++;
    else if (next.instance !== null && next.instance !== last.instance) {
      const granted = last.instance === null && last.controller === next.controller;
      if (!granted) this.#fail('two holders of one epoch', next);
    }
    this.#count(last, next);
  }

  #sawVolume(key: string, text: string): void {
    const replicas = codecs.volume.decode(text, key).legs.flatMap((leg) => leg.replicas.map(({ replica }) => replica));
    const before = this.#placed.get(key);
    this.#placed.set(key, new Set(replicas));
    if (before !== undefined && replicas.some((replica) => !before.has(replica)))
      this.#rareEvents.reach('replica_moved');
  }

  #count(last: Leadership, next: Leadership): void {
    const sizeOf = (value: Leadership): number => value.legs.reduce((sum, leg) => sum + leg.inSync.length, 0);
    if (sizeOf(next) < sizeOf(last)) {
      this.#shrinks++;
      this.#rareEvents.reach('member_let_go');
      if (next.legs.some((leg) => leg.inSync.length === 1)) this.#rareEvents.reach('leg_on_one_member');
    }
    if (sizeOf(next) > sizeOf(last)) this.#rareEvents.reach('member_taken_back');
    const direct = next.epoch > last.epoch && isGrantInstance(next.instance, next.epoch);
    if (next.epoch > last.epoch && last.instance !== null && next.instance !== null && !direct)
      this.#rareEvents.reach('controller_taken_over');
    if (last.instance !== null && (next.instance === null || direct)) this.#rareEvents.reach('controller_handed_over');
    if (next.controller !== null && (next.instance === null || direct)) this.#rareEvents.reach('controller_granted');
  }

  #fail(what: string, at: Leadership): void {
    this.#violation ??= `leadership: ${what} (epoch ${at.epoch}, ${at.controller ?? 'nobody'})`;
  }
}
