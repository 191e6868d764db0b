// SPDX-License-Identifier: Apache-2.0
//
// Watchers: each is a position in the history and moves on when there is news and its stream takes it.
//
// Invariants:  - a watcher is sent every matching event of revisions >= its start exactly once, in order;
//                all events of a revision in one response
//              - only published (durable) revisions are sent
//              - a stream that does not drain holds no events: its watchers fall behind, and catch up
//                from history, or are cancelled when that was compacted

import type { Clock, Timer } from '../../env/clock.js';
import { toNumber, toRange } from './checks.js';
import type { WatchCreateRequest, WatchResponse } from './messages.js';
import { type KeyRange, type Mvcc, rangeHolds, type Version } from './mvcc.js';
import { toKeyValue } from './operations.js';

/** Sends a response; false means: wait until `WatchStream.drained` is called. */
export type WatchSink = (response: WatchResponse) => boolean;

interface Watcher {
  readonly id: number;
  readonly range: KeyRange;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
  readonly progressNotify: boolean;
  next: number;
}

const responseRevisionsMax = 1000;
const responseBytesMax = 1024 * 1024;
const progressIntervalMs = 10 * 60 * 1000;

export class WatchHub {
  readonly mvcc: Mvcc;
  published = 0;
  compactRevision = -1;
  readonly #streams = new Set<WatchStream>();
  readonly #clock: Clock;
  readonly #watchersMax: number;
  #progressTimer: Timer | null = null;

  constructor(mvcc: Mvcc, clock: Clock, watchersMax: number) {
    this.mvcc = mvcc;
    this.#clock = clock;
    this.#watchersMax = watchersMax;
  }

  open(sink: WatchSink): WatchStream {
    const stream = new WatchStream(this, sink);
    this.#streams.add(stream);
    return stream;
  }

  forget(stream: WatchStream): void {
    this.#streams.delete(stream);
    if (this.#streams.size === 0) this.#stopTimer();
  }

  get full(): boolean {
    let count = 0;
    for (const stream of this.#streams) count += stream.watcherCount;
    return count >= this.#watchersMax;
  }

  publish(revision: number): void {
    this.published = revision;
    for (const stream of this.#streams) stream.pump();
  }

  compacted(revision: number): void {
    this.compactRevision = revision;
  }

  wantProgress(): void {
    this.#progressTimer ??= this.#clock.setTimer(progressIntervalMs, () => {
      this.#progressTimer = null;
      let wanted = false;
      for (const stream of this.#streams) wanted = stream.notifyProgress() || wanted;
      if (wanted) this.wantProgress();
    });
  }

  close(): void {
    this.#streams.clear();
    this.#stopTimer();
  }

  #stopTimer(): void {
    this.#progressTimer?.cancel();
    this.#progressTimer = null;
  }
}

export class WatchStream {
  readonly #hub: WatchHub;
  readonly #sink: WatchSink;
  readonly #watchers = new Map<number, Watcher>();
  #nextId = 0;
  #blocked = false;
  #progressAsked = false;

  constructor(hub: WatchHub, sink: WatchSink) {
    this.#hub = hub;
    this.#sink = sink;
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  create(request: WatchCreateRequest): void {
    const key = request.key.length === 0 ? Buffer.from([0]) : request.key;
    const range = toRange(key, request.range_end);
    const refused = this.#refusal(range, request);
    const revision = this.#hub.published;
    if (refused !== null) {
      this.#send({ watch_id: -1, revision, created: true, canceled: true, cancel_reason: refused });
      return;
    }
    const id = this.#allocateId(request);
    const start = toNumber(request.start_revision);
    this.#watchers.set(id, {
      id,
      range,
      noPut: request.filters.includes(0),
      noDelete: request.filters.includes(1),
      prevKv: request.prev_kv,
      progressNotify: request.progress_notify,
      next: start > 0 ? start : revision + 1,
    });
    if (request.progress_notify) this.#hub.wantProgress();
    this.#send({ watch_id: id, revision, created: true });
    this.pump();
  }

  cancel(watchId: number): void {
    if (!this.#watchers.delete(watchId)) return;
    this.#send({ watch_id: watchId, revision: this.#hub.published, canceled: true });
  }

  /** Answers once every watcher has been sent all that is published. */
  askProgress(): void {
    this.#progressAsked = true;
    this.pump();
  }

  /** Tells idle watchers how far they are; returns whether any wants that. */
  notifyProgress(): boolean {
    let wanted = false;
    for (const watcher of this.#watchers.values()) {
      if (!watcher.progressNotify) continue;
      wanted = true;
      if (watcher.next <= this.#hub.published || this.#blocked) continue;
      this.#send({ watch_id: watcher.id, revision: this.#hub.published });
    }
    return wanted;
  }

  drained(): void {
    this.#blocked = false;
    this.pump();
  }

  close(): void {
    this.#watchers.clear();
    this.#hub.forget(this);
  }

  pump(): void {
    for (const watcher of this.#watchers.values()) {
      while (!this.#blocked && watcher.next <= this.#hub.published) this.#step(watcher);
      if (this.#blocked) return;
    }
    if (!this.#progressAsked) return;
    this.#progressAsked = false;
    this.#send({ watch_id: -1, revision: this.#hub.published });
  }

  #step(watcher: Watcher): void {
    const { compactRevision, published, mvcc } = this.#hub;
    if (watcher.next < compactRevision) {
      this.#watchers.delete(watcher.id);
      watcher.next = Number.POSITIVE_INFINITY;
      this.#send({ watch_id: watcher.id, revision: published, canceled: true, compact_revision: compactRevision });
      return;
    }
    const events: Version[] = [];
    const end = Math.min(published, watcher.next + responseRevisionsMax - 1);
    let bytes = 0;
    while (watcher.next <= end && bytes < responseBytesMax) {
      for (const event of mvcc.eventsAt(watcher.next)) {
        if (!wants(watcher, event)) continue;
        events.push(event);
        bytes += event.key.length + (event.value?.length ?? 0);
      }
      watcher.next += 1;
    }
    if (events.length === 0) return;
    this.#send({
      watch_id: watcher.id,
      revision: watcher.next - 1,
      events: events.map((event) => this.#encode(event, watcher)),
    });
  }

  #encode(event: Version, watcher: Watcher): NonNullable<WatchResponse['events']>[number] {
    const previous = watcher.prevKv ? this.#hub.mvcc.before(event) : null;
    return {
      type: event.value === null ? 1 : 0,
      kv: toKeyValue(event),
      ...(previous === null ? {} : { prev_kv: toKeyValue(previous) }),
    };
  }

  #refusal(range: KeyRange, request: WatchCreateRequest): string | null {
    if (range.end !== null && range.end !== '' && range.key >= range.end) return 'mvcc: watcher range is empty';
    if (this.#watchers.has(toNumber(request.watch_id)) && toNumber(request.watch_id) !== 0) {
      return 'mvcc: duplicate watch ID provided on the WatchStream';
    }
    return this.#hub.full ? 'etcdserver: too many requests' : null;
  }

  #allocateId(request: WatchCreateRequest): number {
    const asked = toNumber(request.watch_id);
    if (asked !== 0) return asked;
    while (this.#watchers.has(this.#nextId)) this.#nextId += 1;
    return this.#nextId++;
  }

  #send(response: WatchResponse): void {
    if (!this.#sink(response)) this.#blocked = true;
  }
}

function wants(watcher: Watcher, event: Version): boolean {
  if (event.value === null ? watcher.noDelete : watcher.noPut) return false;
  return rangeHolds(watcher.range, event.key);
}
