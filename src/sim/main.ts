// SPDX-License-Identifier: Apache-2.0
//
// Random runs of whole clusters, real agents over native engines, on virtual time.
//
//   node dist/src/sim/main.js [--seeds N] [--seed S] [--minutes M] [--repeat] [--verbose] [--history FILE]
//
// --repeat runs each seed twice and compares the traces. --history writes what hosts saw (docs/history-format.md); a
// failing run's is written to sim-<seed>.ndjson when none is named. The last line is `N passed, N failed, trace <16 hex>`.
// Exit codes: 0 all passed, 1 correctness, 2 usage, 3 liveness, 4 crash or a trace that differs; the worst one counts.

import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { systemClock } from '../env/clock.js';
import { type RunResult, run } from './run.js';

const exitCodes: Record<RunResult['failure'], number> = { none: 0, correctness: 1, liveness: 3, crash: 4 };

interface Options {
  readonly first: bigint;
  readonly seeds: number;
  readonly minutes: number;
  readonly repeat: boolean;
  readonly verbose: boolean;
  readonly history: string | null;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      minutes: { type: 'string' },
      history: { type: 'string' },
      repeat: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
    },
  });
  const number = (name: string, text: string): number => {
    const value = Number(text);
    if (!(value > 0)) throw new RangeError(`--${name}: must be a positive number`);
    return value;
  };
  const minutes = values.minutes === undefined ? Number.POSITIVE_INFINITY : number('minutes', values.minutes);
  const seedsDefault = values.seed !== undefined ? 1 : values.minutes !== undefined ? Number.POSITIVE_INFINITY : 20;
  return {
    first: BigInt(values.seed ?? '1'),
    seeds: values.seeds === undefined ? seedsDefault : number('seeds', values.seeds),
    minutes,
    repeat: values.repeat,
    verbose: values.verbose,
    history: values.history ?? null,
  };
}

async function runSeed(seed: bigint, options: Options): Promise<RunResult> {
  const tell = options.verbose ? (line: string) => console.log(line) : null;
  const result = await run(tell === null ? { seed } : { seed, tell });
  if (!options.repeat || result.failure === 'crash') return result;
  const again = await run({ seed });
  if (again.trace === result.trace) return result;
  return { ...result, failure: 'crash', explanation: `a second run has trace ${again.trace}` };
}

function report(seed: bigint, result: RunResult, options: Options): void {
  const name = `0x${seed.toString(16)}`;
  const { operations, takeovers, shrinks, virtualMs, trace, summary } = result;
  const figures = `${operations} operations, ${takeovers} takeovers, ${shrinks} shrinks, ${Math.round(virtualMs)} ms`;
  const verdict = result.failure === 'none' ? 'passed' : result.failure;
  console.log(`${name} ${verdict}: ${figures}, trace ${trace}`);
  const path = options.history ?? (result.failure === 'none' ? null : `sim-${name}.ndjson`);
  if (path !== null) writeFileSync(path, result.history);
  if (result.failure === 'none') return;
  console.log(`  ${result.explanation}\n  ${summary}`);
  console.log(`  again: node dist/src/sim/main.js --seed ${name} --verbose; history: ${path}`);
}

async function main(): Promise<number> {
  const options = readOptions();
  const endMs = systemClock.now() + options.minutes * 60_000;
  const all = createHash('sha256');
  let [passed, failed, code] = [0, 0, 0];
  for (let index = 0; index < options.seeds && systemClock.now() < endMs; index++) {
    const seed = options.first + BigInt(index);
    const result = await runSeed(seed, options);
    report(seed, result, options);
    all.update(result.trace);
    if (result.failure === 'none') passed++;
    else failed++;
    code = Math.max(code, exitCodes[result.failure]);
  }
  console.log(`${passed} passed, ${failed} failed, trace ${all.digest('hex').slice(0, 16)}`);
  return code;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 2;
  },
);
