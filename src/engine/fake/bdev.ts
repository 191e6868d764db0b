// SPDX-License-Identifier: Apache-2.0
//
// A bdev of the fake: block reads and writes that settle later, and who uses it.

import type { SparseBlocks } from './blocks.js';
import { anaInaccessible, IoStatus, unrecoveredReadError, writeFault } from './refusal.js';

export interface FakeIo {
  read(offsetBlocks: number, countBlocks: number): Promise<Uint8Array>;
  write(offsetBlocks: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
}

export interface FakeBdev extends FakeIo {
  readonly name: string;
  readonly product: string;
  readonly uuid: string;
  readonly blockBytes: number;
  numBlocks: number;
  readonly children: string[];
  claimedBy: string | null;
  readonly openedBy: string[];
  /** Ends what runs by itself. */
  close?(): void;
}

interface BdevShape {
  readonly name: string;
  readonly product: string;
  readonly uuid: string;
  readonly blockBytes: number;
  readonly numBlocks: number;
  readonly children?: string[];
}

export function makeBdev(shape: BdevShape, io: FakeIo): FakeBdev {
  return {
    ...shape,
    children: shape.children ?? [],
    claimedBy: null,
    openedBy: [],
    read: (offset, count) => io.read(offset, count),
    write: (offset, data) => io.write(offset, data),
    flush: () => io.flush(),
  };
}

/** The bdev's size is what `size` says, now and later: it follows what it stands on. */
export function followSize(bdev: FakeBdev, size: () => number): FakeBdev {
  Object.defineProperty(bdev, 'numBlocks', { get: size, enumerable: true });
  return bdev;
}

export function storedIo(blocks: SparseBlocks, step: () => Promise<void>, broken: () => boolean = () => false): FakeIo {
  return {
    async read(offset, count) {
      await step();
      if (broken()) throw unrecoveredReadError();
      return blocks.read(offset, count);
    },
    async write(offset, data) {
      await step();
      if (broken()) throw writeFault();
      blocks.write(offset, data);
    },
    async flush() {
      await step();
      if (broken()) throw writeFault();
    },
  };
}

export type FaultType = 'failure' | 'pending' | 'corrupt_data';

/** bdev_error_*: passes on, but for the faults that were asked for. */
export class FaultIo implements FakeIo {
  readonly #below: FakeIo;
  #fault: { types: readonly string[]; kind: FaultType; left: number } | null = null;
  readonly #waiting: (() => void)[] = [];

  constructor(below: FakeIo) {
    this.#below = below;
  }

  inject(types: readonly string[], kind: FaultType, count: number): void {
    this.#fault = { types, kind, left: count };
  }

  clear(): void {
    this.#fault = null;
    for (const go of this.#waiting.splice(0)) go();
  }

  async read(offset: number, count: number): Promise<Uint8Array> {
    const kind = await this.#hit('read');
    const data = await this.#below.read(offset, count);
    if (kind === 'corrupt_data') data[0] = (data[0] ?? 0) ^ 0xff;
    return data;
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    const kind = await this.#hit('write');
    const wrong = data.slice();
    if (kind === 'corrupt_data') wrong[0] = (wrong[0] ?? 0) ^ 0xff;
    await this.#below.write(offset, wrong);
  }

  async flush(): Promise<void> {
    await this.#hit('flush');
    await this.#below.flush();
  }

  async #hit(type: string): Promise<FaultType | null> {
    const fault = this.#fault;
    if (fault === null || fault.left === 0 || !fault.types.includes(type)) return null;
    fault.left -= 1;
    if (fault.kind === 'failure') throw type === 'read' ? unrecoveredReadError() : writeFault();
    if (fault.kind === 'pending') await new Promise<void>((go) => this.#waiting.push(go));
    return fault.kind;
  }
}

/** Strips over members, as the native raid0. */
export function raid0Io(members: readonly FakeIo[], stripBlocks: number, blockBytes: number): FakeIo {
  const place = (block: number): { member: FakeIo; at: number; run: number } => {
    const strip = Math.floor(block / stripBlocks);
    const within = block % stripBlocks;
    const member = members[strip % members.length] as FakeIo;
    return { member, at: Math.floor(strip / members.length) * stripBlocks + within, run: stripBlocks - within };
  };
  return {
    async read(offset, count) {
      const out = new Uint8Array(count * blockBytes);
      for (let done = 0; done < count; ) {
        const { member, at, run } = place(offset + done);
        const take = Math.min(run, count - done);
        out.set(await member.read(at, take), done * blockBytes);
        done += take;
      }
      return out;
    },
    async write(offset, data) {
      const count = data.length / blockBytes;
      for (let done = 0; done < count; ) {
        const { member, at, run } = place(offset + done);
        const take = Math.min(run, count - done);
        await member.write(at, data.subarray(done * blockBytes, (done + take) * blockBytes));
        done += take;
      }
    },
    async flush() {
      await Promise.all(members.map((member) => member.flush()));
    },
  };
}

/** A place whose backing comes and goes. */
export class SlotIo implements FakeIo {
  backing: FakeBdev | null = null;
  #running = 0;
  #held: (() => void)[] | null = null;
  #drained: (() => void)[] = [];

  read(offset: number, count: number): Promise<Uint8Array> {
    return this.#pass((below) => below.read(offset, count));
  }
  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#pass((below) => below.write(offset, data));
  }
  flush(): Promise<void> {
    return this.#pass((below) => below.flush());
  }

  async set(backing: FakeBdev | null): Promise<void> {
    this.#held ??= [];
    await this.#drain();
    this.backing = backing;
    this.resume();
  }

  /** Resolves when nothing is in flight; what comes meanwhile waits for resume(). */
  async quiesce(): Promise<void> {
    this.#held ??= [];
    await this.#drain();
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const go of held) go();
  }

  async #drain(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((done) => this.#drained.push(done));
  }

  async #pass<T>(run: (below: FakeIo) => Promise<T>): Promise<T> {
    while (this.#held !== null) await new Promise<void>((go) => this.#held?.push(go));
    if (this.backing === null) throw anaInaccessible();
    this.#running += 1;
    try {
      return await run(this.backing);
    } finally {
      this.#running -= 1;
      if (this.#running === 0) for (const done of this.#drained.splice(0)) done();
    }
  }
}

export function isIoStatus(error: unknown): error is IoStatus {
  return error instanceof IoStatus;
}
