// SPDX-License-Identifier: Apache-2.0
//
// Keys with their history, in memory: the state that the embedded server answers from. No I/O.
//
// Keys are latin-1 strings (one char per byte), so that string order is byte order.
//
// Invariants:  - a revision holds at least one event; a key has at most one event per revision
//              - a key's versions ascend by modRevision and never begin with a tombstone below the
//                compacted revision
//              - history holds every event of the revisions >= max(compactRevision, 2)
//              - nothing here is changed by reading

/** One state of one key; `value === null` is a tombstone. Also the event that led to it. */
export interface Version {
  readonly key: string;
  readonly modRevision: number;
  /** Place of the event within its revision. */
  readonly index: number;
  readonly createRevision: number;
  readonly version: number;
  readonly value: Buffer | null;
  /** Decimal signed 64-bit lease, '0' for none. */
  readonly lease: string;
}

/** [key, end); `end === null` is the one key, '' is everything from `key` on. */
export interface KeyRange {
  readonly key: string;
  readonly end: string | null;
}

export function rangeHolds(range: KeyRange, key: string): boolean {
  if (range.end === null) return key === range.key;
  return key >= range.key && (range.end === '' || key < range.end);
}

const firstRevision = 1;

export class Mvcc {
  revision = firstRevision;
  compactRevision = -1;
  /** Bytes of all keys and values held, history included. */
  sizeBytes = 0;

  readonly #keys = new Map<string, Version[]>();
  readonly #sorted: string[] = [];
  #history: Version[][] = [];
  #historyStart = firstRevision + 1;
  /** Superseded versions below this revision are gone from memory. */
  #trimmed = 0;

  get keyCount(): number {
    return this.#keys.size;
  }

  /** The live versions in `range` as of `revision`, by key. */
  range(range: KeyRange, revision: number): Version[] {
    if (range.end === null) {
      const version = this.at(range.key, revision);
      return version === null ? [] : [version];
    }
    const found: Version[] = [];
    for (let i = this.#lowerBound(range.key); i < this.#sorted.length; i++) {
      const key = this.#sorted[i]!;
      if (range.end !== '' && key >= range.end) break;
      const version = this.at(key, revision);
      if (version !== null) found.push(version);
    }
    return found;
  }

  /** The live version of `key` as of `revision`. */
  at(key: string, revision: number): Version | null {
    const versions = this.#keys.get(key);
    if (versions === undefined) return null;
    const version = versions[indexAt(versions, revision)];
    return version === undefined || version.value === null ? null : version;
  }

  /** What `event` replaced, if that is still known. */
  before(event: Version): Version | null {
    return this.at(event.key, event.modRevision - 1);
  }

  /** The events of one revision; empty when it is compacted away or does not exist yet. */
  eventsAt(revision: number): readonly Version[] {
    return this.#history[revision - this.#historyStart] ?? [];
  }

  begin(): Writer {
    return new Writer(this);
  }

  /** For Writer: adds an event of the revision being made. */
  add(event: Version): void {
    const versions = this.#keys.get(event.key);
    if (versions === undefined) {
      this.#keys.set(event.key, [event]);
      this.#sorted.splice(this.#lowerBound(event.key), 0, event.key);
    } else {
      versions.push(event);
    }
    this.sizeBytes += eventBytes(event);
  }

  /** For Writer: makes the events the next revision. */
  seal(events: Version[]): void {
    this.revision += 1;
    this.#history.push(events);
  }

  /**
   * Loads stored events, in order, into an empty state. Returns those that a compaction up to
   * `compactRevision` has made superfluous.
   */
  load(events: Iterable<Version>, compactRevision: number): Version[] {
    const dropped: Version[] = [];
    this.compactRevision = compactRevision;
    this.#historyStart = Math.max(compactRevision, firstRevision + 1);
    this.revision = Math.max(firstRevision, compactRevision);
    for (const event of events) this.#loadOne(event, dropped);
    for (const [key, versions] of this.#keys) {
      const first = versions[0]!;
      if (first.value === null && first.modRevision < compactRevision) dropped.push(versions.shift()!);
      if (versions.length === 0) this.#keys.delete(key);
      else this.#sorted.push(key);
    }
    this.#sorted.sort((a, b) => (a < b ? -1 : 1));
    for (let revision = this.#historyStart; revision <= this.revision; revision++) {
      this.#history[revision - this.#historyStart] ??= [];
    }
    for (const event of dropped) this.sizeBytes -= eventBytes(event);
    this.#trimmed = Math.max(0, compactRevision);
    return dropped;
  }

