// SPDX-License-Identifier: Apache-2.0
// How long a host waits when something fails: a cluster of processes, one volume of four legs with two copies, a
// verifying load of sixteen requests over two paths, and the same fault again and again. The value of a figure is the
// longest time without a completion over all rounds. A request that fails, or a block that is read wrong, ends the run.

import { systemClock } from '../../src/env/clock.js';
import { ChaosNetwork } from '../../test/chaos/network.js';
import { LoadedHost } from '../../test/integration/loaded-host.js';
import { RunningCluster, volumeBytes, volumeName } from '../../test/integration/running-cluster.js';
import { BlockOracle } from '../../test/integration/verifying-load.js';
import type { BenchOptions } from '../main.js';
import { type Figure, median, rounded } from '../report.js';

const rounds = 20;
const awayMs = 60_000;
/** A stopped or cut controller stays so until its successor has served for a while. */
const servedMs = 1_000;
const daemonNames = [
  ...['store', 'store-1', 'store-2', 'store-3', 'api'],
  ...['disk-1', 'disk-2', 'disk-3', 'controller-1', 'controller-2'],
];

interface Bench {
  readonly running: RunningCluster;
  readonly network: ChaosNetwork | null;
  readonly loaded: LoadedHost;
  readonly round: number;
}

interface Fault {
  readonly name: string;
  readonly rounds: number;
  readonly store?: 'etcd';
  readonly cuts?: boolean;
  /** Makes it, waits until the load goes on, and puts everything right again. */
  readonly inject: (bench: Bench) => Promise<void>;
}

const faults: readonly Fault[] = [
  { name: 'failover/controller-sigkill', rounds, inject: (bench) => killed(bench, 'controller') },
  { name: 'failover/controller-sigstop', rounds, inject: stopped },
  { name: 'failover/controller-cut', rounds, cuts: true, inject: cut },
  { name: 'failover/disk-node-sigkill', rounds, inject: (bench) => killed(bench, 'disk') },
  { name: 'failover/hand-over', rounds, inject: handedOver },
  { name: 'failover/etcd-away-60s', rounds: 1, store: 'etcd', inject: storeAway },
];

export async function benchFailover(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const fault of faults) {
    if (!fault.name.includes(options.only)) continue;
    if (fault.cuts === true && !ChaosNetwork.available) {
      process.stderr.write(`${fault.name}: left out, this user may have no network namespace\n`);
      continue;
    }
    signal.throwIfAborted();
    report(await measure(fault, signal));
  }
}

async function measure(fault: Fault, signal: AbortSignal): Promise<Figure> {
  const network = fault.cuts === true ? await ChaosNetwork.make(daemonNames) : null;
  const place = network === null ? {} : { place: (name: string) => network.place(name) };
  const running = await RunningCluster.start({ ...place, store: fault.store ?? 'embedded' });
  const oracle = new BlockOracle(volumeBytes / 4096 / 8);
  try {
    const loaded = await LoadedHost.start(running, oracle);
    try {
      const gapsMs: number[] = [];
      for (let round = 0; round < fault.rounds; round++) {
        signal.throwIfAborted();
        await running.settled();
        await loaded.progress(200);
        loaded.load.resetGap();
        await fault.inject({ running, network, loaded, round });
        gapsMs.push(loaded.load.longestGapMs);
      }
      await running.settled();
      const { violations } = await loaded.finish();
      if (violations.length > 0) throw new Error(`${fault.name}: read wrong: ${violations.slice(0, 5).join('; ')}`);
      const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null };
      const value = rounded(Math.max(...gapsMs), 3);
      return { name: fault.name, value, unit: 'ms', ...rest, p50_ms: rounded(median(gapsMs), 3), rounds: fault.rounds };
    } finally {
      await loaded.close();
    }
  } finally {
    await running.stop();
    network?.killAllNow();
  }
}

function pidOf(running: RunningCluster, name: string): number {
  const { pid } = running.cluster.daemon(name);
  if (pid === undefined) throw new Error(`${name} does not run`);
  return pid;
}

/** SIGKILL of the active controller, or of a disk node in turn; it is started again once the load went on without it. */
async function killed({ running, loaded, round }: Bench, role: 'controller' | 'disk'): Promise<void> {
  const name = role === 'controller' ? await running.activeController() : `disk-${1 + (round % 3)}`;
  const daemon = running.cluster.daemon(name);
  await daemon.kill();
  await loaded.progress(500);
  await daemon.start();
}

/** SIGSTOP: it comes to itself after another one has served. */
async function stopped({ running, loaded }: Bench): Promise<void> {
  const pid = pidOf(running, await running.activeController());
  process.kill(pid, 'SIGSTOP');
  try {
    await servedAgain(loaded);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

async function cut({ running, network, loaded }: Bench): Promise<void> {
  const heal = await network?.cut(await running.activeController());
  await servedAgain(loaded);
  await heal?.();
}

async function servedAgain(loaded: LoadedHost): Promise<void> {
  await loaded.progress(500);
  await systemClock.sleep(servedMs);
}

async function handedOver({ running, loaded }: Bench): Promise<void> {
  const to = (await running.activeController()) === 'controller-1' ? 'controller-2' : 'controller-1';
  const job = await running.cluster.api.moveController(volumeName, to);
  while ((await running.cluster.api.job(job.id)).endedAtMs === null) await systemClock.sleep(10);
  await loaded.progress(200);
}

/** Every member of etcd stands still; volumes must not notice. */
async function storeAway({ running }: Bench): Promise<void> {
  const pids = running.cluster.storeNames.map((name) => pidOf(running, name));
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    await systemClock.sleep(awayMs);
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
}
