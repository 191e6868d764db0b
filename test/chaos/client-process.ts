// SPDX-License-Identifier: Apache-2.0
// The runner's side of a client process. It dies with the runner, and may be killed and started again.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/env/clock.js';
import type { ClientCommand, ClientPlan, ClientReport } from './client.js';

const script = fileURLToPath(new URL('./client.ts', import.meta.url));
const readyMsMax = 130_000;

export class ClientProcess {
  readonly name: string;
  readonly plan: ClientPlan;
  readonly #prefix: readonly string[];
  readonly #logPath: string;
  #child: ChildProcess | null = null;
  #waiting: { said: ClientReport['said']; resolve: () => void; reject: (error: Error) => void }[] = [];
  #expected = false;
  #last: ClientReport | null = null;
  /** Of earlier incarnations. */
  #before = { completed: 0, errors: 0, violations: 0 };
  readonly #complaints = { errors: [] as string[], violations: [] as string[] };
  unexpectedEnds = 0;

  constructor(name: string, plan: ClientPlan, where: { prefix: readonly string[]; folder: string }) {
    this.name = name;
    this.plan = plan;
    this.#prefix = where.prefix;
    this.#logPath = join(where.folder, `${name}.log`);
  }

  get pid(): number | undefined {
    return this.#child?.exitCode === null && this.#child.signalCode === null ? this.#child.pid : undefined;
  }

  get completed(): number {
    return this.#before.completed + (this.#last?.completed ?? 0);
  }

  get gapMs(): number {
    return this.#last?.gapMs ?? 0;
  }

  /** Since the beginning, with what was said about the first of them. */
  get totals(): { completed: number; errors: number; violations: number; words: string[] } {
    const now = this.#last?.counts;
    return {
      completed: this.completed,
      errors: this.#before.errors + (now?.errors ?? 0),
      violations: this.#before.violations + (now?.violations ?? 0),
      words: [
        ...this.#complaints.violations,
        ...(this.#last?.violations ?? []),
        ...this.#complaints.errors,
        ...(this.#last?.errors ?? []),
      ],
    };
  }

  /** Resolves when the volume is open and loaded. */
  async start(): Promise<void> {
    const log = openSync(this.#logPath, 'a');
    const node = [process.execPath, '--import', 'tsx', script, JSON.stringify(this.plan)];
    const [program = '', ...args] = ['setpriv', '--pdeathsig', 'KILL', ...this.#prefix, ...node];
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', log], detached: true });
    closeSync(log);
    this.#child = child;
    this.#expected = false;
    child.stdin?.on('error', () => {});
    child.once('exit', (code, signal) => this.#ended(`${signal ?? `exit code ${code}`}`));
    child.once('error', (error) => this.#ended(error.message));
    if (child.stdout === null) throw new Error(`${this.name} has no output`);
    createInterface({ input: child.stdout }).on('line', (line) => this.#heard(JSON.parse(line) as ClientReport));
    await this.#until('ready', readyMsMax);
  }

  /** Resolves when the client has done it. */
  async tell(command: ClientCommand, msMax: number): Promise<void> {
    if (command === 'close') this.#expected = true;
    const done = this.#until(command, msMax);
    this.#child?.stdin?.write(`${JSON.stringify(command)}\n`);
    await done;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null || this.pid === undefined) return;
    this.#expected = true;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  killNow(): void {
    this.#expected = true;
    this.#child?.kill('SIGKILL');
  }

  #until(said: ClientReport['said'], msMax: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = systemClock.setTimer(msMax, () =>
        reject(new Error(`${this.name} did not say '${said}' within ${msMax / 1000} s; see ${this.#logPath}`)),
      );
      this.#waiting.push({
        said,
        resolve: () => {
          timer.cancel();
          resolve();
        },
        reject: (error) => {
          timer.cancel();
          reject(error);
        },
      });
    });
  }

  #heard(report: ClientReport): void {
    this.#last = report;
    const [ready, waiting] = [this.#waiting.filter((one) => one.said === report.said), this.#waiting];
    this.#waiting = waiting.filter((one) => one.said !== report.said);
    for (const one of ready) one.resolve();
  }

  #ended(how: string): void {
    if (!this.#expected) this.unexpectedEnds++;
    const counts = this.#last?.counts;
    this.#before = {
      completed: this.completed,
      errors: this.#before.errors + (counts?.errors ?? 0),
      violations: this.#before.violations + (counts?.violations ?? 0),
    };
    this.#complaints.errors.push(...(this.#last?.errors ?? []));
    this.#complaints.violations.push(...(this.#last?.violations ?? []));
    this.#last = null;
    for (const one of this.#waiting) one.reject(new Error(`${this.name} ended: ${how}; see ${this.#logPath}`));
    this.#waiting = [];
  }
}
