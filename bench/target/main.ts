// SPDX-License-Identifier: Apache-2.0
// The NVMe/TCP target on loopback: engined on one core, the project's own initiator on another, and between its runs
// the same bytes through bare sockets (basalt_floor), A B A B, so that both met the same machine. With --peer spdk SPDK's
// target takes its turn too, with the same initiator; it is stopped while the others run, because it polls.

import { mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attachEngine } from '../src/engine/attached/attached-engine.js';
import { packageRoot } from '../src/engine/native/addon.js';
import type { BenchOptions } from './main.js';
import { runForJson, Server } from './programs.js';
import { type Figure, median, rounded } from './report.js';
import { type SpdkPeer, startSpdkPeer } from './spdk-peer.js';

const depths = [1, 32, 128];
const operations = ['read', 'write'] as const;
const pairsPerFigure = 4;
const diskBytes = 256 * 1024 * 1024;
const [serverCore, clientCore] = [0, 1];

interface Run {
  readonly speed_iops: number;
  readonly mean_iops: number;
  readonly p50_us: number;
  readonly p99_us: number;
  readonly client_cpu_us_per_io: number;
  readonly server_cpu_us_per_io: number;
}

interface Case {
  readonly bdev: 'malloc' | 'file';
  readonly operation: (typeof operations)[number];
  readonly depth: number;
}

const nqnOf = (bdev: string): string => `nqn.2024-01.io.basalt:bench-${bdev}`;
const nameOf = (at: Case): string => `target/${at.bdev}/rand${at.operation}/4k/qd${at.depth}`;

export async function benchTarget(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const cases = (['malloc', 'file'] as const)
    .flatMap((bdev) => operations.flatMap((operation) => depths.map((depth): Case => ({ bdev, operation, depth }))))
    .filter((at) => nameOf(at).includes(options.only));
  const folder = join(packageRoot(), '.cache', 'bench');
  await mkdir(folder, { recursive: true });
  const image = join(folder, `target-${process.pid}.img`);
  const peerImage = join(folder, `peer-${process.pid}.img`);
  const servers: Server[] = [];
  let peer: SpdkPeer | null = null;
  try {
    const [floor, floorPort] = await Server.start(serverCore, 'basalt_floor', ['serve']);
    servers.push(floor);
    const rpcPath = join(tmpdir(), `basalt-bench-${process.pid}.sock`);
    const [engined] = await Server.start(serverCore, 'engined', ['--rpc', `unix:${rpcPath}`]);
    servers.push(engined);
    const port = await serve(rpcPath, image);
    const bdevs = new Set(cases.map((at) => at.bdev));
    for (const bdev of bdevs) await fill(bdev, port, signal);
    if (options.peer !== null) {
      await writeFile(peerImage, '');
      await truncate(peerImage, diskBytes);
      peer = await startSpdkPeer({ core: serverCore, bytes: diskBytes, image: peerImage, nqnOf });
      process.stderr.write(`peer: ${peer.version}\n`);
      for (const bdev of bdevs) await fill(bdev, peer.port, signal);
      peer.server.pause();
    }
    for (const at of cases) {
      report(await measure(at, options, { floor, floorPort, engined, port, peer }, signal));
    }
  } finally {
    await peer?.stop();
    await rm(peerImage, { force: true });
    for (const server of servers) await server.stop();
    await rm(image, { force: true });
  }
}

/** Gives the port where both bdevs are served, each by a subsystem of its own. */
async function serve(rpcPath: string, image: string): Promise<string> {
  const engine = await attachEngine({ rpcPath });
  await engine.rpc('bdev_malloc_create', { name: 'malloc', num_blocks: diskBytes / 4096, block_size: 4096 });
  await engine.rpc('bdev_aio_create', { name: 'file', filename: image, block_size: 4096, create_bytes: diskBytes });
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  let port = '0';
  for (const bdev of ['malloc', 'file']) {
    const nqn = nqnOf(bdev);
    await engine.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
    await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
    const address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: port } as const;
    const added = await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: address });
    port = added.trsvcid;
  }
  await engine.close();
  return port;
}

async function fill(bdev: string, port: string, signal: AbortSignal): Promise<void> {
  const args = ['--port', port, '--nqn', nqnOf(bdev), '--fill', '1', '--milliseconds', '0'];
  await runForJson(clientCore, 'basalt_perf', args, signal);
}

interface Serving {
  readonly floor: Server;
  readonly floorPort: string;
  readonly engined: Server;
  readonly port: string;
  readonly peer: SpdkPeer | null;
}

async function measure(at: Case, options: BenchOptions, serving: Serving, signal: AbortSignal): Promise<Figure> {
  const milliseconds = Math.max(50, Math.round((options.seconds * 1000) / (2 * pairsPerFigure)));
  const load = ['--op', at.operation, '--depth', String(at.depth), '--milliseconds', String(milliseconds)];
  const floorArgs = ['run', '--port', serving.floorPort, '--server-pid', String(serving.floor.pid), ...load];
  const perf = (server: Server, port: string): Promise<Run> => {
    const where = ['--port', port, '--nqn', nqnOf(at.bdev), '--server-pid', String(server.pid)];
    return runForJson<Run>(clientCore, 'basalt_perf', [...where, ...load], signal);
  };
  const floors: Run[] = [];
  const targets: Run[] = [];
  const peers: Run[] = [];
  for (let pair = 0; pair < pairsPerFigure; pair += 1) {
    floors.push(await runForJson<Run>(clientCore, 'basalt_floor', floorArgs, signal));
    targets.push(await perf(serving.engined, serving.port));
    if (serving.peer === null) continue;
    const { server, port } = serving.peer;
    server.resume();
    peers.push(await perf(server, port));
    server.pause();
  }
  const middle = (runs: readonly Run[], field: keyof Run): number => rounded(median(runs.map((run) => run[field])));
  return {
    name: nameOf(at),
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
    ...(peers.length === 0
      ? {}
      : {
          peer_iops: middle(peers, 'speed_iops'),
          peer_ratio: pairedRatio(targets, peers),
          peer_p50_us: middle(peers, 'p50_us'),
          peer_p99_us: middle(peers, 'p99_us'),
          peer_cpu_us_per_io: middle(peers, 'server_cpu_us_per_io'),
        }),
  };
}

/** Of the pairs in which neither side was kept from the processor all along; null when there is none. */
function pairedRatio(targets: readonly Run[], floors: readonly Run[]): number | null {
  const ratios = targets.map((run, i) => run.speed_iops / (floors[i]?.speed_iops ?? 0));
  const usable = ratios.filter((ratio) => Number.isFinite(ratio) && ratio > 0);
  return usable.length === 0 ? null : rounded(median(usable), 3);
}
