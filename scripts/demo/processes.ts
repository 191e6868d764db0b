// SPDX-License-Identifier: Apache-2.0
//
// Daemons of a cluster: every part a process of its own, started and killed by process id. Ports are chosen once, so that
// what was killed comes back where it was. A daemon dies with the process that started it, also when that one is killed
// (parent-death signal), unless it is meant to stay.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '../../src/env/clock.js';

const readyMsMax = 30_000;

export interface DaemonPlan {
  readonly name: string;
  /** Program and arguments. It says on standard output, in one line of JSON, that it is ready, unless `ready` is given. */
  readonly command: readonly string[];
  /** Added to the environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Resolves once the daemon is of use; asked again and again until it does not reject. */
  readonly ready?: () => Promise<void>;
  /** @default false: it dies with this process */
  readonly stays?: boolean;
}

/** SIGKILL for a child whose parent is gone, also for one that was stopped. */
const diesWithParent = ['setpriv', '--pdeathsig', 'KILL'];

/** One daemon: may be killed and started again. */
export class Daemon {
  readonly name: string;
  readonly #plan: DaemonPlan;
  readonly #logPath: string;
  #child: ChildProcess | null = null;

  constructor(plan: DaemonPlan, folder: string) {
    this.name = plan.name;
    this.#plan = plan;
    this.#logPath = join(folder, `${plan.name}.log`);
  }

  /** While it runs. */
  get pid(): number | undefined {
    const child = this.#child;
    return child === null || child.exitCode !== null || child.signalCode !== null ? undefined : child.pid;
  }

  get logPath(): string {
    return this.#logPath;
  }

  /** Resolves with the line that says that it is ready. */
  async start(): Promise<Record<string, unknown>> {
    const log = openSync(this.#logPath, 'a');
    // Detached: a Ctrl-C in the terminal reaches the demonstration, which ends its daemons itself.
    const [program = '', ...args] = [...(this.#plan.stays === true ? [] : diesWithParent), ...this.#plan.command];
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', log],
      detached: true,
      env: { ...process.env, ...this.#plan.environment },
    });
    this.#child = child;
    closeSync(log);
    if (child.stdout === null) throw new Error(`${this.name} could not be started`);
    const lines = createInterface({ input: child.stdout });
    const ended = once(child, 'exit').then(([code, signal]) => {
      const why = lastError(this.#logPath);
      throw new Error(
        `${this.name} ended (${signal ?? `exit code ${code}`}) before it was ready${why === null ? '' : `: ${why}`}; see ${this.#logPath}`,
      );
    });
    const late = systemClock.sleep(readyMsMax).then(() => {
      throw new Error(`${this.name} was not ready within ${readyMsMax / 1000} s; see ${this.#logPath}`);
    });
    const said = once(lines, 'line').then(([line]) => JSON.parse(String(line)) as Record<string, unknown>);
    const ready = this.#plan.ready === undefined ? said : this.#answers(this.#plan.ready);
    for (const promise of [said, ended, late]) promise.catch(() => {});
    return Promise.race([ready, ended, late]);
  }

  async #answers(ready: () => Promise<void>): Promise<Record<string, unknown>> {
    const end = systemClock.now() + readyMsMax;
    for (;;) {
      const failure = await ready().then(
        () => null,
        (error: unknown) => error,
      );
      if (failure === null) return { ready: this.name };
      if (systemClock.now() > end || this.pid === undefined) throw failure;
      await systemClock.sleep(50);
    }
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  /** SIGTERM; resolves with the exit code. */
  async terminate(): Promise<number | null> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return null;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    const [code] = (await gone) as [number | null];
    return code;
  }

  killNow(): void {
    this.#child?.kill('SIGKILL');
  }

  /** The daemon outlives this process. */
  release(): void {
    this.#child?.stdout?.destroy();
    this.#child?.unref();
  }
}

/** What a daemon said last about why it ended: `{"error": {"message": …}}`. */
function lastError(logPath: string): string | null {
  for (const line of readFileSync(logPath, 'utf8').trimEnd().split('\n').slice(-20).reverse()) {
    try {
      const { error } = JSON.parse(line) as { error?: { message?: unknown } };
      if (typeof error?.message === 'string') return error.message;
    } catch {
      // Not every line is JSON.
    }
  }
  return null;
}

export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(
    servers.map(async (server) => {
      server.close();
      await once(server, 'close');
    }),
  );
  return ports;
}
