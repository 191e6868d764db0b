// SPDX-License-Identifier: Apache-2.0
//
// Somebody who makes and deletes volumes and pools while everything else goes wrong, and asks again until there is an answer.
//
// Rules:  - a volume that was made is there once, and becomes redundant
//         - of a volume that was deleted nothing is left
//         - a pool that was made is there, and has a map; of one that was deleted nothing is left
//         - a request that was refused has changed nothing

import { createPool, deletePool } from '../api/pools.js';
import { readState } from '../api/read-state.js';
import { cloneSnapshot } from '../api/snapshots.js';
import { volumeView } from '../api/views.js';
import { createVolume, deleteVolume, type VolumeDeps } from '../api/volumes.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { ClusterState } from '../model/cluster-state.js';
import type { Redundancy } from '../model/pools.js';
import { askUntilAnswered, codeOf } from './asking.js';
import type { RareEvents } from './rare-events.js';

const mib = 1024 * 1024;
const namesMax = 3;
const poolsMax = 2;

type Wish = 'there' | 'gone';

interface Question {
  readonly wishes: Map<string, Wish>;
  readonly name: string;
  readonly wish: Wish;
  /** Tells that no earlier question was carried out, nor will be. */
  readonly lastWord?: string;
  /** Refuse it, unless an earlier question may be carried out yet. */
  readonly refusals?: readonly string[];
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

  makePool(name: string, { redundancy, pgCount }: { redundancy: Redundancy; pgCount: number }): void {
    this.#ask({ wishes: this.#pools, name, wish: 'there' }, async () => {
      await createPool(this.#deps, { name, redundancy, pgCount });
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

  /** What the snapshot of another volume holds. */
  clone(name: string, of: { volume: string; snapshot: string }): void {
    const words = { lastWord: 'NOT_FOUND', refusals: ['BUSY', 'VOLUME_UNAVAILABLE'] };
    this.#ask({ wishes: this.#wishes, name, wish: 'there', ...words }, async () => {
      await cloneSnapshot(this.#deps, { ...of, request: { name } }).catch(async (error: unknown) => {
        // The snapshot is gone: the volume was made of it before, or never will be.
        if (codeOf(error) !== 'NOT_FOUND') throw error;
        const { state } = await readState(this.#deps.store);
        if (state.volumeByName(name) === null) throw error;
      });
      this.#rareEvents.reach('snapshot_cloned');
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
    const placed = state.all('volumes').flatMap(({ legs }) => legs.flatMap((leg) => leg.replicas));
    const known = new Set([...placed, ...state.all('tombstones')].map(({ replica }) => replica));
    const stray = state.all('observedReplicas').find(({ replica }) => !known.has(replica));
    return stray === undefined ? null : `replica ${stray.replica} belongs to no volume`;
  }

  /** One name, one volume, at every moment. */
  violation(state: ClusterState): string | null {
    const live = state.all('volumes').filter(({ phase }) => phase === 'live');
    const names = live.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    return twice === undefined ? null : `volumes: two are called ${twice}`;
  }

  #ask({ wishes, name, wish, lastWord = '', refusals = [] }: Question, act: () => Promise<void>): void {
    const before = wishes.get(name) ?? 'gone';
    wishes.set(name, wish);
    this.#pending.add(name);
    const words = { last: [lastWord], refusals: ['PLACEMENT_IMPOSSIBLE', ...refusals] };
    void askUntilAnswered(this.#clock, words, act).then((answer) => {
      if (answer === 'refused') wishes.set(name, before);
      this.#pending.delete(name);
    });
  }
}
