// SPDX-License-Identifier: Apache-2.0
//
// The embedded store without its network: state in memory, made durable by the journal.
//
// A request is carried out on the memory at once, in order of arrival, and answered when everything
// it could have seen is durable. So answers are linearizable, and nothing that was told is ever lost.
//
// Invariants:  - no answer and no watch event leaves before its revision is on stable media
//              - `published` is the newest durable revision; it never exceeds mvcc.revision
//              - after a failed commit every request is refused until the store is opened again

import type { Clock } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import type { Logger } from '../logger.js';
import { Backend, type Identity, type Mutation } from './backend.js';
import { checkDelete, checkPut, checkRange, checkTxn } from './checks.js';
import { Journal } from './journal.js';
import { Lessor } from './lessor.js';
import type { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from './messages.js';
import { Mvcc, type Version, type Writer } from './mvcc.js';
import { type DeleteAnswer, Operations, type PutAnswer, type RangeAnswer, type TxnAnswer } from './operations.js';
import { refusals } from './status.js';
import { WatchHub } from './watch-hub.js';

export interface StoreLimits {
  /** Largest request that changes something. */
  readonly requestBytesMax: number;
  readonly txnOpsMax: number;
  readonly watchersMax: number;
  readonly leasesMax: number;
  /** Requests waiting for the disk. */
  readonly waitingMax: number;
  /** Bytes of keys and values, history included; beyond it only deleting and compacting is allowed. */
  readonly dataBytesMax: number;
  /** Revisions kept when nobody compacts; half of them go when it is reached. */
  readonly historyRevisionsMax: number;
}

export const storeLimits: StoreLimits = Object.freeze({
  requestBytesMax: 1536 * 1024,
  txnOpsMax: 128,
  watchersMax: 10_000,
  leasesMax: 10_000,
  waitingMax: 10_000,
  dataBytesMax: 512 * 1024 * 1024,
  historyRevisionsMax: 100_000,
});

export interface CoreOptions {
  directory: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  limits: StoreLimits;
}

const trimEventsPerStep = 500;

export class Core {
  readonly hub: WatchHub;
  readonly lessor: Lessor;
  readonly identity: Identity;
  readonly #options: CoreOptions;
  readonly #backend: Backend;
  readonly #journal: Journal;
  readonly #mvcc = new Mvcc();
  readonly #operations: Operations;
  #published = 0;
  #compactedDurably = -1;
  #trimming: Promise<void> | null = null;
  #closed = false;

  private constructor(backend: Backend, options: CoreOptions) {
    this.#options = options;
    this.#backend = backend;
    this.identity = backend.identity;
    this.#journal = new Journal(
      (mutations) => backend.commit(mutations),
      (error) =>
        options.logger.error({ err: error }, 'store: a commit failed; everything is refused until it is opened again'),
    );
    const { clock, random } = options;
    this.lessor = new Lessor({ clock, random, onExpired: (id) => this.#expire(id) });
    this.#operations = new Operations(this.#mvcc, this.lessor);
    this.hub = new WatchHub(this.#mvcc, clock, options.limits.watchersMax);
  }

  static async open(options: CoreOptions): Promise<Core> {
    const backend = await Backend.open(options.directory, options.random);
    try {
      const core = new Core(backend, options);
      core.#load();
      return core;
    } catch (error) {
      await backend.close();
      throw error;
    }
  }

  /** Newest revision that may be told to anyone. */
  get published(): number {
    return this.#published;
  }

  range(request: RangeRequest): Promise<RangeAnswer> {
    checkRange(request);
    return this.#answer(() => this.#operations.range(request));
  }

  put(request: PutRequest): Promise<PutAnswer> {
    checkPut(request);
    this.#checkSpace();
    return this.#answer(() => {
      this.#operations.checkPut(request);
      return this.#write((writer) => this.#operations.put(request, writer));
    });
  }

  deleteRange(request: DeleteRangeRequest): Promise<DeleteAnswer> {
    checkDelete(request);
    return this.#answer(() => this.#write((writer) => this.#operations.delete(request, writer)));
  }

  txn(request: TxnRequest): Promise<TxnAnswer> {
    checkTxn(request, this.#options.limits.txnOpsMax);
    return this.#answer(() => {
      const plan = this.#operations.planTxn(request);
      if (plan.writes) this.#checkSpace();
      return this.#write((writer) => this.#operations.txn(plan, writer));
    });
  }

  async compact(revision: number, physical: boolean): Promise<{ revision: number }> {
    const answer = await this.#answer(() => {
      if (revision <= this.#mvcc.compactRevision) throw refusals.compacted();
      if (revision > this.#mvcc.revision) throw refusals.futureRevision();
      this.#mvcc.compactRevision = revision;
      this.#journal.append([{ kind: 'compacted', revision }], () => this.#compacted(revision));
      return { revision: this.#mvcc.revision };
    });
    if (physical) await this.#trimming;
    return answer;
  }

  leaseGrant(id: string, ttlSeconds: number): Promise<{ revision: number; id: string; ttlSeconds: number }> {
    this.#checkSpace();
    if (this.lessor.count >= this.#options.limits.leasesMax) throw refusals.tooManyRequests();
    return this.#answer(() => {
      const granted = this.lessor.prepare(id, ttlSeconds);
      this.lessor.add(granted.id, granted.ttlSeconds);
      this.#journal.append([{ kind: 'lease', ...granted }], () => {});
      return { revision: this.#mvcc.revision, ...granted };
    });
  }

  leaseRevoke(id: string): Promise<{ revision: number }> {
    return this.#answer(() => this.#revoke(id));
  }

  /** For requests that only look: what `look` returns, once it may be told. */
  look<T>(look: (revision: number) => T): Promise<T> {
    return this.#answer(() => look(this.#mvcc.revision));
  }

  sizeBytes(): { file: number; inUse: number } {
    return { file: this.#backend.sizeBytes(), inUse: this.#mvcc.sizeBytes };
  }

  /** Finishes what is being written; everything later is refused. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.lessor.stop();
    this.hub.close();
    await this.#trimming;
    await this.#journal.drained();
    await this.#backend.close();
  }

  async #answer<T>(perform: () => T): Promise<T> {
    if (this.#closed || this.#journal.failed) throw refusals.stopped();
    if (this.#journal.waiting >= this.#options.limits.waitingMax) throw refusals.tooManyRequests();
    const answer = perform();
    await this.#journal.settled();
    return answer;
  }

  #write<T>(perform: (writer: Writer) => T, extra: readonly Mutation[] = []): T {
    const writer = this.#mvcc.begin();
    const answer = perform(writer);
    writer.end();
    const events: Mutation[] = writer.events.map((event) => ({ kind: 'event', event }));
    if (events.length + extra.length > 0) {
      const { revision } = this.#mvcc;
      this.#journal.append([...events, ...extra], () => this.#publish(revision));
    }
    return answer;
  }

  #revoke(id: string): { revision: number } {
    const keys = [...this.lessor.get(id).keys].sort();
    const remove: Mutation = { kind: 'lease', id, ttlSeconds: null };
    this.#write(
      (writer) => {
        for (const key of keys) writer.delete({ key, end: null });
      },
      [remove],
    );
    this.lessor.remove(id);
    return { revision: this.#mvcc.revision };
  }

  #expire(id: string): void {
    if (this.#closed || this.#journal.failed) return;
    this.#options.logger.info({ lease: id }, 'store: lease ran out');
    this.#revoke(id);
  }

  #publish(revision: number): void {
    this.#published = Math.max(this.#published, revision);
    this.hub.publish(this.#published);
    const { historyRevisionsMax } = this.#options.limits;
    if (this.#published - Math.max(this.#mvcc.compactRevision, 1) <= historyRevisionsMax || this.#closed) return;
    const target = this.#published - Math.floor(historyRevisionsMax / 2);
    this.#mvcc.compactRevision = target;
    this.#journal.append([{ kind: 'compacted', revision: target }], () => this.#compacted(target));
  }

  #compacted(revision: number): void {
    this.#compactedDurably = Math.max(this.#compactedDurably, revision);
    this.hub.compacted(this.#compactedDurably);
    this.#trimming ??= this.#trim();
  }

  async #trim(): Promise<void> {
    // Not within the caller's turn: #trimming must be set before it can be cleared.
    await this.#options.clock.sleep(0);
    try {
      for (;;) {
        const { dropped, done } = this.#mvcc.trim(this.#compactedDurably, trimEventsPerStep);
        if (this.#journal.failed) return;
        this.#forget(dropped);
        if (done || this.#closed) break;
        await this.#options.clock.sleep(0);
      }
    } finally {
      this.#trimming = null;
    }
    if (!this.#closed) await this.#journal.settled().catch(() => {});
  }

  #forget(events: readonly Version[]): void {
    if (events.length === 0) return;
    this.#journal.append(
      events.map((event) => ({ kind: 'forget', event })),
      () => {},
    );
  }

  #checkSpace(): void {
    if (this.#mvcc.sizeBytes > this.#options.limits.dataBytesMax) throw refusals.noSpace();
  }

  #load(): void {
    const stored = this.#backend.load();
    const dropped = this.#mvcc.load(stored.events, stored.compactRevision);
    this.#compactedDurably = stored.compactRevision;
    for (const { id, ttlSeconds } of stored.leases) this.lessor.add(id, ttlSeconds);
    for (const version of this.#mvcc.range({ key: '', end: '' }, this.#mvcc.revision)) {
      this.lessor.move(version.key, '0', version.lease);
    }
    this.#published = this.#mvcc.revision;
    this.hub.publish(this.#published);
    this.hub.compacted(this.#compactedDurably);
    this.#forget(dropped);
  }
}
