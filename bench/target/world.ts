// SPDX-License-Identifier: Apache-2.0
// What the rows of the target's benchmark share: engined and the floor's server on one core, loads on another (with one
// core, nothing is pinned), and what a run says of itself.

import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AttachedEngine, attachEngine } from '../../src/engine/attached/attached-engine.js';
import { systemClock } from '../../src/env/clock.js';
import type { BenchOptions } from '../main.js';
import { cpuNs, runForJson, Server } from '../programs.js';
import { type Figure, median, rounded } from '../report.js';
import type { SpdkPeer } from './spdk-peer.js';

export const diskBytes = 256 * 1024 * 1024;
export const [serverCore, clientCore] = [0, 1];
export const pairsPerFigure = 4;

export type Operation = 'read' | 'write';

export interface Run {
  readonly speed_iops: number;
  readonly mean_iops: number;
  readonly p50_us: number;
  readonly p99_us: number;
  readonly client_cpu_us_per_io: number;
  readonly server_cpu_us_per_io: number;
}

/** A closed loop, as basalt_perf and basalt_floor take it. */
export interface Load {
  readonly operation: Operation;
  /** Over all connections. */
  readonly depth: number;
  readonly bytes?: number;
  readonly connections?: number;
  readonly pauseMs?: number;
}

export interface World {
  readonly options: BenchOptions;
  readonly signal: AbortSignal;
  readonly floor: Server;
  readonly floorPort: string;
  readonly target: TargetServer;
  readonly peer: SpdkPeer | null;
}

/** One figure that `--only` may name. */
export interface Row {
  readonly name: string;
  measure(world: World): Promise<Figure>;
}

export const nqnOf = (bdev: string): string => `nqn.2024-01.io.basalt:bench-${bdev}`;

/** An engined that serves bdevs, each by a subsystem of its own, on one port. */
export class TargetServer {
  readonly server: Server;
  readonly port: string;
  readonly #engine: AttachedEngine;

  private constructor(server: Server, port: string, engine: AttachedEngine) {
    this.server = server;
    this.port = port;
    this.#engine = engine;
  }

  /** `image`: a file to be made for the bdev `file`; null: there is only `malloc`. */
  static async start(image: string | null): Promise<TargetServer> {
    const rpcPath = join(tmpdir(), `basalt-bench-${process.pid}-${count++}.sock`);
    const [server] = await Server.start(serverCore, 'engined', ['--rpc', `unix:${rpcPath}`]);
    const engine = await attachEngine({ rpcPath });
    await engine.rpc('bdev_malloc_create', { name: 'malloc', num_blocks: diskBytes / 4096, block_size: 4096 });
    const disk = { name: 'file', block_size: 4096, create_bytes: diskBytes };
    if (image !== null) await engine.rpc('bdev_aio_create', { ...disk, filename: image });
    await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
    let port = '0';
    for (const bdev of image === null ? ['malloc'] : ['malloc', 'file']) {
      const nqn = nqnOf(bdev);
      await engine.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
      await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
      const address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: port } as const;
      port = (await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: address })).trsvcid;
    }
    return new TargetServer(server, port, engine);
  }

  async setMode(mode: 'adaptive' | 'busy'): Promise<void> {
    await this.#engine.rpc('basalt_reactor_set_mode', { mode });
  }

  async stop(): Promise<void> {
    await this.#engine.close();
    await this.server.stop();
  }
}

let count = 0;

/** Of each of the runs of a figure, of which there are so many. */
export function runMs(world: World, runs = 2 * pairsPerFigure): number {
  return Math.max(50, Math.round((world.options.seconds * 1000) / runs));
}

function loadArguments(load: Load, milliseconds: number): string[] {
  const { operation, depth, bytes = 4096, pauseMs = 0 } = load;
  const all = { op: operation, depth, milliseconds, bytes, 'pause-ms': pauseMs };
  return Object.entries(all).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

export function runFloor(world: World, load: Load, milliseconds: number): Promise<Run> {
  const { floor, floorPort, signal } = world;
  const where = [
    '--port',
    floorPort,
    '--server-pid',
    String(floor.pid),
    '--connections',
    String(load.connections ?? 1),
  ];
  return runForJson(clientCore, 'basalt_floor', ['run', ...where, ...loadArguments(load, milliseconds)], signal);
}

export interface Aim {
  readonly server: Server;
  readonly port: string;
  readonly bdev: string;
  readonly digests?: boolean;
}

export function runPerf(world: World, aim: Aim, load: Load, milliseconds: number): Promise<Run> {
  return runForJson(clientCore, 'basalt_perf', perfArguments(aim, load, milliseconds), world.signal);
}

export function perfArguments(aim: Aim, load: Load, milliseconds: number): string[] {
  const where = ['--port', aim.port, '--nqn', nqnOf(aim.bdev), '--server-pid', String(aim.server.pid)];
  const how = ['--queues', String(load.connections ?? 1), '--digests', aim.digests === true ? '1' : '0'];
  return [...where, ...how, ...loadArguments(load, milliseconds)];
}

/** So that reads find data, and files have their blocks. */
export async function fill(bdev: string, port: string, signal: AbortSignal): Promise<void> {
  const args = ['--port', port, '--nqn', nqnOf(bdev), '--fill', '1', '--milliseconds', '0'];
  await runForJson(clientCore, 'basalt_perf', args, signal);
}

export function middle(runs: readonly Run[], field: keyof Run): number {
  return rounded(median(runs.map((run) => run[field])));
}

/** Of the pairs in which neither side was kept from the processor all along; null when there is none. */
export function pairedRatio(targets: readonly Run[], floors: readonly Run[], field: keyof Run = 'speed_iops') {
  const ratios = targets.map((run, i) => run[field] / (floors[i]?.[field] ?? 0));
  const usable = ratios.filter((ratio) => Number.isFinite(ratio) && ratio > 0);
  return usable.length === 0 ? null : rounded(median(usable), 3);
}

/** Runs that took turns, as a figure. */
export function compared(name: string, targets: readonly Run[], floors: readonly Run[]): Figure {
  return {
    name,
    value: middle(targets, 'speed_iops'),
    unit: 'iops',
    floor: middle(floors, 'speed_iops'),
    ratio: pairedRatio(targets, floors),
    p50_us: middle(targets, 'p50_us'),
    cpu_us_per_io: middle(targets, 'server_cpu_us_per_io'),
    mean_iops: middle(targets, 'mean_iops'),
    p99_us: middle(targets, 'p99_us'),
    client_cpu_us_per_io: middle(targets, 'client_cpu_us_per_io'),
    floor_p50_us: middle(floors, 'p50_us'),
    floor_cpu_us_per_io: middle(floors, 'server_cpu_us_per_io'),
  };
}

/** Percent of one core that all threads of a process take while `milliseconds` go by. */
export async function cpuPercent(pid: number, milliseconds: number, signal: AbortSignal): Promise<number> {
  const [beganMs, beganNs] = [systemClock.now(), cpuNs(pid)];
  await systemClock.sleep(milliseconds, signal);
  return (100 * (cpuNs(pid) - beganNs)) / ((systemClock.now() - beganMs) * 1e6);
}

/** What a process has in memory. */
export function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} does not say what it has in memory`);
  return Number(kib) * 1024;
}
