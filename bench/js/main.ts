// SPDX-License-Identifier: Apache-2.0
// What JavaScript adds: micro-benchmarks of the calls into the engine and of the planners, with the package benchmark.

import { createRequire } from 'node:module';
import type { BenchOptions } from '../main.js';
import { type Figure, rounded } from '../report.js';
import { engineCases } from './engine.js';
import { plannerCases } from './planner.js';

export interface JsCase {
  readonly name: string;
  /** One operation; a promise when it is asynchronous. */
  run(): unknown;
}

export interface JsCases {
  readonly cases: readonly JsCase[];
  end(): Promise<void>;
}

// The package is CommonJS, and its class is a callable namespace.
const Benchmark = createRequire(import.meta.url)('benchmark') as new (
  options: object,
) => {
  readonly hz: number;
  readonly stats: { readonly mean: number; readonly rme: number };
  readonly error: unknown;
  run(options: { async: boolean }): unknown;
  abort(): unknown;
};

function measure(one: JsCase, seconds: number, signal: AbortSignal): Promise<Figure> {
  return new Promise((resolve, reject) => {
    const asynchronous = one.run() instanceof Promise;
    const fn = asynchronous
      ? (deferred: { resolve(): void }) => {
          (one.run() as Promise<unknown>).then(() => deferred.resolve(), reject);
        }
      : () => one.run();
    const benchmark = new Benchmark({
      defer: asynchronous,
      fn,
      maxTime: seconds,
      onComplete: () => {
        if (benchmark.error !== undefined) reject(benchmark.error);
        const mean_us = benchmark.stats.mean * 1e6;
        const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null };
        const error_percent = rounded(benchmark.stats.rme, 2);
        resolve({ name: `js/${one.name}`, value: rounded(mean_us), unit: 'us', ...rest, error_percent });
      },
    });
    signal.addEventListener('abort', () => benchmark.abort(), { once: true });
    benchmark.run({ async: true });
  });
}

export async function benchJs(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const make of [plannerCases, engineCases]) {
    const made = await make();
    try {
      for (const one of made.cases) {
        signal.throwIfAborted();
        if (`js/${one.name}`.includes(options.only)) report(await measure(one, options.seconds, signal));
      }
    } finally {
      await made.end();
    }
  }
}
