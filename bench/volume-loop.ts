// SPDX-License-Identifier: Apache-2.0
// ClosedLoop: so many 4 KiB requests at random places of an open volume, each followed by the next when it is done.

import { readdirSync, readFileSync } from 'node:fs';
import type { Volume } from '../src/cluster.js';
import type { Engine } from '../src/engine/engine.js';
import { systemClock } from '../src/env/clock.js';

const blockBytes = 4096;
const fillBytes = 2 ** 20;

export interface Run {
  readonly mean_iops: number;
  readonly p50_us: number;
  readonly p99_us: number;
  readonly client_cpu_us_per_io: number;
  readonly server_cpu_us_per_io: number;
}

export type LoopedVolume = Pick<Volume, 'sizeBytes' | 'readInto' | 'write'>;

/** The time on the processor of all its threads, in nanoseconds, is the first field of each thread's schedstat. */
export function cpuUsOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const ofThread = (thread: string): string => readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8');
  return threads.reduce((sum, thread) => sum + Number(ofThread(thread).split(' ')[0]), 0) / 1000;
}

export class ClosedLoop {
  readonly #volume: LoopedVolume;
  readonly #engine: Pick<Engine, 'allocate'>;
  readonly #serverPids: readonly number[];
  #state = 0x9e3779b9;

  /** `serverPids`: whose CPU time is told. */
  constructor(volume: LoopedVolume, engine: Pick<Engine, 'allocate'>, serverPids: readonly number[]) {
    this.#volume = volume;
    this.#engine = engine;
    this.#serverPids = serverPids;
  }

  /** So that reads find data, and no write is the first of its block. */
  async fill(): Promise<void> {
    const buffer = new Uint8Array(this.#engine.allocate(fillBytes)).fill(0xa5);
    for (let at = 0; at < this.#volume.sizeBytes; at += fillBytes) await this.#volume.write(at, buffer);
  }

  async run(load: { operation: 'read' | 'write'; depth: number; milliseconds: number }): Promise<Run> {
    const serversUs = this.#serversCpuUs();
    const own = process.cpuUsage();
    const latenciesMs: number[] = [];
    const startMs = systemClock.now();
    const endMs = startMs + load.milliseconds;
    const one = async (): Promise<void> => {
      const buffer = new Uint8Array(this.#engine.allocate(blockBytes));
      for (let now = systemClock.now(); now < endMs; ) {
        const at = this.#place();
        await (load.operation === 'read' ? this.#volume.readInto(at, buffer) : this.#volume.write(at, buffer));
        const done = systemClock.now();
        latenciesMs.push(done - now);
        now = done;
      }
    };
    await Promise.all(Array.from({ length: load.depth }, one));
    const elapsedMs = systemClock.now() - startMs;
    const { user, system } = process.cpuUsage(own);
    latenciesMs.sort((a, b) => a - b);
    const at = (part: number): number => 1000 * (latenciesMs[Math.floor(latenciesMs.length * part)] ?? Number.NaN);
    return {
      mean_iops: latenciesMs.length / (elapsedMs / 1000),
      p50_us: at(0.5),
      p99_us: at(0.99),
      client_cpu_us_per_io: (user + system) / latenciesMs.length,
      server_cpu_us_per_io: (this.#serversCpuUs() - serversUs) / latenciesMs.length,
    };
  }

  #place(): number {
    // xorshift32 (G. Marsaglia, 2003)
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return ((this.#state >>> 0) % (this.#volume.sizeBytes / blockBytes)) * blockBytes;
  }

  #serversCpuUs(): number {
    return this.#serverPids.reduce((sum, pid) => sum + cpuUsOf(pid), 0);
  }
}
