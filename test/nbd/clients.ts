// SPDX-License-Identifier: Apache-2.0
// The NBD clients of the distribution, as programs. One that is missing is a failure which names its package.

import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { runCommand } from '../lab/command.js';

const packageOf = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  fio: 'fio',
} as const;

export type Client = keyof typeof packageOf;

async function find(client: Client): Promise<string> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, client);
    const usable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return path;
  }
  const name = packageOf[client];
  throw new Error(`${client} is missing: it comes with the Debian package ${name} (apt-get install -y ${name})`);
}

/** Runs a client to its end; the test fails with the client's own words when it does not succeed. */
export async function run(client: Client, ...args: string[]): Promise<string> {
  const result = await runCommand(await find(client), args, { timeoutMs: 60_000 });
  const out = result.stdout.toString('utf8');
  if (result.exitCode !== 0) {
    throw new Error(`${client} ${args.join(' ')}: exit code ${result.exitCode}\n${out}\n${result.stderr}`);
  }
  return out;
}

/** The same for a client that must refuse; gives what it said. */
export async function runRefused(client: Client, ...args: string[]): Promise<string> {
  const result = await runCommand(await find(client), args, { timeoutMs: 60_000 });
  const said = `${result.stdout.toString('utf8')}\n${result.stderr}`;
  if (result.exitCode === 0) throw new Error(`${client} ${args.join(' ')}: succeeded\n${said}`);
  return said;
}
