// SPDX-License-Identifier: Apache-2.0
// SPDK's bdevperf as a peer: it waits for tests on its RPC socket (-z), and runs its load on one bdev in its own process, on
// one core, without huge pages. It polls, so whoever measures something else meanwhile pauses it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { type AttachedEngine, attachEngine } from '../src/engine/attached/attached-engine.js';
import { isProgram, spdkProgram } from '../src/engine/spdk/testing/spdk-process.js';
import { systemClock } from '../src/env/clock.js';
import { cpuNs, Server, usableCores } from './programs.js';

export interface PeerLoad {
  /** bdevperf's own words: `read` and `write` are sequential. */
  readonly workload: 'read' | 'write' | 'randwrite';
  readonly depth: number;
  readonly bytes: number;
}

/** What bdevperf says of one job. */
export interface PeerResult {
  readonly iops: number;
  readonly seconds: number;
}

/** Requests that were answered, and the processor time of the process, at one instant. */
export interface Sample {
  readonly requests: number;
  readonly cpuNs: number;
}

/** bdevperf counts its time in whole seconds. */
export const peerSeconds = 1;
const startMsMax = 60_000;
const sampleMs = 2;

/**
 * The program that BASALT_SPDK_BDEVPERF names, bdevperf on the PATH, or where SPDK's build puts it beside spdk_tgt.
 * @throws {Error} that names all of these
 */
export function bdevperfProgram(
  env: NodeJS.ProcessEnv = process.env,
  target: string | null = spdkProgram,
  isThere: (path: string) => boolean = isProgram,
): string {
  const named = env['BASALT_SPDK_BDEVPERF'];
  if (named !== undefined) {
    if (!isThere(named)) throw new Error(`--peer spdk: BASALT_SPDK_BDEVPERF is ${named}, which is no program`);
    return named;
  }
  const beside = target === null ? [] : [join(dirname(dirname(target)), 'examples', 'bdevperf')];
  const paths = (env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'bdevperf'));
  const found = [...paths, ...beside].find(isThere);
  if (found !== undefined) return found;
  const where = target === null ? 'no BASALT_SPDK_TGT beside which it could be' : `nor as ${beside.join()}`;
  throw new Error(`--peer spdk: SPDK's bdevperf is missing (no BASALT_SPDK_BDEVPERF, none on the PATH, ${where})`);
}

/** Of the answer to `perform_tests`. @throws {Error} where not exactly one job ended without a failed request */
export function parseResult(answer: unknown): PeerResult {
  const { results } = (answer ?? {}) as { results?: Record<string, unknown>[] };
  const [job] = results ?? [];
  if (job === undefined || results?.length !== 1) throw new Error(`bdevperf: expected one job: ${text(answer)}`);
  const { status, iops, runtime, io_failed: failed, io_timeout: late } = job;
  if (status !== 'finished' || failed !== 0 || late !== 0) throw new Error(`bdevperf: requests failed: ${text(job)}`);
  if (typeof iops !== 'number' || typeof runtime !== 'number' || !(iops > 0) || !(runtime > 0))
    throw new Error(`bdevperf: did nothing: ${text(job)}`);
  return { iops, seconds: runtime };
}

const text = (what: unknown): string => JSON.stringify(what) ?? 'nothing';

/** Processor time of one request, from the first sample to the last one that is not past `requestsMax`. */
export function costUntil(samples: readonly Sample[], requestsMax: number): number {
  const [first] = samples;
  const last = samples.findLast(({ requests }) => requests <= requestsMax);
  if (first === undefined || last === undefined || last.requests === first.requests)
    throw new Error(`bdevperf: ${requestsMax} requests were over before they could be looked at`);
  return (last.cpuNs - first.cpuNs) / (last.requests - first.requests);
}

export class Bdevperf {
  readonly #server: Server;
  readonly #spdk: AttachedEngine;
  readonly #folder: string;
  readonly #bdev: string;

