// SPDX-License-Identifier: Apache-2.0
// What several active controllers of a volume get done together (decision 020). One machine has too few cores to show it: what
// a request costs a controller is measured on a cluster of processes, as the only one and as one of two, and what one, two
// and four cores get done at those costs is simulated (cores.ts). Rows `measured` are of the processes as they ran here.
//
// Hosts are this program's: our own initiator, one engine for each. CPU is that of the controllers' processes, all threads.

import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { systemClock } from '../../src/env/clock.js';
import type { VolumeView } from '../../src/model/api.js';
import { TestHost } from '../../test/integration/running-cluster.js';
import type { BenchOptions } from '../main.js';
import { type Figure, median, rounded } from '../report.js';
import { placeOfDisks } from '../volume.js';
import { ClosedLoop, cpuUsOf, type Run } from '../volume-loop.js';
import { type Costs, simulateCores } from './cores.js';

const MiB = 2 ** 20;
const sizeBytes = 256 * MiB;
const diskBytes = 2048 * MiB;
const operations = ['read', 'write'] as const;
const controllers = ['controller-1', 'controller-2'];
const disks = ['disk-1', 'disk-2', 'disk-3'];
const copies = 2;
const depth = 32;
/** From a controller to a replica and back, beside the work that is done there: a network's, which is not measured here. */
const networkUs = 50;
const hostCounts = [1, 8];
const controllerCounts = [1, 2, 4];
const rounds = 4;
const requests = 200_000;
const hostnqn = (volume: string, index: number): string => `nqn.2026-01.io.basalt:host:${volume}:${index}`;

type Operation = (typeof operations)[number];

/** A volume, its hosts, and each host's load. */
interface Loaded {
  readonly hosts: readonly TestHost[];
  readonly loops: readonly ClosedLoop[];
}

export async function benchScaling(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const wanted = operations.filter((operation) => names(operation).some((name) => name.includes(options.only)));
  if (wanted.length === 0) return;
  const folder = await mkdtemp(join(await placeOfDisks(), 'basalt-bench-'));
  const cluster = await DemoCluster.plan({ folder, diskBytes });
  const hosts: TestHost[] = [];
  try {
    await cluster.start();
    const one = await load(cluster, 'one', 1);
    hosts.push(...one.hosts);
    const two = await load(cluster, 'two', 2);
    hosts.push(...two.hosts);
    for (const operation of wanted) {
      signal.throwIfAborted();
      const milliseconds = Math.max(100, Math.round((options.seconds * 1000) / rounds));
      const costs = await measure(cluster, { one, two }, { operation, milliseconds, report: only(options, report) });
      simulate(operation, costs, only(options, report));
    }
  } finally {
    for (const host of hosts) await host.close();
    await cluster.killAll();
    await rm(folder, { recursive: true, force: true });
  }
}

function only(options: BenchOptions, report: (figure: Figure) => void): (figure: Figure) => void {
  return (figure) => {
    if (figure.name.includes(options.only)) report(figure);
  };
}

const measuredName = (operation: Operation, active: number): string =>
  `cluster/scaling/rand${operation}/4k/measured/active-${active}`;
const simulatedName = (operation: Operation, hosts: number, count: number): string =>
  `cluster/scaling/rand${operation}/4k/hosts-${hosts}/active-${count}`;

function names(operation: Operation): string[] {
  const simulated = hostCounts.flatMap((hosts) => controllerCounts.map((at) => simulatedName(operation, hosts, at)));
  return [measuredName(operation, 1), measuredName(operation, 2), ...simulated];
}

/** A host for each front, or two of the one controller. */
async function load(cluster: DemoCluster, name: string, active: number): Promise<Loaded> {
  await cluster.api.createVolume({ name, sizeBytes, copies, legs: 4, active, controllers });
  for (const index of [0, 1]) await cluster.api.attach(name, { host: hostnqn(name, index) });
  const volume = await cluster.waitForVolume(name, 'served', 60_000, isServed);
  const hosts = await Promise.all([0, 1].map((at) => TestHost.connect(asSeen(volume, at), hostnqn(name, at))));
  const loops = hosts.map(({ bdev, engine }) => {
    const readInto = (at: number, into: Uint8Array): Promise<void> => bdev.read(at, into);
    const write = (at: number, from: Uint8Array): Promise<void> => bdev.write(at, from);
    return new ClosedLoop({ sizeBytes, readInto, write }, engine, []);
  });
  await loops[0]?.fill();
  return { hosts, loops };
}

/** Each front, or the volume, has a path that serves and one that would. */
function isServed({ health, paths, fronts }: VolumeView): boolean {
  const all = fronts?.map((front) => front.paths) ?? [paths];
  const states = all.map((each) => each.map(({ state }) => state).sort());
  return health === 'redundant' && states.every((each) => each.join(' ') === 'active standby');
}

