// SPDX-License-Identifier: Apache-2.0
//
// A host of a simulated cluster: the native NVMe/TCP initiator with a path to every controller of one volume, and
// clients that write and read stamped blocks through it.

import type { BdevHandle, Engine } from '../engine/engine.js';
import type { SeededRandom } from '../env/seeded-random.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { Address } from '../model/objects.js';
import type { History } from './history.js';
import { type BlockValue, blockBytes, readStamp, type Stamp, writeStamp } from './stamp.js';

export interface SimHostOptions {
  readonly name: string;
  readonly engine: Engine;
  readonly clock: VirtualClock;
  readonly history: History;
  readonly nowNs: () => number;
  readonly onOp: (text: string) => void;
}

export interface WorkloadMix {
  /** Per host; they read, too. */
  readonly writers: number;
  /** Per host: clients that only read, so that a write that waits does not keep them. */
  readonly readers: number;
  readonly readChance: number;
  readonly flushChance: number;
  readonly blocksMax: number;
  readonly thinkMaxMs: number;
  /** Of each client: it writes no others, so that blocks are written again and again. */
  readonly blocksOwn: number;
}

/** What of the workload is left out. */
export interface ClientLimits {
  /** Only these clients, by their numbers from 1 over all hosts: each host's writers, then its readers. */
  readonly clients?: readonly number[];
  /** Of each client. */
  readonly opsMax?: number;
}

interface Client {
  /** As histories name it. */
  readonly client: number;
  /** Of its own blocks; null: it only reads. */
  readonly slot: number | null;
  readonly writers: number;
  readonly opsMax: number;
}

const attachRetryMs = 100;
/** Readers take their time: each block that a waiting write holds keeps one of them. */
const readerPatience = 4;

export class SimHost {
  readonly #options: SimHostOptions;
  #handle: BdevHandle | null = null;
  #stopped = false;

  constructor(options: SimHostOptions) {
    this.#options = options;
  }

  static nqn(name: string): string {
    return `nqn.2026-01.io.basalt:host:${name}`;
  }

  get name(): string {
    return this.#options.name;
  }

  get connected(): boolean {
    return this.#handle !== null;
  }

  /** Tries every path until it stands. */
  connect(subnqn: string, paths: readonly Address[]): Promise<void> {
    return this.#connectAs(SimHost.nqn(this.name), subnqn, paths);
  }

