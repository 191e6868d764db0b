// SPDX-License-Identifier: Apache-2.0
// Runs one program of the machine to its end and hands back what it said. No shell, no hidden retries.

import { spawn } from 'node:child_process';

export interface CommandResult {
  readonly exitCode: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly cwd?: string;
  readonly input?: Buffer | string;
  readonly env?: NodeJS.ProcessEnv;
  /** @default 300_000 */
  readonly timeoutMs?: number;
}

/** Resolves with the exit code, whatever it is; rejects only when the program cannot be started or runs into its deadline. */
export function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? 300_000;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let expired = false;
    const timer = setTimeout(() => {
      expired = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A program that exits before it read all its input is judged by its exit code, not by EPIPE.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (exitCode) => {
      clearTimeout(timer);
      if (expired) {
        reject(new Error(`${program} ${args.join(' ')}: still running after ${timeoutMs} ms, killed`));
        return;
      }
      resolve({
        exitCode,
        stdout: Buffer.concat(stdout),
        stderr: Buffer.concat(stderr).toString('utf8'),
      });
    });
  });
}

/** Like runCommand, but a non-zero exit code is an error that quotes the program's own words. */
export async function mustRun(program: string, args: readonly string[], options: CommandOptions = {}): Promise<Buffer> {
  const result = await runCommand(program, args, options);
  if (result.exitCode !== 0) {
    throw new Error(`${program} ${args.join(' ')}: exit code ${result.exitCode}\n${result.stderr.trim()}`);
  }
  return result.stdout;
}