function asSeen(volume: VolumeView, index: number): VolumeView {
  const front = volume.fronts?.[index];
  return front === undefined ? volume : { ...volume, nqn: front.nqn, paths: front.paths };
}

interface Spent {
  readonly runs: readonly Run[];
  /** By controller, for each request of the hosts that ran. */
  readonly cpuUs: readonly number[];
  /** Of all disk nodes together. */
  readonly disksUs: number;
}

async function spend(
  cluster: DemoCluster,
  loops: readonly ClosedLoop[],
  at: { operation: Operation; depth: number; milliseconds: number },
): Promise<Spent> {
  const cpuOf = (names: readonly string[]): number[] => names.map((name) => cpuUsOf(cluster.daemon(name).pid ?? 0));
  const [before, disksBefore] = [cpuOf(controllers), cpuOf(disks)];
  const beganMs = systemClock.now();
  const runs = await Promise.all(loops.map((loop) => loop.run(at)));
  const seconds = (systemClock.now() - beganMs) / 1000;
  const requests = runs.reduce((sum, { mean_iops }) => sum + mean_iops * seconds, 0);
  const spent = (now: number[], then: number[]): number[] =>
    now.map((us, index) => (us - (then[index] ?? 0)) / requests);
  const disksUs = spent(cpuOf(disks), disksBefore).reduce((sum, us) => sum + us, 0);
  return { runs, cpuUs: spent(cpuOf(controllers), before), disksUs };
}

const iopsOf = ({ runs }: Spent): number => runs.reduce((sum, { mean_iops }) => sum + mean_iops, 0);
const totalUs = ({ cpuUs }: Spent): number => cpuUs.reduce((sum, us) => sum + us, 0);

/** By turns, so that what the machine does meanwhile is everybody's. */
async function measure(
  cluster: DemoCluster,
  { one, two }: { one: Loaded; two: Loaded },
  { operation, milliseconds, report }: { operation: Operation; milliseconds: number; report: (figure: Figure) => void },
): Promise<Costs> {
  const at = { operation, depth, milliseconds };
  const alone: Spent[] = [];
  const both: Spent[] = [];
  const first: Spent[] = [];
  for (let round = 0; round < rounds; round += 1) {
    alone.push(await spend(cluster, one.loops, at));
    both.push(await spend(cluster, two.loops, at));
    first.push(await spend(cluster, two.loops.slice(0, 1), at));
  }
  const of = (spent: readonly Spent[], what: (each: Spent) => number): number => median(spent.map(what));
  for (const [active, spent] of [[1, alone] as const, [2, both] as const])
    report({
      name: measuredName(operation, active),
      value: rounded(of(spent, iopsOf)),
      unit: 'iops',
      floor: null,
      ratio: null,
      p50_us: rounded(of(spent, ({ runs }) => median(runs.map((run) => run.p50_us)))),
      cpu_us_per_io: rounded(of(spent, totalUs)),
      hosts: two.hosts.length,
      depth,
    });
  // By the first front alone: the second controller only drives its part, which has half of the requests.
  const owner = of(first, (each) => (2 * (each.cpuUs[1] ?? Number.NaN)) / totalUs(each));
  const severalUs = of(both, totalUs);
  const ownerUs = severalUs * Math.min(1, owner);
  // Those that a write goes to work at the same time.
  const atOnce = operation === 'write' ? copies : 1;
  const replicas = networkUs + of(alone, ({ disksUs }) => disksUs / atOnce);
  return { alone: of(alone, totalUs), front: severalUs - ownerUs, owner: ownerUs, replicas };
}

function simulate(operation: Operation, costs: Costs, report: (figure: Figure) => void): void {
  for (const hosts of hostCounts) {
    const done = controllerCounts.map((controllers) =>
      simulateCores(costs, { controllers, hosts, depth: hosts === 1 ? 4 * depth : depth, requests }),
    );
    for (const [index, count] of controllerCounts.entries())
      report({
        name: simulatedName(operation, hosts, count),
        value: rounded(done[index]?.iops ?? Number.NaN),
        unit: 'iops',
        // What the one controller gets done.
        floor: rounded(done[0]?.iops ?? Number.NaN),
        ratio: rounded((done[index]?.iops ?? Number.NaN) / (done[0]?.iops ?? Number.NaN), 3),
        p50_us: rounded(done[index]?.p50Us ?? Number.NaN),
        cpu_us_per_io: rounded(count === 1 ? costs.alone : costs.front + costs.owner),
        simulated: `one core for each controller, ${networkUs} us of network`,
        alone_us: rounded(costs.alone),
        front_us: rounded(costs.front),
        owner_us: rounded(costs.owner),
        replicas_us: rounded(costs.replicas),
      });
  }
}
