// SPDX-License-Identifier: Apache-2.0
// npm run bench -- target|volume|layers|js|native|placement|cluster|failover [--json] [--seconds N] [--only TEXT]
// [--peer spdk]: measures, and prints a table or one JSON object per line.
// How the figures are made and what they are good for: docs/performance.md.

import { availableParallelism, cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { benchCreations } from './cluster/creations.js';
import { benchFailover } from './cluster/failover.js';
import { benchScaling } from './cluster/scaling.js';
import { benchJs } from './js/main.js';
import { benchLayers } from './layers.js';
import { benchNative } from './native.js';
import { benchPlacement } from './placement/main.js';
import { type Figure, Reporter } from './report.js';
import { benchTarget } from './target/main.js';
import { benchVolume } from './volume.js';

export interface BenchOptions {
  /** Time that one figure takes, both sides together. */
  readonly seconds: number;
  /** Only figures whose name contains this. */
  readonly only: string;
  /** Of the target and of layers: measured beside it. */
  readonly peer: 'spdk' | null;
}

type Suite = (options: BenchOptions, report: (figure: Figure) => void, signal: AbortSignal) => Promise<void>;

const suites: Record<string, Suite> = {
  target: benchTarget,
  volume: benchVolume,
  js: benchJs,
  native: benchNative,
  placement: benchPlacement,
  cluster: async (...given) => {
    await benchCreations(...given);
    await benchScaling(...given);
  },
  failover: benchFailover,
  layers: benchLayers,
};
const usage = `usage: npm run bench -- ${Object.keys(suites).join('|')} [--json] [--seconds N] [--only TEXT] [--peer spdk]`;

function readArguments(args: string[]): { suite: Suite; json: boolean; options: BenchOptions } {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '4' },
      only: { type: 'string', default: '' },
      peer: { type: 'string' },
    },
  });
  const name = positionals[0];
  const suite = name === undefined ? undefined : suites[name];
  if (suite === undefined || positionals.length !== 1) throw new Error(`expected one suite; ${usage}`);
  const seconds = Number(values.seconds);
  if (!(seconds >= 0.1 && seconds <= 3600)) throw new Error(`--seconds: expected 0.1 to 3600; ${usage}`);
  const { peer = null, only } = values;
  if (peer !== null && (peer !== 'spdk' || (name !== 'target' && name !== 'layers')))
    throw new Error(`--peer: spdk goes with the suites target and layers; ${usage}`);
  return { suite, json: values.json, options: { seconds, only, peer } };
}

async function main(): Promise<void> {
  const { suite, json, options } = readArguments(process.argv.slice(2));
  const model = cpus()[0]?.model ?? 'unknown processor';
  process.stderr.write(`${availableParallelism()} cores (${model}), Linux ${release()}, Node.js ${process.version}\n`);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort(new Error(signal)));
  const reporter = new Reporter(json, (text) => process.stdout.write(`${text}\n`));
  await suite(options, (figure) => reporter.add(figure), stop.signal);
  reporter.end();
}

main().catch((error: unknown) => {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
