// SPDX-License-Identifier: Apache-2.0
//
// One watch of a simulated client: what the server has logged reaches it later, whole revisions, in order.

import type { VirtualClock } from '../env/virtual-clock.js';
import type { Watch, WatchBatch, WatchEvent } from '../store/store.js';
import type { SimStoreServer } from './sim-store.js';

export interface SimWatchOptions {
  readonly server: SimStoreServer;
  readonly clock: VirtualClock;
  readonly client: string;
  readonly prefix: string;
  readonly fromRevision: number;
}

export class SimWatch implements Watch {
  readonly #options: SimWatchOptions;
  readonly #queue: WatchBatch[] = [];
  #nextRevision: number;
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(options: SimWatchOptions) {
    this.#options = options;
    this.#nextRevision = options.fromRevision;
    options.server.follow(this);
  }

  get client(): string {
    return this.#options.client;
  }

  close(): void {
    this.#ended = true;
    this.#options.server.unfollow(this);
    this.#wake?.();
  }

  /** The server's word up to `revision` is here; the process takes it up when it runs. */
  arrive(revision: number): void {
    this.#options.clock.setTimer(0, () => this.#take(revision));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void> {
    while (!this.#ended) {
      const batch = this.#queue.shift();
      if (batch !== undefined) {
        yield batch;
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }

  #take(revision: number): void {
    const { server, prefix } = this.#options;
    if (this.#nextRevision < server.compactRevision && this.#nextRevision <= revision) {
      this.#nextRevision = server.revision + 1;
      const entries = server.list(prefix);
      server.rareEvents.reach('watch_resynced');
      this.#queue.push({ kind: 'resync', reason: 'compacted', revision: server.revision, entries });
    }
    while (this.#nextRevision <= revision) {
      const logged = server.logFrom(this.#nextRevision);
      if (logged === undefined || logged.revision > revision) break;
      this.#nextRevision = logged.revision + 1;
      const events = logged.events.filter((event) => keyOf(event).startsWith(prefix));
      if (events.length > 0) this.#queue.push({ kind: 'events', revision: logged.revision, events });
    }
    this.#wake?.();
  }
}

function keyOf(event: WatchEvent): string {
  return event.kind === 'put' ? event.entry.key : event.key;
}
