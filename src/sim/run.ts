// SPDX-License-Identifier: Apache-2.0
//
// One random run: the seed draws a shape, a workload and faults; then the faults end, the cluster must come to rest in
// bounded time, and what hosts saw is judged.

import { SeededRandom } from '../env/seeded-random.js';
import { type BadLinks, badLinksText, beginBadLinks, drawBadLinks } from './bad-links.js';
import { type ChangeName, ClusterChanges, changesAround, drawChanges } from './cluster-changes.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { drawLoss, loseDisk } from './disk-loss.js';
import { drawNemesis, type FaultName, Nemesis } from './nemesis.js';
import type { Reduction } from './plan.js';
import { noBugs, type PlantedBugs } from './planted-bugs.js';
import type { RareEvent } from './rare-events.js';
import { drawRecipe } from './recipes.js';
import type { WorkloadMix } from './sim-host.js';
import { blockBytes } from './stamp.js';
import type { TraceListener } from './trace.js';

export interface RunOptions {
  readonly seed: bigint;
  readonly bugs?: PlantedBugs;
  readonly tell?: TraceListener;
  /** What is left of what the seed draws. */
  readonly reduction?: Reduction;
  /** What the seed is not to draw. */
  readonly shape?: Partial<ClusterShape>;
  readonly mix?: Partial<WorkloadMix>;
  readonly faults?: readonly FaultName[];
  readonly changes?: readonly ChangeName[];
  readonly links?: BadLinks;
  /** A disk is lost for good when everything else has gone well. */
  readonly loss?: boolean;
}

export interface RunResult {
  readonly failure: 'none' | 'liveness' | 'correctness' | 'crash';
  /** What stands before its first colon is the kind of the failure. */
  readonly explanation: string;
  /** 16 hex digits. */
  readonly trace: string;
  readonly operations: number;
  readonly takeovers: number;
  readonly shrinks: number;
  readonly virtualMs: number;
  /** What a reduction may leave out of it. */
  readonly steps: number;
  readonly clients: number;
  readonly rareEvents: readonly RareEvent[];
  readonly summary: string;
  /** docs/history-format.md */
  readonly history: string;
}

/** After the last fault: sets are whole again, and hosts have their answers. */
const restMsMax = 90_000;
const readMsMax = 30_000;