  async #connectAs(hostnqn: string, subnqn: string, paths: readonly Address[]): Promise<void> {
    const { engine, clock, name } = this.#options;
    let bdev: string | null = null;
    for (const path of paths) {
      for (;;) {
        try {
          const controller = { name, subnqn, hostnqn, multipath: 'multipath' } as const;
          const timing = { ctrlr_loss_timeout_sec: 3600, keep_alive_ms: 500 };
          const names = await engine.rpc('bdev_nvme_attach_controller', {
            ...controller,
            ...timing,
            trtype: 'TCP',
            ...path,
          });
          bdev ??= names[0] ?? null;
          break;
        } catch {
          await clock.sleep(attachRetryMs);
        }
      }
    }
    if (bdev === null) throw new Error('the volume has no namespace');
    this.#handle = await engine.openBdev(bdev);
  }

  get countBlocks(): number {
    return (this.#handle?.info.sizeBytes ?? 0) / blockBytes;
  }

  /** The `index`-th host of `count`. Each writer writes blocks of its own; everybody reads any. Ends after stop(). */
  start(mix: WorkloadMix, random: SeededRandom, at: ClientLimits & { index: number; count: number }): void {
    const writers = mix.writers * at.count;
    const { opsMax = Number.POSITIVE_INFINITY, clients } = at;
    const first = at.index * (mix.writers + mix.readers);
    for (let nth = 0; nth < mix.writers + mix.readers; nth++) {
      // Every client draws from a stream of its own: leaving one out leaves the others as they are.
      const own = random.fork();
      if (clients !== undefined && !clients.includes(first + nth + 1)) continue;
      const slot = nth < mix.writers ? at.index * mix.writers + nth : null;
      const client = slot === null ? 1000 * (at.index + 1) + nth - mix.writers : slot + 1;
      void this.#work(mix, own, { client, slot, writers, opsMax });
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  /** What every block of another volume holds, once for every pass; before that, `stamps` are written there. */
  async readOther(
    subnqn: string,
    paths: readonly Address[],
    { passes, stamps = [] }: { readonly passes: number; readonly stamps?: readonly Stamp[] },
  ): Promise<BlockValue[][]> {
    const { engine, name } = this.#options;
    const other = new SimHost({ ...this.#options, name: `${name}-${subnqn.slice(-12)}` });
    await other.#connectAs(SimHost.nqn(name), subnqn, paths);
    const handle = other.#handle;
    if (handle === null) throw new Error('not connected');
    const block = Buffer.alloc(blockBytes);
    for (const stamp of stamps) {
      writeStamp(block, stamp);
      await handle.write(stamp.lba * blockBytes, block);
    }
    const seen: BlockValue[][] = [];
    const data = Buffer.alloc(16 * blockBytes);
    for (let pass = 0; pass < passes; pass++) {
      const values: BlockValue[] = [];
      for (let lba = 0; lba < other.countBlocks; lba += 16) {
        await handle.read(lba * blockBytes, data);
        for (let at = 0; at < data.length; at += blockBytes) values.push(readStamp(data.subarray(at, at + blockBytes)));
      }
      seen.push(values);
    }
    await handle.close();
    await engine.rpc('bdev_nvme_detach_controller', { name: other.name });
    return seen;
  }

  /** Every block of the volume once. */
  async readEverything(client: number): Promise<void> {
    const step = 16;
    for (let lba = 0; lba < this.countBlocks; lba += step)
      await this.#read(client, lba, Math.min(step, this.countBlocks - lba));
  }

  async #work(mix: WorkloadMix, random: SeededRandom, who: Client): Promise<void> {
    // Its own blocks are one stretch, so that a write of several blocks has one writer.
    const stretch = Math.floor(this.countBlocks / who.writers);
    const share = Math.min(stretch, mix.blocksOwn);
    for (let ops = 0; ops < who.opsMax && !this.#stopped; ops++) {
      const blocks = random.between(1, mix.blocksMax);
      if (who.slot === null || random.chance(mix.readChance)) {
        const lba = random.between(0, who.writers - 1) * stretch + random.between(0, share - 1);
        await this.#read(who.client, lba, Math.min(blocks, this.countBlocks - lba));
      } else if (random.chance(mix.flushChance)) {
        await this.#flush(who.client);
      } else {
        const first = who.slot * stretch;
        await this.#write(who.client, first + random.between(0, Math.max(0, share - blocks)), Math.min(blocks, share));
      }
      await this.#options.clock.sleep(random.fraction() * mix.thinkMaxMs * (who.slot === null ? readerPatience : 1));
    }
  }

  async #write(client: number, lba: number, blocks: number): Promise<void> {
    const { history, nowNs } = this.#options;
    const op = history.beginWrite({ client, lba, blocks }, nowNs());
    const data = Buffer.alloc(blocks * blockBytes);
    for (let index = 0; index < blocks; index++) {
      const stamp = { volume: history.volume, lba: lba + index, writer: client, sequence: op.sequence };
      writeStamp(data.subarray(index * blockBytes, (index + 1) * blockBytes), stamp);
    }
    const ok = await this.#try((handle) => handle.write(lba * blockBytes, data));
    history.endWrite(op, ok, nowNs());
    this.#options.onOp(`client ${client} write ${lba}+${blocks} #${op.sequence}: ${ok ? 'ok' : 'info'}`);
  }

  async #read(client: number, lba: number, blocks: number): Promise<void> {
    const { history, nowNs } = this.#options;
    const op = history.beginRead({ client, lba, blocks }, nowNs());
    const data = Buffer.alloc(blocks * blockBytes, 0xee);
    const ok = await this.#try((handle) => handle.read(lba * blockBytes, data));
    const values = Array.from({ length: blocks }, (_, index) =>
      readStamp(data.subarray(index * blockBytes, (index + 1) * blockBytes)),
    );
    history.endRead(op, ok ? values : null, nowNs());
    const seen = values.map((value) => (typeof value === 'string' ? value : value.sequence)).join(' ');
    this.#options.onOp(`client ${client} read ${lba}+${blocks}: ${ok ? seen : 'info'}`);
  }

  async #flush(client: number): Promise<void> {
    const { history, nowNs } = this.#options;
    const invokedNs = nowNs();
    const ok = await this.#try((handle) => handle.flush());
    history.noteFlush({ client, invokedNs, ok }, nowNs());
  }

  async #try(act: (handle: BdevHandle) => Promise<void>): Promise<boolean> {
    if (this.#handle === null) throw new Error('not connected');
    try {
      await act(this.#handle);
      return true;
    } catch {
      return false;
    }
  }
}
