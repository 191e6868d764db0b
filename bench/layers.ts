// SPDX-License-Identifier: Apache-2.0
// What each layer costs over the bdev below it: figures of build/bench/basalt_layers, as they come.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../src/engine/native/addon.js';
import type { BenchOptions } from './main.js';
import { type Figure, rounded } from './report.js';

/** One line of the program. */
type Line = LayerLine | RebuildLine;

interface LayerLine {
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

export async function benchLayers(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const program = join(packageRoot(), 'build', 'bench', 'basalt_layers');
  const args = ['--milliseconds', `${Math.round(options.seconds * 1000)}`, '--only', options.only];
  const child = spawn(program, options.only === '' ? args.slice(0, 2) : args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    signal,
  });
  const closed = once(child, 'close');
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as Line;
    if (line.unit === 'MB/s') {
      report({ ...line, value: rounded(line.value), p50_us: null, cpu_us_per_io: null });
      continue;
    }
    const { name, value, unit, total_ns, below_ns, iops_per_core, allocations_per_io } = line;
    const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: rounded(total_ns / 1000) };
    report({ name, value: rounded(value), unit, ...rest, below_ns, iops_per_core, allocations_per_io });
  }
  const [code] = (await closed) as [number | null];
  if (code !== 0) throw new Error(`${program}: exit code ${code}`);
}
