// SPDX-License-Identifier: Apache-2.0
//
// One run of a cluster with the agents of src/agents, for the simulator, which starts a process for each
// (native/sim/worker.h has both sides' form):
//
//   node dist/src/sim/main.js PLAN [--verbose] [--history FILE]
//
// PLAN is the plan's text (plan.ts). The result goes to stdout as one JSON object; with --verbose, what happens goes to
// stderr as it happens. Exit codes: 0 there is a result, 1 the run threw, 2 wrong usage.
// People use `npm run sim -- --suite cluster-ts`.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { loadAddon } from '../engine/native/addon.js';
import { parsePlan } from './plan.js';
import type { RareEvent } from './rare-events.js';
import { type RunResult, run } from './run.js';
import { readable } from './trace.js';

class Usage extends Error {}

interface Options {
  readonly plan: string;
  readonly verbose: boolean;
  readonly history: string | null;
}

function readOptions(): Options {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { history: { type: 'string' }, verbose: { type: 'boolean', default: false } },
    });
    const [plan, ...rest] = positionals;
    if (plan === undefined || rest.length > 0) throw new Error('one argument is needed: the text of a plan');
    return { plan, verbose: values.verbose, history: values.history ?? null };
  } catch (error) {
    throw new Usage(error instanceof Error ? error.message : String(error));
  }
}

function planOf(text: string): ReturnType<typeof parsePlan> {
  try {
    return parsePlan(text);
  } catch (error) {
    throw new Usage(error instanceof Error ? error.message : String(error));
  }
}

/** `native`: rare events of the engines. Which of them such runs are to reach is asked of all suites together. */
function answerOf(result: RunResult, native: readonly RareEvent[]): object {
  const { failure, explanation, summary, trace, operations, takeovers, virtualMs, steps, clients, rareEvents } = result;
  const figures = { ops: operations, takeovers, virtual_ns: Math.round(virtualMs * 1e6), steps, clients };
  const reached = native.filter(({ count }) => count > 0);
  return { failure, explanation, summary, trace, ...figures, rare_events: [...rareEvents, ...reached] };
}

async function main(): Promise<void> {
  const { plan, verbose, history } = readOptions();
  const tell = readable((line) => process.stderr.write(`${line}\n`));
  const marks = new (loadAddon().MarkCounter)();
  const result = await run({ ...planOf(plan), ...(verbose ? { tell } : {}) });
  if (history !== null) writeFileSync(history, result.history);
  if (result.failure === 'crash') throw new Error(result.explanation);
  process.stdout.write(`${JSON.stringify(answerOf(result, marks.counts()))}\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof Usage ? 2 : 1;
});
