// SPDX-License-Identifier: Apache-2.0
// A volume of two copies, its daemons separate processes on loopback: 4 KiB requests through the gateway (a host, the
// active controller, two disk nodes) and with the controller in the client (a TypeScript program, two disk nodes).
// Between the runs the same bytes over the same hops through bare sockets (basalt_floor), A B A B. `client-tls`: the same
// as `client` with nodes that speak TLS; its floor does not.
//
// Nothing is pinned: there are more daemons than cores. CPU is that of all daemons; the client's is told apart.

import { constants } from 'node:fs';
import { access, mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DemoCluster } from '../scripts/demo/cluster.js';
import { NodeKeyFile } from '../src/agents/node-key-file.js';
import { Cluster, type Volume } from '../src/cluster.js';
import { systemClock } from '../src/env/clock.js';
import { systemRandom } from '../src/env/random.js';
import type { VolumeView } from '../src/model/api.js';
import type { BenchOptions } from './main.js';
import { runForJson, Server } from './programs.js';
import { type Figure, median, rounded } from './report.js';
import { ClosedLoop, type Run } from './volume-loop.js';

const MiB = 2 ** 20;
const sizeBytes = 256 * MiB;
const diskBytes = 1024 * MiB;
const depths = [1, 32, 128];
const operations = ['read', 'write'] as const;
const pairsPerFigure = 4;
/** Of basalt_perf. */
const host = 'nqn.2024-01.io.basalt:bench';

interface Load {
  readonly operation: (typeof operations)[number];
  readonly depth: number;
  readonly milliseconds: number;
}

/** One way to the volume, and the same hops without anything above the sockets. */
interface Way {
  readonly name: 'gateway' | 'client' | 'client-tls';
  readonly measured: (load: Load) => Promise<Run>;
  readonly floor: (load: Load) => Promise<Run>;
}

export async function benchVolume(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const measure = (way: Way) => measureWay(way, options, report, signal);
  const isAsked = (name: Way['name']) => rowsOf(name).some((row) => row.name.includes(options.only));
  if (isAsked('gateway') || isAsked('client'))
    await onCluster([], async ({ cluster, floors }) => {
      if (isAsked('gateway')) await measure(await throughGateway(cluster, floors, signal));
      if (isAsked('client')) await inClient({ cluster, floors, name: 'client' }, measure, signal);
    });
  if (!isAsked('client-tls')) return;
  const keys = await mkdtemp('/var/tmp/basalt-bench-key-');
  try {
    const nodeKey = join(keys, 'node.key');
    await new NodeKeyFile(nodeKey, systemRandom).create();
    await onCluster(['--secure', '--node-key-file', nodeKey], ({ cluster, floors }) =>
      inClient({ cluster, floors, name: 'client-tls', nodeKey }, measure, signal),
    );
  } finally {
    await rm(keys, { recursive: true, force: true });
  }
}

async function onCluster(
  nodeArguments: readonly string[],
  use: (on: { cluster: DemoCluster; floors: Server[] }) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(await placeOfDisks(), 'basalt-bench-'));
  process.stderr.write(`disks: files in ${folder}\n`);
  const cluster = await DemoCluster.plan({ folder, diskBytes, nodeArguments });
  const floors: Server[] = [];
  try {
    await cluster.start();
    await use({ cluster, floors });
  } finally {
    for (const server of floors) await server.stop();
    await cluster.killAll();
    await rm(folder, { recursive: true, force: true });
  }
}

function rowsOf(way: Way['name']) {
  return operations.flatMap((operation) =>
    depths.map((depth) => ({ operation, depth, name: `volume/${way}/rand${operation}/4k/qd${depth}` })),
  );
}

/** Memory where its files take O_DIRECT, so that no disk is measured; otherwise /var/tmp. */
export async function placeOfDisks(): Promise<string> {
  const probe = `/dev/shm/basalt-bench-probe-${process.pid}`;
  try {
    await access('/dev/shm', constants.W_OK);
    const file = await open(probe, constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT);
    await file.close();
    return '/dev/shm';
  } catch {
    return '/var/tmp';
  } finally {
    await rm(probe, { force: true });
  }
}

async function createVolume(cluster: DemoCluster, name: string): Promise<void> {
  await cluster.api.createVolume({ name, sizeBytes, copies: 2, legs: 1 });
}

