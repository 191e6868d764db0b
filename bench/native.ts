// SPDX-License-Identifier: Apache-2.0
// The native micro-benchmarks (*_bench.cc), as the same figures: nanoseconds per operation.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../src/engine/native/addon.js';
import type { BenchOptions } from './main.js';
import { type Figure, rounded } from './report.js';

interface Output {
  readonly benchmarks: readonly {
    name: string;
    cpu_time: number;
    time_unit: string;
    bytes_per_second?: number;
    error_message?: string;
  }[];
}

export async function benchNative(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const folder = join(packageRoot(), 'build', 'bench');
  for (const program of readdirSync(folder).filter((name) => /^bench_[a-z0-9_]+$/.test(name))) {
    const args = ['--benchmark_format=json', `--benchmark_min_time=${Math.min(options.seconds / 4, 1)}`];
    const child = spawn(join(folder, program), args, { stdio: ['ignore', 'pipe', 'ignore'], signal });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`${program}: exit code ${code}`);
    const output = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Output;
    for (const result of output.benchmarks) {
      const name = `native/${result.name}`;
      if (result.error_message !== undefined) throw new Error(`${name}: ${result.error_message}`);
      if (!name.includes(options.only)) continue;
      const gigabytes = result.bytes_per_second === undefined ? null : rounded(result.bytes_per_second / 1e9);
      const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null };
      report({ name, value: rounded(result.cpu_time), unit: 'ns', ...rest, gb_per_s: gigabytes });
    }
  }
}
