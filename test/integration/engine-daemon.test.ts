// SPDX-License-Identifier: Apache-2.0
// `basalt engine`: the engine alone, until it is told to end.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { attachEngine } from '../../src/engine/attached/attached-engine.js';

const basalt = commandPath();
let folder: string;
let engine: ChildProcess;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-engine-daemon-'));
});

afterEach(() => {
  if (engine.exitCode === null && engine.signalCode === null) engine.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

it('an engine alone goes on serving its socket, and ends in good order when it is told to', async () => {
  const rpcPath = join(folder, 'rpc.sock');
  engine = spawn(process.execPath, [basalt, 'engine', '--rpc', rpcPath, '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = once(engine, 'exit');
  const said = once(createInterface({ input: engine.stdout as NodeJS.ReadableStream }), 'line');
  const [line] = await Promise.race([said, ended.then(([code]) => Promise.reject(new Error(`ended with ${code}`)))]);
  expect(JSON.parse(String(line))).toMatchObject({ ready: 'engine', rpc: rpcPath });
  const far = await attachEngine({ rpcPath });
  expect(await far.rpc('bdev_null_create', { name: 'n0', num_blocks: 8, block_size: 512 })).toBe('n0');
  await far.close();
  // A process that nothing keeps ends by itself, with another code than this.
  engine.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
});
