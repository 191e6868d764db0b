// SPDX-License-Identifier: Apache-2.0
// The native programs that benchmarks start: pinned to a core of their own where there are two, ended with the run.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../src/engine/native/addon.js';

/** Of this project, by name; of others, by path. */
export function programPath(name: string): string {
  if (isAbsolute(name)) return name;
  const path = join(packageRoot(), 'build', 'bench', name);
  if (!existsSync(path)) throw new Error(`${path} is missing: start benchmarks with npm run bench, which builds it`);
  return path;
}

/** The processors this process may use. */
export function usableCores(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** What all threads of a process have had of processors. */
export function cpuNs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const times = readdirSync(tasks).map((task) => readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]);
  return times.reduce((sum, time) => sum + Number(time), 0);
}

/** `which` counts among the usable cores; with one core, or null, nothing is pinned. */
export function pinned(which: number | null, program: string, args: readonly string[]): [string, string[]] {
  const cores = usableCores();
  if (cores.length < 2 || which === null) return [program, [...args]];
  return ['taskset', ['-c', String(cores[which % cores.length]), program, ...args]];
}

/** Runs to its end and gives its last line of output as JSON. */
export async function runForJson<T>(
  core: number | null,
  name: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<T> {
  const [program, all] = pinned(core, programPath(name), args);
  const child = spawn(program, all, { stdio: ['ignore', 'pipe', 'inherit'], signal });
  const lines: string[] = [];
  createInterface(child.stdout).on('line', (line) => lines.push(line));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: exit code ${code}`);
  return JSON.parse(lines.at(-1) ?? 'null') as T;
}

export class Server {
  readonly #child: ChildProcess;
  readonly #name: string;

  private constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.#name = name;
  }

  /** Resolves with the server and the first line that it said on stdout or stderr. */
  static async start(core: number | null, name: string, args: readonly string[]): Promise<[Server, string]> {
    const [program, all] = pinned(core, programPath(name), args);
    const child = spawn(program, all, { stdio: ['ignore', 'pipe', 'pipe'] });
    const line = await new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`${name}: ended with exit code ${code} before it served`)));
      createInterface(child.stdout).once('line', resolve);
      createInterface(child.stderr).once('line', resolve);
    });
    return [new Server(child, name), line];
  }

  /** taskset becomes the program it starts. */
  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error(`${this.#name}: has no process`);
    return pid;
  }

  /** One that polls would take the core from the others. */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  async stop(): Promise<void> {
    this.resume();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const hard = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(hard);
  }
}
