// SPDX-License-Identifier: Apache-2.0
//
// A real SPDK for tests: the program that BASALT_SPDK_TGT names, or spdk_tgt on the PATH. It runs without huge pages and PCI
// devices.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { systemClock } from '../../../env/clock.js';
import { type AttachedEngine, attachEngine } from '../../attached/attached-engine.js';
import type { SpdkPort } from '../spdk-bdevs.js';

export const spdkProgram: string | null =
  process.env['BASALT_SPDK_TGT'] ??
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'spdk_tgt'))
    .find(isProgram) ??
  null;

/** For the name of a test that is skipped. */
export const spdkMissing = spdkProgram === null ? ' (no spdk_tgt on the PATH, and no BASALT_SPDK_TGT)' : '';

const startMsMax = 60_000;

export class SpdkProcess implements SpdkPort {
  readonly calls: string[] = [];
  before: (method: string, params: Record<string, unknown>) => Promise<void> | void = () => {};
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly engine: AttachedEngine;

  private constructor(child: ChildProcess, ended: Promise<unknown>, engine: AttachedEngine) {
    this.#child = child;
    this.#ended = ended;
    this.engine = engine;
  }

  static async start(folder: string): Promise<SpdkProcess> {
    if (spdkProgram === null) throw new Error(`no SPDK${spdkMissing}`);
    const rpcPath = join(folder, 'spdk.sock');
    const args = ['-m', '0x1', '--no-huge', '-s', '1024', '--no-pci', '-r', rpcPath];
    const child = spawn(spdkProgram, [...args, '--disable-cpumask-locks'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text) => (said += String(text)));
    const ended = once(child, 'exit');
    const until = systemClock.now() + startMsMax;
    for (;;) {
      const engine = await attachEngine({ rpcPath }).catch(() => null);
      // Methods that work come with the end of its initialization.
      if (engine?.capabilities.methods.has('bdev_get_bdevs')) return new SpdkProcess(child, ended, engine);
      await engine?.close();
      if (child.exitCode !== null)
        throw new Error(`spdk_tgt ended with exit code ${child.exitCode}: ${said.slice(-2000)}`);
      if (systemClock.now() > until) throw new Error(`spdk_tgt did not serve ${rpcPath}: ${said.slice(-2000)}`);
      await systemClock.sleep(100);
    }
  }

  async call(method: string, params: object): Promise<unknown> {
    this.calls.push(method);
    await this.before(method, params as Record<string, unknown>);
    return this.engine.call(method, params);
  }

  /** In good order: its stores are clean afterwards. */
  close(): Promise<void> {
    return this.#end('SIGTERM');
  }

  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    await this.engine.close();
    this.#child.kill(signal);
    await this.#ended;
  }
}

/** SPDK does not choose one by itself. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** It is there, and may be executed. */
export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
