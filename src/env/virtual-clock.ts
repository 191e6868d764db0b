// SPDX-License-Identifier: Apache-2.0
//
// Time that moves only when it is told to: one VirtualTime for a whole simulation, one VirtualClock for each of its
// processes, which can be paused, jump, and end.
//
// Invariants:  - timers fire in the order of their due times, and in the order of setting among equals, whatever clock
//                they belong to
//              - a paused clock fires nothing; what came due meanwhile fires after resume(), in order
//              - an ended clock never fires anything again

import { type Clock, sleepOn, type Timer } from './clock.js';

interface Entry {
  dueNs: number;
  readonly sequence: number;
  readonly clock: VirtualClock;
  /** Null: cancelled, or fired. */
  fn: (() => void) | null;
}

const nsPerMs = 1e6;

export class VirtualTime {
  readonly #heap: Entry[] = [];
  #nowNs: number;
  #sequence = 0;

  constructor(startNs: number) {
    this.#nowNs = startNs;
  }

  get nowNs(): number {
    return this.#nowNs;
  }

  clock(): VirtualClock {
    return new VirtualClock(this);
  }

  /** Never back. Nothing fires here. */
  advanceTo(nowNs: number): void {
    this.#nowNs = Math.max(this.#nowNs, nowNs);
  }

  /** When the next timer is due; null: none is set. */
  nextNs(): number | null {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined) return null;
      if (first.fn !== null && !first.clock.holds(first)) return first.dueNs;
      this.#pop();
    }
  }

  /** Fires the first timer that is due. False: none is. */
  fireOne(): boolean {
    const dueNs = this.nextNs();
    if (dueNs === null || dueNs > this.#nowNs) return false;
    const { fn } = this.#pop() as Entry;
    fn?.();
    return true;
  }

  add(clock: VirtualClock, dueNs: number, fn: () => void): Entry {
    const entry = { dueNs, sequence: this.#sequence++, clock, fn };
    this.push(entry);
    return entry;
  }

  push(entry: Entry): void {
    const heap = this.#heap;
    heap.push(entry);
    for (let at = heap.length - 1; at > 0; ) {
      const up = (at - 1) >> 1;
      if (!this.#before(at, up)) break;
      this.#swap(at, up);
      at = up;
    }
  }

  #pop(): Entry | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    heap[0] = last;
    for (let at = 0; ; ) {
      let least = at;
      for (const down of [2 * at + 1, 2 * at + 2]) {
        if (down < heap.length && this.#before(down, least)) least = down;
      }
      if (least === at) return first;
      this.#swap(at, least);
      at = least;
    }
  }

  #before(one: number, other: number): boolean {
    const [a, b] = [this.#heap[one] as Entry, this.#heap[other] as Entry];
    return a.dueNs !== b.dueNs ? a.dueNs < b.dueNs : a.sequence < b.sequence;
  }

  #swap(one: number, other: number): void {
    const heap = this.#heap;
    [heap[one], heap[other]] = [heap[other] as Entry, heap[one] as Entry];
  }
}

export class VirtualClock implements Clock {
  readonly #time: VirtualTime;
  #held: Entry[] | null = null;
  #ended = false;
  #wallOffsetMs = Date.UTC(2026, 0, 1);

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  now(): number {
    return this.#time.nowNs / nsPerMs;
  }

  wallMs(): number {
    return this.now() + this.#wallOffsetMs;
  }

  setTimer(delayMs: number, fn: () => void): Timer {
    const entry = this.#time.add(this, this.#time.nowNs + Math.round(Math.max(0, delayMs) * nsPerMs), fn);
    return {
      cancel: () => {
        entry.fn = null;
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, delayMs, signal);
  }

  /** Somebody sets the machine's date. */
  jumpWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** As SIGSTOP. */
  pause(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const entry of held) this.#time.push(entry);
  }

  /** The process is gone: what it waited for never comes. */
  end(): void {
    this.#ended = true;
    this.#held = null;
  }

  /** For VirtualTime: whether a timer that comes up must not fire now. */
  holds(entry: Entry): boolean {
    if (this.#ended) return true;
    if (this.#held === null || entry.dueNs > this.#time.nowNs) return false;
    this.#held.push(entry);
    return true;
  }
}

/** Resolves when every promise that could be settled is, and all that follows from it is done. */
export function quiet(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
