// SPDX-License-Identifier: Apache-2.0
// A growing log of lines out of a byte stream, with waits for a line. Pure: bytes in, lines out; no sockets here.
// A wait looks at the lines that are already there first, so there is no race between a fast guest and a slow test.
// Invariants:  - lines carry no line ends; a carriage return before a line end is dropped (serial consoles add it)
//              - after close() every pending and later wait rejects, unless the line is already in the log

import { LabError } from './errors.js';

export interface WaitOptions {
  /** @default 60_000 */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

interface Waiter {
  readonly match: (line: string) => RegExpExecArray | null;
  readonly resolve: (found: RegExpExecArray) => void;
  readonly reject: (error: Error) => void;
}

export class LineLog {
  private readonly lines_: string[] = [];
  private readonly decoder_ = new TextDecoder('utf-8');
  private readonly waiters_ = new Set<Waiter>();
  private readonly arrivals_ = new Set<() => void>();
  private partial_ = '';
  private closed_: Error | null = null;

  /** Complete lines so far. */
  get lines(): readonly string[] {
    return this.lines_;
  }

  /** Everything so far, the unfinished last line included. */
  get text(): string {
    return [...this.lines_, ...(this.partial_ === '' ? [] : [this.partial_])].join('\n');
  }

  push(bytes: Uint8Array): void {
    const pieces = (this.partial_ + this.decoder_.decode(bytes, { stream: true })).split('\n');
    this.partial_ = pieces.pop() ?? '';
    for (const piece of pieces) {
      this.append(piece.replace(/\r+$/, ''));
    }
  }

  /** Ends the log; the unfinished last line becomes a line. `reason` is what waits reject with. */
  close(reason: Error): void {
    if (this.closed_ !== null) {
      return;
    }
    if (this.partial_ !== '') {
      const last = this.partial_.replace(/\r+$/, '');
      this.partial_ = '';
      this.append(last);
    }
    this.closed_ = reason;
    for (const waiter of [...this.waiters_]) {
      waiter.reject(reason);
    }
    this.wakeFollowers();
  }

  /** The first line that matches, past or future. @throws {LabError} LAB_WAIT_DEADLINE, LAB_ABORTED, or the close reason */
  waitFor(pattern: RegExp, options: WaitOptions = {}): Promise<RegExpExecArray> {
    // A global or sticky pattern would remember its position between lines.
    const plain = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
    for (const line of this.lines_) {
      const found = plain.exec(line);
      if (found !== null) {
        return Promise.resolve(found);
      }
    }
    if (this.closed_ !== null) {
      return Promise.reject(this.closed_);
    }
    return this.waitForNext(plain, options);
  }

  /** All lines in order, from the first one, until the log is closed. */
  async *follow(): AsyncGenerator<string, void, undefined> {
    for (let index = 0; ; ) {
      const line = this.lines_[index];
      if (line !== undefined) {
        index += 1;
        yield line;
      } else if (this.closed_ !== null) {
        return;
      } else {
        await new Promise<void>((resolve) => this.arrivals_.add(resolve));
      }
    }
  }

  private waitForNext(pattern: RegExp, options: WaitOptions): Promise<RegExpExecArray> {
    const timeoutMs = options.timeoutMs ?? 60_000;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', aborted);
        this.waiters_.delete(waiter);
      };
      const waiter: Waiter = {
        match: (line) => pattern.exec(line),
        resolve: (found) => {
          settle();
          resolve(found);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      };
      const aborted = (): void => waiter.reject(new LabError('LAB_ABORTED', `while waiting for ${pattern}`));
      const timer = setTimeout(() => {
        waiter.reject(
          new LabError(
            'LAB_WAIT_DEADLINE',
            `no line ${pattern} within ${timeoutMs} ms; the log ends with\n${this.tail(40)}`,
          ),
        );
      }, timeoutMs);
      this.waiters_.add(waiter);
      options.signal?.addEventListener('abort', aborted, { once: true });
      if (options.signal?.aborted === true) {
        aborted();
      }
    });
  }

  /** The last `count` lines as one text. */
  tail(count: number): string {
    return this.text.split('\n').slice(-count).join('\n');
  }

  private append(line: string): void {
    this.lines_.push(line);
    for (const waiter of [...this.waiters_]) {
      const found = waiter.match(line);
      if (found !== null) {
        waiter.resolve(found);
      }
    }
    this.wakeFollowers();
  }

  private wakeFollowers(): void {
    const waking = [...this.arrivals_];
    this.arrivals_.clear();
    for (const wake of waking) {
      wake();
    }
  }
}
