// SPDX-License-Identifier: Apache-2.0
//
// Somebody who makes and deletes volumes and pools while everything else goes wrong, and asks again until there is an answer.
//
// Rules:  - a volume that was made is there once, and becomes redundant
//         - of a volume that was deleted nothing is left
//         - a pool that was made is there, and has a map; of one that was deleted nothing is left
//         - a request that was refused has changed nothing

import { createPool, deletePool } from '../api/pools.js';
import { volumeView } from '../api/views.js';
import { createVolume, deleteVolume, type VolumeDeps } from '../api/volumes.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import type { RareEvents } from './rare-events.js';

const mib = 1024 * 1024;
const retryMs = 200;
const namesMax = 3;
const poolsMax = 2;

type Wish = 'there' | 'gone';

interface Question {
  readonly wishes: Map<string, Wish>;
  readonly name: string;
  readonly wish: Wish;
  readonly lastWord?: string;
}

export class Operator {
  readonly #deps: VolumeDeps;
  readonly #clock: VirtualClock;
  readonly #rareEvents: RareEvents;
  readonly #wishes = new Map<string, Wish>();
  readonly #pools = new Map<string, Wish>();
  readonly #pending = new Set<string>();

  constructor(deps: VolumeDeps, clock: VirtualClock, rareEvents: RareEvents) {
    this.#deps = deps;
    this.#clock = clock;
    this.#rareEvents = rareEvents;
  }

  /** A name that is free now; null: enough of them. */
  get freeName(): string | null {
    const names = Array.from({ length: namesMax }, (_, index) => `w${index + 1}`);
    return names.find((name) => this.#wishes.get(name) !== 'there' && !this.#pending.has(name)) ?? null;
  }

  get made(): string[] {
    const there = [...this.#wishes].filter(([name, wish]) => wish === 'there' && !this.#pending.has(name));
    return there.map(([name]) => name);
  }

  get freePool(): string | null {
    const names = Array.from({ length: poolsMax }, (_, index) => `p${index + 1}`);
    return names.find((name) => this.#pools.get(name) !== 'there' && !this.#pending.has(name)) ?? null;
  }

  get madePools(): string[] {
    const there = [...this.#pools].filter(([name, wish]) => wish === 'there' && !this.#pending.has(name));
    return there.map(([name]) => name);
  }

  makePool(name: string, { copies, pgCount }: { copies: number; pgCount: number }): void {
    this.#ask({ wishes: this.#pools, name, wish: 'there' }, async () => {
      await createPool(this.#deps, { name, redundancy: { kind: 'copies', copies }, pgCount });
      this.#rareEvents.reach('pool_made');
    });
  }

  deletePool(name: string): void {
    // A volume in it: while it is there, nobody else can have deleted the pool.
    this.#ask({ wishes: this.#pools, name, wish: 'gone', lastWord: 'BUSY' }, async () => {
      await deletePool(this.#deps, name).catch((error: unknown) => {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
      });
      this.#rareEvents.reach('pool_deleted');
    });
  }

  makeIn(name: string, pool: string): void {
    const request = { name, sizeBytes: mib, pool, legs: 2, stripeSizeBytes: 65536 };
    // Without its pool it is not there, and cannot come.
    this.#ask({ wishes: this.#wishes, name, wish: 'there', lastWord: 'NOT_FOUND' }, async () => {
      await createVolume(this.#deps, request);
      this.#rareEvents.reach('volume_made');
    });
  }

  make(name: string, copies: number): void {
    const request = { name, sizeBytes: mib, copies, legs: 1, stripeSizeBytes: 65536 };
    this.#ask({ wishes: this.#wishes, name, wish: 'there' }, async () => {
      await createVolume(this.#deps, request);
      this.#rareEvents.reach('volume_made');
    });
  }

  delete(name: string): void {
    this.#ask({ wishes: this.#wishes, name, wish: 'gone' }, async () => {
      await deleteVolume(this.#deps, name).catch((error: unknown) => {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
      });
      this.#rareEvents.reach('volume_deleted');
    });
  }

  /** What is not as it was asked for, or null. `state`: of the store. */
  unrest(state: ClusterState): string | null {
    if (this.#pending.size > 0) return `no answer about ${[...this.#pending].join(', ')}`;
    for (const [name, wish] of this.#wishes) {
      const volume = state.volumeByName(name);
      if (wish === 'there' && volume === null) return `volume ${name} is not there`;
      if (wish === 'gone' && volume !== null) return `volume ${name} is there`;
      if (volume === null) continue;
      const { health } = volumeView(state, volume);
      if (health !== 'redundant') return `volume ${name} is ${health}`;
    }
    for (const [name, wish] of this.#pools) {
      const pool = state.poolByName(name);
      if (wish === 'there' && (pool === null || state.get('pgMaps', pool.id) === null))
        return `pool ${name} is not there`;
      if (wish === 'gone' && pool !== null) return `pool ${name} is there`;
    }
    const pools = new Set(state.all('pools').map(({ id }) => id));
    const map = state.all('pgMaps').find(({ poolId }) => !pools.has(poolId));
    if (map !== undefined) return `a map belongs to no pool: ${map.poolId}`;
    const going = state.all('volumes').find(({ phase }) => phase === 'deleting');
    if (going !== undefined) return `volume ${going.name} is deleting`;
    const known = new Set(state.all('volumes').map(({ id }) => id));
    const stray = state.all('observedReplicas').find(({ volumeId }) => !known.has(volumeId));
    return stray === undefined ? null : `replica ${stray.replica} belongs to no volume`;
  }

  /** One name, one volume, at every moment. */
  violation(state: ClusterState): string | null {
    const live = state.all('volumes').filter(({ phase }) => phase === 'live');
    const names = live.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    return twice === undefined ? null : `volumes: two are called ${twice}`;
  }

  #ask({ wishes, name, wish, lastWord = '' }: Question, act: () => Promise<void>): void {
    const before = wishes.get(name) ?? 'gone';
    wishes.set(name, wish);
    this.#pending.add(name);
    void this.#askUntilAnswered(act, lastWord).then((answer) => {
      if (answer === 'refused') wishes.set(name, before);
      this.#pending.delete(name);
    });
  }

  /** `lastWord`: an answer that tells that no earlier question was carried out, nor will be. */
  async #askUntilAnswered(act: () => Promise<void>, lastWord: string): Promise<'done' | 'refused'> {
    // An earlier question may be carried out yet: then a later refusal is not the last word.
    for (let mayBeDone = false; ; await this.#clock.sleep(retryMs)) {
      try {
        await act();
        return 'done';
      } catch (error) {
        const code = codeOf(error);
        if (code === null) throw error;
        if (code === 'PLACEMENT_IMPOSSIBLE' && !mayBeDone) return 'refused';
        if (code === lastWord) return 'refused';
        mayBeDone ||= code === 'STORE_UNKNOWN_OUTCOME';
      }
    }
  }
}

function codeOf(error: unknown): string | null {
  return error instanceof BasaltError ? error.code : null;
}
