// SPDX-License-Identifier: Apache-2.0
//
// One random run: the seed draws a shape, a workload and faults; then the faults end, the cluster must come to rest in
// bounded time, and what hosts saw is judged.

import { SeededRandom } from '../env/seeded-random.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { type FaultName, Nemesis } from './nemesis.js';
import { noBugs, type PlantedBugs } from './planted-bugs.js';
import type { WorkloadMix } from './sim-host.js';

export interface RunOptions {
  readonly seed: bigint;
  readonly bugs?: PlantedBugs;
  readonly tell?: (line: string) => void;
  /** What the seed is not to draw. */
  readonly shape?: Partial<ClusterShape>;
  readonly mix?: Partial<WorkloadMix>;
  readonly faults?: readonly FaultName[];
}

export interface RunResult {
  readonly failure: 'none' | 'liveness' | 'correctness' | 'crash';
  readonly explanation: string;
  /** 16 hex digits. */
  readonly trace: string;
  readonly operations: number;
  readonly takeovers: number;
  readonly shrinks: number;
  readonly virtualMs: number;
  readonly summary: string;
  /** docs/history-format.md */
  readonly history: string;
}

/** After the last fault: sets are whole again, and hosts have their answers. */
const restMsMax = 90_000;
const readMsMax = 30_000;

export async function run(options: RunOptions): Promise<RunResult> {
  const random = new SeededRandom(options.seed ^ 0x5eedn);
  const shape = { ...drawShape(random), ...options.shape, bugs: options.bugs ?? noBugs };
  const cluster = new ClusterSim(options.seed, shape, options.tell === undefined ? {} : { tell: options.tell });
  const startMs = cluster.nowMs;
  let summary = shapeText(shape);
  const finish = (failure: RunResult['failure'], explanation: string): RunResult => ({
    failure,
    explanation,
    trace: cluster.close(),
    operations: cluster.history.operations,
    takeovers: cluster.monitor.takeovers,
    shrinks: cluster.monitor.shrinks,
    virtualMs: cluster.nowMs - startMs,
    summary,
    history: cluster.history.text,
  });
  try {
    await cluster.start();
    const nemesis = new Nemesis(cluster, random.fork(), options.faults ?? null);
    cluster.startWorkload({ ...drawMix(random), ...options.mix });
    await stir(cluster, nemesis, random);
    summary += `; ${nemesis.summary}`;
    const problem = (await settle(cluster)) ?? null;
    if (problem === null) return finish('none', '');
    return finish(problem.kind, problem.text);
  } catch (error) {
    return finish('crash', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

async function stir(cluster: ClusterSim, nemesis: Nemesis, random: SeededRandom): Promise<void> {
  const steps = random.between(6, 24);
  const pauseMsMax = random.pick([100, 600, 2_000]);
  await cluster.runFor(200);
  for (let step = 0; step < steps && cluster.violation === null; step++) {
    nemesis.begin();
    await cluster.runFor(random.between(0, pauseMsMax));
  }
}

type Problem = { readonly kind: 'liveness' | 'correctness'; readonly text: string };

async function settle(cluster: ClusterSim): Promise<Problem | null> {
  cluster.stopWorkload();
  cluster.heal();
  cluster.history.noteHealed(cluster.nowNs, restMsMax * 1e6);
  const rested = await cluster.runUntil(
    () => cluster.violation !== null || (cluster.history.pending === 0 && cluster.redundant),
    restMsMax,
  );
  const seen = cluster.violation;
  if (seen !== null) return { kind: 'correctness', text: seen };
  if (!rested) return { kind: 'liveness', text: `not at rest: ${standstill(cluster)}` };
  // Some times, so that every copy is asked.
  for (let pass = 0; pass < 3; pass++) {
    let done = false;
    void cluster.hosts[0]?.readEverything(0).then(() => {
      done = true;
    });
    if (!(await cluster.runUntil(() => done, readMsMax))) return { kind: 'liveness', text: 'reads do not end' };
  }
  const late = cluster.violation;
  return late === null ? null : { kind: 'correctness', text: late };
}

function standstill(cluster: ClusterSim): string {
  const { health, controller, epoch, legs, paths } = cluster.view;
  return JSON.stringify({ pending: cluster.history.pending, health, controller, epoch, legs, paths });
}

function drawShape(random: SeededRandom): ClusterShape {
  const copies = random.between(2, 3);
  return {
    ...plainShape,
    copies,
    disks: copies + random.between(0, 1),
    controllers: random.between(2, 3),
    hosts: random.between(1, 2),
    legs: random.between(1, 2),
    leaseMs: random.pick([50, 300, 1000]),
    networkDelayMaxMs: random.pick([0.05, 0.5, 3]),
    diskDelayMaxMs: random.pick([0.1, 1, 4]),
    store: {
      latencyMinMs: 0.2,
      latencyMaxMs: random.pick([1, 5, 40]),
      lateChance: random.chance(0.3) ? 0.05 : 0,
      answerLostChance: random.chance(0.3) ? 0.05 : 0.002,
    },
    timing: { graceMs: random.pick([1_500, 4_000]), attachTimeoutMs: random.pick([100, 800]), attachRetryMs: 50 },
  };
}

function drawMix(random: SeededRandom): WorkloadMix {
  return {
    writers: random.between(1, 3),
    readers: random.between(0, 2),
    readChance: random.pick([0.2, 0.5, 0.8]),
    flushChance: random.pick([0, 0.1]),
    blocksMax: random.pick([1, 4]),
    thinkMaxMs: random.pick([5, 15, 40]),
    blocksOwn: random.pick([1, 4, 16, 64]),
  };
}

function shapeText(shape: ClusterShape): string {
  const { copies, legs, disks, controllers, hosts, leaseMs } = shape;
  return `${copies} copies, ${legs} legs, ${disks} disk nodes, ${controllers} controllers, ${hosts} hosts, lease ${leaseMs} ms`;
}