  private constructor(server: Server, spdk: AttachedEngine, folder: string, bdev: string) {
    this.#server = server;
    this.#spdk = spdk;
    this.#folder = folder;
    this.#bdev = bdev;
  }

  /** For a load on `bdev`, which may be made later. */
  static async start(core: number, bdev: string, memoryMib: number): Promise<Bdevperf> {
    const folder = await mkdtemp(join(tmpdir(), 'basalt-bench-bdevperf-'));
    const rpcPath = join(folder, 'spdk.sock');
    const cores = usableCores();
    const mask = `[${cores[core % cores.length] ?? 0}]`;
    const args = ['-z', '-T', bdev, '-m', mask, '--no-huge', '-s', `${memoryMib}`, '--no-pci', '-r', rpcPath];
    let server: Server | null = null;
    try {
      [server] = await Server.start(core, bdevperfProgram(), [...args, '--disable-cpumask-locks']);
      return new Bdevperf(server, await attached(rpcPath), folder, bdev);
    } catch (error) {
      await server?.stop();
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get version(): string {
    return this.#spdk.capabilities.version;
  }

  call(method: string, params: object): Promise<unknown> {
    return this.#spdk.call(method, params, { timeoutMs: 120_000 });
  }

  /** Processor time of one request, in nanoseconds. */
  async costNs(load: PeerLoad): Promise<number> {
    const [beganMs, beganNs] = [performance.now(), cpuNs(this.#server.pid)];
    const { iops } = await this.#perform(load);
    // It polls before and after the test as well: what counts is which share of the processor it got.
    const share = (cpuNs(this.#server.pid) - beganNs) / ((performance.now() - beganMs) * 1e6);
    return (share * 1e9) / iops;
  }

  /** The same of the first `requests` only: those after them are another kind of work. */
  async costOfFirstNs(load: PeerLoad, requests: number): Promise<number> {
    const samples = [await this.#sample()];
    const before = samples[0]?.requests ?? 0;
    let over = false;
    const ended = this.#perform(load).finally(() => (over = true));
    // A failure is seen where it is awaited.
    ended.catch(() => undefined);
    while (!over) {
      samples.push(await this.#sample());
      await systemClock.sleep(sampleMs);
    }
    await ended;
    return costUntil(samples, before + requests);
  }

  async #perform(load: PeerLoad): Promise<PeerResult> {
    const { workload: workload_type, depth: queue_depth, bytes } = load;
    const how = { workload_type, queue_depth, io_size: String(bytes), time_in_sec: peerSeconds };
    return parseResult(await this.call('perform_tests', how));
  }

  async #sample(): Promise<Sample> {
    const answer = (await this.call('bdev_get_iostat', { names: [this.#bdev] })) as {
      bdevs: { num_read_ops: number; num_write_ops: number }[];
    };
    const [seen] = answer.bdevs;
    return { requests: (seen?.num_read_ops ?? 0) + (seen?.num_write_ops ?? 0), cpuNs: cpuNs(this.#server.pid) };
  }

  pause(): void {
    this.#server.pause();
  }

  resume(): void {
    this.#server.resume();
  }

  async stop(): Promise<void> {
    this.#server.resume();
    await this.#spdk.close();
    await this.#server.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

async function attached(rpcPath: string): Promise<AttachedEngine> {
  const until = systemClock.now() + startMsMax;
  for (;;) {
    try {
      const spdk = await attachEngine({ rpcPath });
      // Methods that work come with the end of its initialization.
      if (spdk.capabilities.methods.has('perform_tests') && spdk.capabilities.methods.has('bdev_get_bdevs'))
        return spdk;
      await spdk.close();
    } catch (error) {
      if (systemClock.now() > until) throw error;
    }
    if (systemClock.now() > until) throw new Error(`bdevperf did not serve ${rpcPath} within ${startMsMax} ms`);
    await systemClock.sleep(100);
  }
}
