// SPDX-License-Identifier: Apache-2.0
//
// One watch over one stream, opened again whenever it breaks, from the first revision not yet seen.
//
// Invariants:  - revisions are yielded in ascending order, each at most once and whole
//              - none is skipped: when some were compacted away, or the store is another one or an older
//                copy of itself, a resync with the present state stands for them
//              - the consumer sets the pace; unread events wait in the connection, not here

import type { Clock } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import { BasaltError, isBasaltError } from '../../model/errors.js';
import type { Logger } from '../logger.js';
import type { Entry, Watch, WatchBatch, WatchEvent, WatchOptions } from '../store.js';
import { Backoff } from './backoff.js';
import { prefixRange, type ReceivedWatch, toRevision, toWatchEvent } from './codec.js';
import type { EtcdConnection, RpcStream } from './connection.js';

interface EtcdWatchOptions {
  prefix: string;
  fromRevision: number;
  options: WatchOptions;
  connection: EtcdConnection;
  clock: Clock;
  random: Random;
  logger: Logger;
  list: (signal: AbortSignal) => Promise<{ entries: Entry[]; revision: number }>;
  onEnded: (watch: EtcdWatch) => void;
}

const connectTimeoutMs = 5_000;

/** The stream can go no further; the present state must be listed. */
type Gap = { reason: 'compacted' | 'another store' | 'older revision' };

export class EtcdWatch implements Watch {
  readonly #config: EtcdWatchOptions;
  readonly #ending = new AbortController();
  readonly #backoff: Backoff;
  #nextRevision: number;
  #clusterId: string | null = null;
  #connected: boolean | null = null;
  #iterated = false;

  constructor(config: EtcdWatchOptions) {
    this.#config = config;
    this.#backoff = new Backoff(config.random);
    this.#nextRevision = config.fromRevision;
    const { signal } = config.options;
    if (signal?.aborted) this.close();
    else signal?.addEventListener('abort', () => this.close(), { once: true, signal: this.#ending.signal });
  }

  get ended(): boolean {
    return this.#ending.signal.aborted;
  }

  close(): void {
    this.#ending.abort();
    this.#config.onEnded(this);
  }

  [Symbol.asyncIterator](): AsyncIterator<WatchBatch> {
    if (this.#iterated) throw new BasaltError('INTERNAL', { detail: 'a watch can be iterated once' });
    this.#iterated = true;
    return this.#batches();
  }

  async *#batches(): AsyncGenerator<WatchBatch, void> {
    try {
      while (!this.ended) {
        const gap = yield* this.#follow();
        this.#tell(false);
        if (this.ended) return;
        const resync = gap === null ? null : await this.#resync(gap);
        if (resync !== null) yield resync;
        else await this.#config.clock.sleep(this.#backoff.nextMs(), this.#ending.signal).catch(() => {});
      }
    } finally {
      this.close();
    }
  }

  /** Yields what one stream brings. Returns when it breaks (null), or cannot go on (a gap). */
  async *#follow(): AsyncGenerator<WatchBatch, Gap | null> {
    let stream: RpcStream | null = null;
    const cancel = (): void => stream?.cancel();
    try {
      stream = await this.#open();
      this.#ending.signal.addEventListener('abort', cancel, { once: true });
      for await (const message of stream) {
        const response = message as ReceivedWatch;
        const gap = this.#gapOf(response);
        if (gap !== null) return gap;
        if (response.created) this.#heard(response);
        if (response.canceled) return this.#refused(response);
        yield* this.#batchesOf(response);
        if (this.ended) return null;
      }
    } catch (error) {
      if (!this.ended)
        this.#config.logger.debug({ err: error, prefix: this.#config.prefix }, 'store: watch interrupted');
    } finally {
      this.#ending.signal.removeEventListener('abort', cancel);
      cancel();
    }
    return null;
  }

  async #open(): Promise<RpcStream> {
    const { connection, clock, prefix } = this.#config;
    const deadlineMs = clock.now() + connectTimeoutMs;
    const wait = { operation: `watch of ${prefix}`, deadlineMs, signal: this.#ending.signal };
    const stream = await connection.stream('Watch', 'watch', wait);
    stream.write({
      create_request: { ...prefixRange(prefix), start_revision: this.#nextRevision, progress_notify: true },
    });
    return stream;
  }

  #heard(response: ReceivedWatch): void {
    this.#clusterId = response.header.cluster_id;
    this.#backoff.reset();
    if (!response.canceled) this.#tell(true);
  }

  /** A store that is not the one, or not as far as the one, that was followed so far. */
  #gapOf({ header, created, canceled, compact_revision }: ReceivedWatch): Gap | null {
    if (created && this.#clusterId !== null && this.#clusterId !== header.cluster_id)
      return { reason: 'another store' };
    if (created && toRevision(header.revision) < this.#nextRevision - 1) return { reason: 'older revision' };
    if (canceled && compact_revision !== '0') return { reason: 'compacted' };
    return null;
  }

  #refused(response: ReceivedWatch): null {
    const { logger, prefix, connection } = this.#config;
    connection.streamEnded(response.cancel_reason);
    logger.warn({ prefix, reason: response.cancel_reason }, 'store: watch refused, trying again');
    return null;
  }

  *#batchesOf(response: ReceivedWatch): Generator<WatchBatch, void> {
    let events: WatchEvent[] = [];
    let revision = 0;
    for (const event of response.events) {
      const at = toRevision(event.kv.mod_revision);
      if (at < this.#nextRevision) continue;
      if (at !== revision && events.length > 0) {
        yield this.#batch(revision, events);
        events = [];
      }
      revision = at;
      events.push(toWatchEvent(event));
    }
    if (events.length > 0) yield this.#batch(revision, events);
    else if (response.events.length === 0 && !response.created) {
      // Progress: nothing happened up to here, so a later start misses nothing.
      this.#nextRevision = Math.max(this.#nextRevision, toRevision(response.header.revision) + 1);
    }
  }

  #batch(revision: number, events: WatchEvent[]): WatchBatch {
    this.#nextRevision = revision + 1;
    return { kind: 'events', revision, events };
  }

  async #resync({ reason }: Gap): Promise<WatchBatch | null> {
    try {
      const { entries, revision } = await this.#config.list(this.#ending.signal);
      // A member of a cluster may lag behind; only the store as a whole cannot.
      if (reason === 'older revision' && revision >= this.#nextRevision - 1) return null;
      this.#nextRevision = revision + 1;
      if (reason !== 'compacted') this.#clusterId = null;
      this.#config.logger.warn(
        { prefix: this.#config.prefix, reason, revision },
        'store: watch starts over from the present state',
      );
      return { kind: 'resync', reason: reason === 'compacted' ? 'compacted' : 'store replaced', revision, entries };
    } catch (error) {
      if (!isBasaltError(error)) throw error;
      return null;
    }
  }

  #tell(connected: boolean): void {
    if (this.#connected === connected) return;
    this.#connected = connected;
    this.#config.options.onConnected?.(connected);
  }
}