  /**
   * Forgets what the compacted revision, or `revision` if that is smaller, made superfluous; at most
   * about `eventsMax` events per call. Returns what was forgotten and whether more is left.
   */
  trim(revision: number, eventsMax: number): { dropped: Version[]; done: boolean } {
    const target = Math.min(revision, this.compactRevision);
    const dropped: Version[] = [];
    let seen = 0;
    while (this.#trimmed < target && seen < eventsMax) {
      // The step to revision r looks at r - 1 again: a tombstone at the compacted revision itself is
      // kept for watchers that start there, and falls with the next step.
      for (const at of [this.#trimmed, this.#trimmed + 1]) {
        for (const event of this.eventsAt(at)) {
          seen += 1;
          this.#trimKey(event.key, this.#trimmed + 1, dropped);
        }
      }
      this.#trimmed += 1;
    }
    const surplus = this.#trimmed - this.#historyStart;
    if (surplus > 0) {
      this.#history = this.#history.slice(surplus);
      this.#historyStart += surplus;
    }
    return { dropped, done: this.#trimmed >= target };
  }

  #loadOne(event: Version, dropped: Version[]): void {
    const versions = this.#keys.get(event.key);
    if (versions === undefined) this.#keys.set(event.key, [event]);
    else {
      if (event.modRevision <= this.compactRevision) dropped.push(versions.pop()!);
      versions.push(event);
    }
    this.sizeBytes += eventBytes(event);
    this.revision = Math.max(this.revision, event.modRevision);
    if (event.modRevision >= this.#historyStart) {
      const slot = event.modRevision - this.#historyStart;
      this.#history[slot] ??= [];
      this.#history[slot].push(event);
    }
  }

  #trimKey(key: string, revision: number, dropped: Version[]): void {
    const versions = this.#keys.get(key);
    if (versions === undefined) return;
    const keep = indexAt(versions, revision);
    if (keep < 0) return;
    const kept = versions[keep]!;
    const count = kept.value === null && kept.modRevision < revision ? keep + 1 : keep;
    for (const version of versions.splice(0, count)) {
      dropped.push(version);
      this.sizeBytes -= eventBytes(version);
    }
    if (versions.length > 0) return;
    this.#keys.delete(key);
    this.#sorted.splice(this.#lowerBound(key), 1);
  }

  #lowerBound(key: string): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The making of one revision: changes are visible at `revision` at once, and sealed by `end`. */
export class Writer {
  readonly revision: number;
  readonly events: Version[] = [];
  readonly #mvcc: Mvcc;

  constructor(mvcc: Mvcc) {
    this.#mvcc = mvcc;
    this.revision = mvcc.revision + 1;
  }

  /** The revision that an operation made now would report. */
  get reportedRevision(): number {
    return this.events.length > 0 ? this.revision : this.revision - 1;
  }

  put(key: string, value: Buffer, lease: string): { previous: Version | null; made: Version } {
    const previous = this.#mvcc.at(key, this.revision);
    const made: Version = {
      key,
      modRevision: this.revision,
      index: this.events.length,
      createRevision: previous?.createRevision ?? this.revision,
      version: (previous?.version ?? 0) + 1,
      value,
      lease,
    };
    this.#push(made);
    return { previous, made };
  }

  delete(range: KeyRange): Version[] {
    const victims = this.#mvcc.range(range, this.revision);
    for (const { key } of victims) {
      this.#push({
        key,
        modRevision: this.revision,
        index: this.events.length,
        createRevision: 0,
        version: 0,
        value: null,
        lease: '0',
      });
    }
    return victims;
  }

  end(): void {
    if (this.events.length > 0) this.#mvcc.seal(this.events);
  }

  #push(event: Version): void {
    this.#mvcc.add(event);
    this.events.push(event);
  }
}

/** Index of the last version at or below `revision`, or -1. */
function indexAt(versions: readonly Version[], revision: number): number {
  let low = 0;
  let high = versions.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (versions[middle]!.modRevision <= revision) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function eventBytes(event: Version): number {
  return 64 + event.key.length + (event.value?.length ?? 0);
}