export async function run(options: RunOptions): Promise<RunResult> {
  const random = new SeededRandom(options.seed ^ 0x5eedn);
  const { reduction = {}, bugs = noBugs } = options;
  const named = options.shape ?? options.mix ?? options.faults ?? options.changes;
  const recipe = named === undefined ? drawRecipe(options.seed, bugs) : null;
  const coded = named === undefined && recipe === null ? drawErasure(options.seed) : null;
  const checksums = named === undefined && recipe === null && drawChecksums(options.seed);
  const encrypted = named === undefined && recipe === null && drawEncryption(options.seed, coded !== null);
  const features = { ...coded, checksums, encrypted };
  const drawn: ClusterShape = { ...drawShape(random), ...recipe?.shape, ...features, ...options.shape, bugs };
  const mix = { ...drawMix(random), ...recipe?.mix, ...options.mix };
  const plan = drawNemesis(random, options.faults ?? recipe?.faults ?? null);
  const drawnChanges = recipe === null ? drawChanges(options.seed) : (recipe.changes ?? []);
  const kindsDrawn = options.changes ?? (named === undefined ? drawnChanges : []);
  const several = named === undefined && recipe === null && coded === null ? drawActive(options.seed, drawn) : null;
  const shape = { withoutLinks: drawOlder(options.seed), ...reduced({ ...drawn, ...several }, reduction) };
  const kinds = (shape.active ?? 1) === 1 ? kindsDrawn : kindsDrawn.filter((kind) => changesAround.includes(kind));
  const extras = drawExtras(options, shape);
  const cluster = new ClusterSim(options.seed, shape, options.tell === undefined ? {} : { tell: options.tell });
  const startMs = cluster.nowMs;
  let summary = shapeText(shape) + (extras.links === null ? '' : `; ${badLinksText(extras.links)}`);
  const finish = (failure: RunResult['failure'], explanation: string): RunResult => ({
    failure,
    explanation,
    trace: cluster.close(),
    operations: cluster.history.operations,
    takeovers: cluster.monitor.takeovers,
    shrinks: cluster.monitor.shrinks,
    virtualMs: cluster.nowMs - startMs,
    steps: plan.steps,
    clients: shape.hosts * (mix.writers + mix.readers),
    rareEvents: counted(cluster),
    summary,
    history: cluster.history.text,
  });
  try {
    await cluster.start();
    const nemesis = new Nemesis(cluster, options.seed, plan);
    const changes = new ClusterChanges(cluster, options.seed, kinds);
    if (extras.links !== null) beginBadLinks(cluster, options.seed, extras.links);
    cluster.startWorkload(mix, reduction);
    await cluster.runFor(200);
    for (let step = 0; step < plan.steps && cluster.violation === null; step++) {
      if (reduction.steps?.includes(step) === false) continue;
      changes.step(step);
      await nemesis.step(step, reduction.pauseMsMax);
    }
    summary += `; ${nemesis.summary}${changes.summary}`;
    const problem = (await lose(cluster, extras.loss)) ?? (await settle(cluster, drawDamage(options.seed)));
    return problem === null ? finish('none', '') : finish(problem.kind, problem.text);
  } catch (error) {
    return finish('crash', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

interface Extras {
  readonly links: BadLinks | null;
  /** A disk is lost for good in the end. */
  readonly loss: SeededRandom | null;
}

/** What is drawn where nothing is named; a planted bug shows in the runs in which it was found to. */
function drawExtras({ seed, bugs = noBugs, ...named }: RunOptions, { leaseMs }: ClusterShape): Extras {
  const { shape, mix, faults, changes, links = null, loss = false } = named;
  const isDrawn = (shape ?? mix ?? faults ?? changes) === undefined && !Object.values(bugs).includes(true);
  return {
    links: links ?? (isDrawn ? drawBadLinks(seed, leaseMs) : null),
    loss: loss ? new SeededRandom(seed) : isDrawn ? drawLoss(seed) : null,
  };
}

function counted({ rareEvents, world }: ClusterSim): readonly RareEvent[] {
  const { lost, slowed } = world.linkCounts;
  return rareEvents.all.map((event) => {
    if (event.name === 'fault_agents_link_slow') return { ...event, count: slowed };
    return event.name === 'fault_agents_packet_lost' ? { ...event, count: lost } : event;
  });
}

/** Never less than a cluster needs. */
function reduced(shape: ClusterShape, reduction: Reduction): ClusterShape {
  const least = (drawn: number, wanted: number | undefined): number => Math.max(1, Math.min(drawn, wanted ?? drawn));
  const copies = least(shape.copies, reduction.copies);
  const { active = 1 } = shape;
  const legs = Math.ceil(least(shape.legs, reduction.legs) / active) * active;
  const { legBlocks = Number.POSITIVE_INFINITY } = reduction;
  const width = shape.erasure === undefined ? copies : shape.erasure.data + shape.erasure.parity;
  return {
    ...shape,
    copies,
    legs,
    disks: Math.max(width, Math.min(shape.disks, width + 1)),
    hosts: least(shape.hosts, reduction.hosts),
    controllers: Math.max(active, least(shape.controllers, reduction.controllers)),
    sizeBytes: Math.min(shape.sizeBytes, Math.max(16, legBlocks) * legs * blockBytes),
  };
}

type Problem = { readonly kind: 'liveness' | 'correctness'; readonly text: string };

async function lose(cluster: ClusterSim, random: SeededRandom | null): Promise<Problem | null> {
  if (random === null || cluster.violation !== null) return null;
  cluster.heal();
  const text = await loseDisk(cluster, random, restMsMax);
  return text === null ? null : { kind: 'liveness', text: `${text}: ${standstill(cluster)}` };
}

/** `damage`: blocks of one disk are damaged in the end. */
async function settle(cluster: ClusterSim, damage: SeededRandom | null): Promise<Problem | null> {
  cluster.stopWorkload();
  cluster.heal();
  cluster.history.noteHealed(cluster.nowNs, restMsMax * 1e6);
  const isOver = (): boolean =>
    cluster.violation !== null || (cluster.history.pending === 0 && cluster.redundant && cluster.unrest === null);
  let rested = await cluster.runUntil(isOver, restMsMax);
  if (!rested && cluster.drainer.giveRoom(cluster.state)) rested = await cluster.runUntil(isOver, restMsMax);
  const seen = cluster.violation ?? cluster.operator.violation(cluster.state);
  if (seen !== null) return { kind: 'correctness', text: seen };
  if (!rested) return { kind: 'liveness', text: `not at rest: ${standstill(cluster)}` };
  // Some times, so that every copy is asked.
  for (let pass = 0; pass < 3; pass++) {
    let done = false;
    void cluster.hosts[0]?.readEverything(0).then(() => {
      done = true;
    });
    if (!(await cluster.runUntil(() => done, readMsMax)))
      return { kind: 'liveness', text: 'reads do not end: everything was healed' };
  }
  const snapshots = await judged(cluster, 'reads of snapshots', () => cluster.judgeSnapshots());
  const found = snapshots ?? (await judged(cluster, 'scrubs', () => cluster.judgeMembers(damage)));
  const readable = found === null && cluster.shape.encrypted === true ? cluster.readable : null;
  return readable === null ? found : { kind: 'correctness', text: readable };
}

async function judged(cluster: ClusterSim, what: string, judge: () => Promise<string | null>): Promise<Problem | null> {
  let hasEnded = false;
  const judging = judge().finally(() => {
    hasEnded = true;
  });
  judging.catch(() => {});
  if (!(await cluster.runUntil(() => hasEnded, restMsMax)))
    return { kind: 'liveness', text: `${what} do not end: ${standstill(cluster)}` };
  const found = await judging;
  const late = cluster.violation ?? found;
  return late === null ? null : { kind: 'correctness', text: late };
}

function standstill(cluster: ClusterSim): string {
  const { health, controller, epoch, legs, paths, fronts, parts } = cluster.view;
  const { unrest } = cluster;
  return JSON.stringify({
    pending: cluster.history.pending,
    unrest,
    health,
    controller,
    epoch,
    legs,
    paths,
    fronts,
    parts,
  });
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
    rebuildAfterMs: random.pick([300, 600_000]),
  };
}

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const erasureStream = 0xecn;
const erasureShare = 0.25;

const checkedStream = 0xc4c7n;
const checkedShare = 0.25;

/** Whether the replicas of the volume that hosts use keep checksums. */
function drawChecksums(seed: bigint): boolean {
  return new SeededRandom(seed ^ checkedStream).chance(checkedShare);
}

const encryptedStream = 0xe9c7n;
const encryptedShare = { copies: 0.25, erasure: 0.5 };

/** Whether the volumes that hosts use are encrypted. */
function drawEncryption(seed: bigint, isCoded: boolean): boolean {
  return new SeededRandom(seed ^ encryptedStream).chance(isCoded ? encryptedShare.erasure : encryptedShare.copies);
}

const damageStream = 0xda3an;
const damageShare = 0.5;

function drawDamage(seed: bigint): SeededRandom | null {
  const random = new SeededRandom(seed ^ damageStream);
  return random.chance(damageShare) ? random : null;
}

const olderStream = 0x11f5n;
const olderShare = 0.3;

/** Disk nodes that know no node links, as in the middle of an upgrade. */
function drawOlder(seed: bigint): string[] {
  const random = new SeededRandom(seed ^ olderStream);
  if (!random.chance(olderShare)) return [];
  return ['d1', 'd2', 'd3', 'd4'].filter(() => random.chance(0.5));
}

function drawErasure(seed: bigint): Pick<ClusterShape, 'erasure' | 'disks'> | null {
  const random = new SeededRandom(seed ^ erasureStream);
  if (!random.chance(erasureShare)) return null;
  const erasure = { data: random.between(2, 3), parity: random.between(1, 2) };
  return { erasure, disks: erasure.data + erasure.parity + random.between(0, 1) };
}

const activeStream = 0xac72n;
const activeShare = 0.15;

/** Several active controllers, and hosts for each; legs to divide among them. */
function drawActive(seed: bigint, { controllers, legs }: ClusterShape): Partial<ClusterShape> | null {
  const random = new SeededRandom(seed ^ activeStream);
  if (!random.chance(activeShare)) return null;
  const active = random.between(2, controllers);
  return { active, legs: legs * active, hosts: random.between(2, 3) };
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
  const { copies, erasure, legs, disks, controllers, hosts, leaseMs, withoutLinks = [], active = 1 } = shape;
  const redundancy = erasure === undefined ? `${copies} copies` : `${erasure.data}+${erasure.parity}`;
  const older = withoutLinks.length === 0 ? '' : `, no links with ${withoutLinks.join(' ')}`;
  const checked = `${shape.checksums === true ? ' with checksums' : ''}${shape.encrypted === true ? ', encrypted' : ''}`;
  return `${redundancy}${checked}, ${legs} legs, ${disks} disk nodes, ${controllers} controllers${active > 1 ? `, ${active} active` : ''}, ${hosts} hosts, lease ${leaseMs} ms${older}`;
}