/** The servers of the floor: two that stand for the replicas; `relayed`: and one that stands for the gateway. */
async function startFloor(floors: Server[], relayed: boolean): Promise<{ ports: string; pids: string }> {
  const replicas = [
    await Server.start(null, 'basalt_floor', ['serve']),
    await Server.start(null, 'basalt_floor', ['serve']),
  ];
  let ports = replicas.map(([, port]) => port).join(',');
  const all = replicas.map(([server]) => server);
  if (relayed) {
    const [relay, port] = await Server.start(null, 'basalt_floor', ['relay', '--to', ports]);
    all.push(relay);
    ports = port;
  }
  floors.push(...all);
  return { ports, pids: all.map((server) => server.pid).join(',') };
}

const argumentsOf = (load: Load): string[] => [
  ...['--op', load.operation, '--depth', String(load.depth)],
  ...['--milliseconds', String(load.milliseconds)],
];

function floorRun(floor: { ports: string; pids: string }, signal: AbortSignal): Way['floor'] {
  const to = ['run', '--port', floor.ports, '--server-pid', floor.pids];
  return (load) => runForJson<Run>(null, 'basalt_floor', [...to, ...argumentsOf(load)], signal);
}

const pidsOf = (cluster: DemoCluster): number[] =>
  cluster.daemons.flatMap((daemon) => (daemon.pid === undefined ? [] : [daemon.pid]));

/** Of the path that serves. */
const portOf = (volume: VolumeView): string | undefined =>
  volume.paths.find((path) => path.state === 'active')?.address?.trsvcid;

async function throughGateway(cluster: DemoCluster, floors: Server[], signal: AbortSignal): Promise<Way> {
  await createVolume(cluster, 'gateway');
  await cluster.api.attach('gateway', { host });
  const served = (view: VolumeView) => view.health === 'redundant' && portOf(view) !== undefined;
  const volume = await cluster.waitForVolume('gateway', 'served', 60_000, served);
  const port = portOf(volume) ?? '';
  const to = ['--port', port, '--nqn', volume.nqn, '--server-pid', pidsOf(cluster).join(',')];
  await runForJson(null, 'basalt_perf', [...to, '--fill', '1', '--milliseconds', '1'], signal);
  return {
    name: 'gateway',
    measured: (load) => runForJson<Run>(null, 'basalt_perf', [...to, ...argumentsOf(load)], signal),
    floor: floorRun(await startFloor(floors, true), signal),
  };
}

async function inClient(
  at: { cluster: DemoCluster; floors: Server[]; name: Way['name']; nodeKey?: string },
  use: (way: Way) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { cluster, floors, name, nodeKey } = at;
  await createVolume(cluster, 'client');
  const client = await Cluster.connect({ api: cluster.api.endpoint, ...(nodeKey === undefined ? {} : { nodeKey }) });
  let volume: Volume | null = null;
  try {
    volume = await client.open('client', { takeover: true });
    const loop = new ClosedLoop(volume, client.engine, pidsOf(cluster));
    await loop.fill();
    const floor = floorRun(await startFloor(floors, false), signal);
    await use({ name, measured: (load) => loop.run(load), floor });
  } finally {
    await volume?.close();
    await client.close();
  }
}

async function measureWay(
  way: Way,
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const milliseconds = Math.max(50, Math.round((options.seconds * 1000) / (2 * pairsPerFigure)));
  for (const { name, operation, depth } of rowsOf(way.name)) {
    if (!name.includes(options.only)) continue;
    const load: Load = { operation, depth, milliseconds };
    const floors: Run[] = [];
    const runs: Run[] = [];
    for (let pair = 0; pair < pairsPerFigure; pair += 1) {
      signal.throwIfAborted();
      floors.push(await way.floor(load));
      runs.push(await way.measured(load));
    }
    report(figureOf(name, runs, floors));
    await systemClock.sleep(200, signal);
  }
}

function figureOf(name: string, runs: readonly Run[], floors: readonly Run[]): Figure {
  const middle = (of: readonly Run[], field: keyof Run): number => rounded(median(of.map((run) => run[field])));
  const ratios = runs.map((run, i) => run.mean_iops / (floors[i]?.mean_iops ?? Number.NaN));
  return {
    name,
    value: middle(runs, 'mean_iops'),
    unit: 'iops',
    floor: middle(floors, 'mean_iops'),
    ratio: rounded(median(ratios), 3),
    p50_us: middle(runs, 'p50_us'),
    cpu_us_per_io: middle(runs, 'server_cpu_us_per_io'),
    p99_us: middle(runs, 'p99_us'),
    client_cpu_us_per_io: middle(runs, 'client_cpu_us_per_io'),
    floor_p50_us: middle(floors, 'p50_us'),
    floor_cpu_us_per_io: middle(floors, 'server_cpu_us_per_io'),
  };
}
