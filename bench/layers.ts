// SPDX-License-Identifier: Apache-2.0
// What each layer costs over the bdev below it: figures of build/bench/basalt_layers, as they come. With --peer spdk SPDK's bdevs
// take turns with ours, row by row, on one core: each row is followed by what SPDK does of the same work, or why it does not.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Bdevperf, bdevperfProgram } from './bdevperf.js';
import { type PeerStack, peerStacks, whyNoPeer } from './layers-peer.js';
import type { BenchOptions } from './main.js';
import { pinned, programPath } from './programs.js';
import { type Figure, median, rounded } from './report.js';

/** One line of the program. */
type Line = LayerLine | RebuildLine;

export interface LayerLine {
  readonly name: string;
  readonly value: number;
  readonly unit: 'ns';
  readonly total_ns: number;
  readonly below_ns: number;
  readonly iops_per_core: number;
  readonly allocations_per_io: number;
}

/** How fast a new member is made equal, where every disk passes `floor`. */
interface RebuildLine {
  readonly name: string;
  readonly value: number;
  readonly unit: 'MB/s';
  readonly floor: number;
  readonly ratio: number;
}

/** What one turn of SPDK's found: nanoseconds of processor time of one request. */
export interface PeerTurn {
  readonly totalNs: number;
  readonly belowNs: number;
}

const prefix = 'layers/';
const pairsPerFigure = 4;
const core = 0;

export async function benchLayers(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  if (options.peer === null) {
    const arguments_ = options.only === '' ? [] : ['--only', options.only];
    const milliseconds = Math.round(options.seconds * 1000);
    await runProgram(['--milliseconds', `${milliseconds}`, ...arguments_], null, signal, (line) =>
      report(figureOf(line)),
    );
    return;
  }
  const program = bdevperfProgram();
  process.stderr.write(`peer: ${program}, without huge pages\n`);
  for (const name of await figureNames(signal)) {
    if (!`${prefix}${name}`.includes(options.only)) continue;
    const make = peerStacks[name];
    if (make !== undefined) await measureBoth(name, make, options, report, signal);
    else await measureAlone(name, options, report, signal);
  }
}

async function runProgram(
  args: readonly string[],
  onCore: number | null,
  signal: AbortSignal,
  take: (line: Line) => void,
): Promise<void> {
  const [program, all] = pinned(onCore, programPath('basalt_layers'), args);
  const child = spawn(program, all, { stdio: ['ignore', 'pipe', 'inherit'], signal });
  const closed = once(child, 'close');
  for await (const text of createInterface({ input: child.stdout })) take(JSON.parse(text) as Line);
  const [code] = (await closed) as [number | null];
  if (code !== 0) throw new Error(`${program}: exit code ${code}`);
}

async function figureNames(signal: AbortSignal): Promise<string[]> {
  const names: string[] = [];
  await runProgram(['--list', '1'], null, signal, ({ name }) => names.push(name.slice(prefix.length)));
  return names;
}

function figureOf(line: Line): Figure {
  if (line.unit === 'MB/s') return { ...line, value: rounded(line.value), p50_us: null, cpu_us_per_io: null };
  const { name, value, unit, total_ns, below_ns, iops_per_core, allocations_per_io } = line;
  const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: rounded(total_ns / 1000) };
  return { name, value: rounded(value), unit, ...rest, below_ns, iops_per_core, allocations_per_io };
}

async function measureAlone(
  name: string,
  { seconds }: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const args = ['--exactly', `${prefix}${name}`, '--milliseconds', `${Math.round(seconds * 1000)}`];
  await runProgram(args, core, signal, (line) => report({ ...figureOf(line), wanted: 'no peer' }));
  process.stderr.write(`${prefix}${name}: SPDK has no peer: ${whyNoPeer(name) ?? 'nobody said why'}\n`);
}

async function measureBoth(
  name: string,
  make: () => PeerStack,
  { seconds }: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const ours: LayerLine[] = [];
  const theirs: PeerTurn[] = [];
  const milliseconds = Math.max(100, Math.round((seconds * 1000) / (2 * pairsPerFigure)));
  const args = ['--exactly', `${prefix}${name}`, '--milliseconds', `${milliseconds}`];
  const stack = make();
  const processes: Bdevperf[] = [];
  try {
    for (const bdev of [stack.layer, stack.below]) {
      const spdk = await Bdevperf.start(core, bdev, stack.memoryMib);
      processes.push(spdk);
      await stack.buildBelow(spdk, bdev === stack.layer);
      if (bdev === stack.layer) await stack.buildLayer(spdk);
      if (stack.fillBytes !== undefined) await spdk.costNs({ workload: 'write', depth: 1, bytes: stack.fillBytes });
      // The system's work on memory that nobody touched yet is none of the bdev's.
      else if (bdev === stack.below) await spdk.costNs(stack.load);
      spdk.pause();
    }
    const [layer, below] = processes;
    if (layer === undefined || below === undefined) throw new Error('unreachable');
    for (let pair = 0; pair < pairsPerFigure; pair += 1) {
      signal.throwIfAborted();
      await runProgram(args, core, signal, (line) => ours.push(line as LayerLine));
      theirs.push({
        totalNs: await turnOf(layer, stack, true),
        belowNs: await turnOf(below, stack, false),
      });
    }
  } finally {
    for (const spdk of processes) await spdk.stop();
  }
  for (const figure of pairedFigures(ours, theirs)) report(figure);
}

async function turnOf(spdk: Bdevperf, stack: PeerStack, isLayer: boolean): Promise<number> {
  spdk.resume();
  try {
    if (!isLayer) return await spdk.costNs(stack.load);
    await stack.again?.(spdk);
    return await (stack.requests === undefined
      ? spdk.costNs(stack.load)
      : spdk.costOfFirstNs(stack.load, stack.requests));
  } finally {
    spdk.pause();
  }
}

/**
 * Ours, and then SPDK's, whose `ratio` is the median of the pairs: processor time of a whole request of SPDK's over that of one of
 * ours, so that more than 1 is for us.
 */
export function pairedFigures(ours: readonly LayerLine[], theirs: readonly PeerTurn[]): [Figure, Figure] {
  const [first] = ours;
  if (first === undefined || ours.length !== theirs.length) throw new Error('expected pairs of turns');
  const middle = (of: (line: LayerLine) => number): number => median(ours.map(of));
  const line: LayerLine = {
    ...first,
    value: middle((turn) => turn.value),
    total_ns: middle((turn) => turn.total_ns),
    below_ns: middle((turn) => turn.below_ns),
    iops_per_core: Math.round(1e9 / middle((turn) => turn.total_ns)),
    allocations_per_io: middle((turn) => turn.allocations_per_io),
  };
  const totalNs = median(theirs.map((turn) => turn.totalNs));
  const peer: Figure = {
    name: `${first.name}/spdk`,
    value: rounded(median(theirs.map((turn) => turn.totalNs - turn.belowNs))),
    unit: 'ns',
    floor: null,
    ratio: rounded(median(theirs.map((turn, i) => turn.totalNs / (ours[i]?.total_ns ?? Number.NaN))), 3),
    p50_us: null,
    cpu_us_per_io: rounded(totalNs / 1000),
    below_ns: rounded(median(theirs.map((turn) => turn.belowNs))),
    iops_per_core: Math.round(1e9 / totalNs),
  };
  return [figureOf(line), peer];
}
