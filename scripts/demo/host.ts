// SPDX-License-Identifier: Apache-2.0
//
// The host: the project's own NVMe/TCP initiator with a path to each controller, in this process. Requests that were
// not answered when a path went away are sent again on the other one by the initiator; nothing here retries.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import { systemClock } from '../../src/env/clock.js';
import type { VolumeView } from '../../src/model/api.js';

export const hostNqn = 'nqn.2026-01.io.basalt:host:demo';

const requestBytes = 64 * 1024;
const queueDepth = 32;

/** The longest time without a completion, from `mark()` on. */
class GapMeter {
  #last = systemClock.now();
  #longestMs = 0;
  mark(): void {
    this.#longestMs = 0;
    this.#last = systemClock.now();
  }
  completed(): void {
    const now = systemClock.now();
    this.#longestMs = Math.max(this.#longestMs, now - this.#last);
    this.#last = now;
  }
  get longestMs(): number {
    return this.#longestMs;
  }
}

export interface Throughput {
  readonly bytes: number;
  readonly requests: number;
  readonly ms: number;
}

export class DemoHost {
  readonly #engine: Engine;
  readonly #bdev: BdevHandle;
  readonly gap = new GapMeter();

  private constructor(engine: Engine, bdev: BdevHandle) {
    this.#engine = engine;
    this.#bdev = bdev;
  }

  static async connect(volume: VolumeView): Promise<DemoHost> {
    const engine = createNativeEngine();
    try {
      let names: string[] = [];
      for (const path of volume.paths) {
        if (path.address === null) throw new Error(`${path.node} does not say where hosts reach it`);
        const { traddr, trsvcid } = path.address;
        names = await engine.rpc('bdev_nvme_attach_controller', {
          name: 'demo',
          trtype: 'TCP',
          traddr,
          trsvcid: `${trsvcid}`,
          subnqn: volume.nqn,
          hostnqn: hostNqn,
          multipath: 'multipath',
          ctrlr_loss_timeout_sec: 60,
          reconnect_delay_sec: 1,
          keep_alive_ms: 1000,
        });
      }
      const [name] = names;
      if (name === undefined) throw new Error('the volume has no namespace');
      return new DemoHost(engine, await engine.openBdev(name));
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  /** Writes the whole file, `queueDepth` requests at a time. `progress` sees how many bytes were acknowledged. */
  async writeFile(path: string, bytes: number, progress: (acknowledged: number) => void): Promise<Throughput> {
    const file = openSync(path, 'r');
    try {
      let acknowledged = 0;
      return await this.#inParallel(bytes, async (buffer, offset, length) => {
        buffer.fill(0);
        const got = readSync(file, buffer, 0, Math.min(length, bytes - offset), offset);
        await this.#bdev.write(offset, buffer.subarray(0, length));
        acknowledged += got;
        this.gap.completed();
        progress(acknowledged);
      });
    } finally {
      closeSync(file);
    }
  }

  /** Reads `bytes` into a file and returns their SHA-256. */
  async readToFile(path: string, bytes: number): Promise<{ sha256: string; throughput: Throughput }> {
    const file = openSync(path, 'w+');
    try {
      const throughput = await this.#inParallel(bytes, async (buffer, offset, length) => {
        await this.#bdev.read(offset, buffer.subarray(0, length));
        writeSync(file, buffer, 0, Math.min(length, bytes - offset), offset);
      });
      const hash = createHash('sha256');
      const chunk = Buffer.alloc(4 * 1024 * 1024);
      for (let offset = 0; offset < bytes; offset += chunk.length) {
        hash.update(chunk.subarray(0, readSync(file, chunk, 0, Math.min(chunk.length, bytes - offset), offset)));
      }
      return { sha256: hash.digest('hex'), throughput };
    } finally {
      closeSync(file);
    }
  }

  flush(): Promise<void> {
    return this.#bdev.flush();
  }

  async close(): Promise<void> {
    await this.#bdev.close();
    await this.#engine.close();
  }

  async #inParallel(
    bytes: number,
    request: (buffer: Buffer, offset: number, length: number) => Promise<void>,
  ): Promise<Throughput> {
    const block = this.#bdev.info.blockSizeBytes;
    const end = Math.ceil(bytes / block) * block;
    const started = systemClock.now();
    let next = 0;
    let requests = 0;
    const worker = async (): Promise<void> => {
      const buffer = Buffer.from(this.#engine.allocate(requestBytes));
      while (next < end) {
        const offset = next;
        const length = Math.min(requestBytes, end - offset);
        next += length;
        await request(buffer, offset, length);
        requests++;
      }
    };
    await Promise.all(Array.from({ length: queueDepth }, worker));
    return { bytes, requests, ms: systemClock.now() - started };
  }
}
