// SPDX-License-Identifier: Apache-2.0
//
// FakeNetwork: what joins fake engines: their addresses, who can reach whom, and the disks that outlive them. Controls
// for tests: partition, heal, and per engine kill, pause, resume.
//
// Silence and refusal differ, as on a real network: a killed engine's address refuses at once; a partitioned or paused
// one answers nothing, and is noticed by time-outs and keep-alives only.

import { type Clock, systemClock } from '../../env/clock.js';
import { type Random, systemRandom } from '../../env/random.js';
import { FakeDisks } from './disk.js';
import type { FakeEngine } from './fake-engine.js';

export interface FakeNetworkOptions {
  readonly clock?: Clock;
  readonly random?: Random;
}

export type Reach = 'connected' | 'silent' | 'refused';

export class FakeNetwork {
  readonly clock: Clock;
  readonly random: Random;
  readonly disks = new FakeDisks();
  /** Legs, by identity, whose members say that nothing was written since they were found equal and flushed. */
  readonly settledLegs = new Set<string>();
  readonly #engines = new Set<FakeEngine>();
  readonly #cuts = new Set<string>();
  readonly #watchers = new Set<() => void>();
  #nextPort = 42000;

  constructor(options: FakeNetworkOptions = {}) {
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
  }

  get engines(): readonly FakeEngine[] {
    return [...this.#engines];
  }

  join(engine: FakeEngine): void {
    this.#engines.add(engine);
  }

  leave(engine: FakeEngine): void {
    this.#engines.delete(engine);
    this.changed();
  }

  freePort(): string {
    return String(this.#nextPort++);
  }

  /** Nothing passes between the two, in either direction, until heal(). */
  partition(a: FakeEngine, b: FakeEngine): void {
    this.#cuts.add(cutKey(a, b));
    this.changed();
  }

  heal(a: FakeEngine, b: FakeEngine): void {
    this.#cuts.delete(cutKey(a, b));
    this.changed();
  }

  healAll(): void {
    this.#cuts.clear();
    this.changed();
  }

  at(traddr: string, trsvcid: string): FakeEngine | null {
    for (const engine of this.#engines) if (engine.listensAt(traddr, trsvcid)) return engine;
    return null;
  }

  reach(from: FakeEngine, to: FakeEngine | null): Reach {
    if (to === null || !this.#engines.has(to) || to.ended) return 'refused';
    if (from !== to && this.#cuts.has(cutKey(from, to))) return 'silent';
    return to.paused ? 'silent' : 'connected';
  }

  /** Calls back whenever reachability may have changed. */
  watch(callback: () => void): () => void {
    this.#watchers.add(callback);
    return () => void this.#watchers.delete(callback);
  }

  changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

function cutKey(a: FakeEngine, b: FakeEngine): string {
  return [a.name, b.name].sort().join('|');
}
