// SPDX-License-Identifier: Apache-2.0
//
// A store whose cluster state is kept in memory, by a watch, for as long as it is followed: an API server then asks for one
// key per request instead of everything. It is still stateless: what it has is a copy, and as new as the answer of the store.
//
// Invariants:  - a reading holds every change that was committed before it was asked for
//              - a reading does not change: changes that come later make a new one
//              - without a watch that keeps up, everything is read, as without this

import type { Clock } from '../env/clock.js';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import type {
  CallOptions,
  Entry,
  Lease,
  LeaseOptions,
  PutOptions,
  Store,
  Txn,
  TxnResult,
  Watch,
  WatchBatch,
  WatchOptions,
} from '../store/store.js';

export interface StoreReading {
  readonly state: ClusterState;
  readonly placementRevision: number;
}

/** For how long a watch that is behind may stand still before everything is read; looked at in two steps, since a busy
 * process hears of the end of a wait before it hears of what came meanwhile. */
const quietMsMax = 100;
const tickMs = 50;
const callTimeoutMs = 5_000;

export class FollowedStore implements Store {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #state = new ClusterState();
  readonly #waiting = new Set<{ revision: number; resolve: () => void }>();
  #watch: Watch | null = null;
  #opening: Promise<void> | null = null;
  /** The question that the store is being asked, and the one that follows it. */
  #asking: Promise<{ entry: Entry | null; revision: number }> | null = null;
  #next: Promise<{ entry: Entry | null; revision: number }> | null = null;
  #revision = 0;
  #copy: ClusterState | null = null;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** @throws as every reading of the store */
  async read(): Promise<StoreReading> {
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = null;
      throw error;
    });
    await this.#opening;
    // Answered by the store as it is now: what was committed before is at this revision or below.
    const { entry, revision } = await this.#ask();
    if (!(await this.#reached(revision))) return readEverything(this.#store);
    this.#copy ??= this.#state.copy();
    return { state: this.#copy, placementRevision: entry?.modRevision ?? 0 };
  }

  /** Those that come while the store is asked wait for the next question, which is one for all of them. */
  #ask(): Promise<{ entry: Entry | null; revision: number }> {
    if (this.#asking === null) {
      this.#asking = this.#askNow();
      return this.#asking;
    }
    this.#next ??= this.#asking
      .catch(() => {})
      .then(() => {
        this.#next = null;
        this.#asking = this.#askNow();
        return this.#asking;
      });
    return this.#next;
  }

  #askNow(): Promise<{ entry: Entry | null; revision: number }> {
    const asked = this.#store.get(keys.placement, { timeoutMs: callTimeoutMs }).finally(() => {
      if (this.#asking === asked) this.#asking = null;
    });
    return asked;
  }

  async #open(): Promise<void> {
    const listed = await this.#store.list(keys.root, { timeoutMs: callTimeoutMs });
    this.#replace(listed.entries, listed.revision);
    this.#watch = this.#store.watch(keys.root, listed.revision + 1);
    void this.#follow(this.#watch);
  }

  async #follow(watch: Watch): Promise<void> {
    for await (const batch of watch) this.#apply(batch);
  }

  #apply(batch: WatchBatch): void {
    if (batch.kind === 'resync') {
      this.#replace(batch.entries, batch.revision);
      return;
    }
    for (const event of batch.events) {
      if (event.kind === 'put')
        this.#state.apply(event.entry.key, event.entry.value.toString(), event.entry.modRevision);
      else this.#state.apply(event.key, null, event.modRevision);
    }
    this.#advance(batch.revision);
  }

  #replace(entries: readonly Entry[], revision: number): void {
    this.#state.replace(entries.map(rowOf));
    this.#advance(revision);
  }

  #advance(revision: number): void {
    this.#copy = null;
    this.#revision = revision;
    for (const waiter of [...this.#waiting]) if (waiter.revision <= revision) waiter.resolve();
  }

  /**
   * False: the watch stood still for a while before it came so far; another user of the store may have made that revision.
   * One that only lags behind is waited for: reading everything instead would make a crowd's lag longer.
   */
  async #reached(revision: number): Promise<boolean> {
    for (let quietMs = 0; this.#revision < revision && quietMs < quietMsMax; quietMs += tickMs) {
      const before = this.#revision;
      if (await this.#reachedWithin(revision, tickMs)) return true;
      if (this.#revision !== before) quietMs = -tickMs;
    }
    return this.#revision >= revision;
  }

  async #reachedWithin(revision: number, ms: number): Promise<boolean> {
    return new Promise<boolean>((resolve) => {
      const end = (reached: boolean): void => {
        timer.cancel();
        this.#waiting.delete(waiter);
        resolve(reached);
      };
      const waiter = { revision, resolve: () => end(true) };
      const timer = this.#clock.setTimer(ms, () => end(false));
      this.#waiting.add(waiter);
    });
  }

  get(key: string, options?: CallOptions): Promise<{ entry: Entry | null; revision: number }> {
    return this.#store.get(key, options);
  }

  list(prefix: string, options?: CallOptions): Promise<{ entries: Entry[]; revision: number }> {
    return this.#store.list(prefix, options);
  }

  put(key: string, value: string | Buffer, options?: PutOptions): Promise<{ revision: number }> {
    return this.#store.put(key, value, options);
  }

  delete(key: string, options?: CallOptions): Promise<{ deleted: boolean; revision: number }> {
    return this.#store.delete(key, options);
  }

  txn(txn: Txn, options?: CallOptions): Promise<TxnResult> {
    return this.#store.txn(txn, options);
  }

  watch(prefix: string, fromRevision: number, options?: WatchOptions): Watch {
    return this.#store.watch(prefix, fromRevision, options);
  }

  grantLease(options: LeaseOptions): Promise<Lease> {
    return this.#store.grantLease(options);
  }

  async close(): Promise<void> {
    this.#watch?.close();
    await this.#store.close();
  }
}

/** Everything, as of one revision. */
export async function readEverything(store: Store): Promise<StoreReading> {
  const { entries } = await store.list(keys.root, { timeoutMs: callTimeoutMs });
  const state = new ClusterState();
  state.replace(entries.map(rowOf));
  const placementRevision = entries.find((entry) => entry.key === keys.placement)?.modRevision ?? 0;
  return { state, placementRevision };
}

function rowOf(entry: Entry): { key: string; value: string; revision: number } {
  return { key: entry.key, value: entry.value.toString(), revision: entry.modRevision };
}
