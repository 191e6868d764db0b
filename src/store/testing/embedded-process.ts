// SPDX-License-Identifier: Apache-2.0
//
// The embedded store as a process of its own, for tests that kill or stop it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../engine/native/addon.js';

const program = join(packageRoot(), 'dist', 'src', 'store', 'testing', 'embedded-server.js');

export class EmbeddedProcess {
  readonly endpoint: string;
  readonly #child: ChildProcess;

  private constructor(endpoint: string, child: ChildProcess) {
    this.endpoint = endpoint;
    this.#child = child;
  }

  /** Resolves when it serves; rejects with what it wrote to stderr when it ends before. */
  static async launch(directory: string, port = 0): Promise<EmbeddedProcess> {
    const child = spawn(process.execPath, [program, directory, String(port)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let problem = '';
    child.stderr.on('data', (bytes: Buffer) => {
      problem += bytes.toString();
    });
    const lines = createInterface({ input: child.stdout });
    const [line] = (await Promise.race([once(lines, 'line'), once(child, 'exit')])) as [unknown];
    if (typeof line !== 'string' || !line.startsWith('http'))
      throw new Error(`the embedded store did not start: ${problem}`);
    return new EmbeddedProcess(line, child);
  }

  get port(): number {
    return Number(new URL(this.endpoint).port);
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}
