// SPDX-License-Identifier: Apache-2.0
// `basalt up` as a terminal sees it: its children do not get the terminal's signals, and none outlives it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { freePorts } from '../../scripts/demo/processes.js';
import { systemClock } from '../../src/env/clock.js';

const basalt = commandPath();
let folder: string;
let up: ChildProcess;

/** Without nodes: what is tested is the supervisor, and no engine is needed. */
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-up-'));
  const [store, api] = await freePorts(2);
  const config = { store: { listen: `127.0.0.1:${store}` }, api: { listen: `127.0.0.1:${api}` }, nodes: [] };
  writeFileSync(join(folder, 'cluster.json'), JSON.stringify(config));
  // A group of its own, as a shell gives each job.
  up = spawn(process.execPath, [basalt, 'up', '--config', 'cluster.json', '--json'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'ignore'],
    detached: true,
  });
  const [line] = await once(createInterface({ input: up.stdout as NodeJS.ReadableStream }), 'line');
  expect(JSON.parse(String(line))).toMatchObject({ ready: 'up' });
});

afterEach(() => {
  // SIGKILL is what it cannot pass on.
  if (up.exitCode === null && up.signalCode === null)
    for (const pid of [...childrenOf(up.pid), up.pid as number]) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

function childrenOf(pid: number | undefined): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        return (
          readFileSync(`/proc/${entry}/stat`, 'utf8')
            .replace(/^.*\) /s, '')
            .split(' ')[1] === String(pid)
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function gone(pids: readonly number[]): Promise<void> {
  const endMs = systemClock.now() + 30_000;
  while (pids.some((pid) => existsSync(`/proc/${pid}`))) {
    if (systemClock.now() > endMs) throw new Error(`still there: ${pids.filter((pid) => existsSync(`/proc/${pid}`))}`);
    await systemClock.sleep(20);
  }
}

it.each<NodeJS.Signals>(['SIGINT', 'SIGHUP'])(
  'ends its children in order when the terminal sends its group %s',
  async (signal) => {
    const children = childrenOf(up.pid);
    expect(children).toHaveLength(2);
    const ended = once(up, 'exit');
    process.kill(-(up.pid as number), signal);
    expect(await ended).toEqual([0, null]);
    await gone(children);
  },
);

it('is in no group with its children, so that a terminal cannot end the store before the nodes', () => {
  const groupOf = (pid: number): string | undefined =>
    readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')[2];
  for (const child of childrenOf(up.pid)) expect(groupOf(child)).not.toBe(groupOf(up.pid as number));
});

it('takes its children along when a second signal ends it at once', async () => {
  const [child = 0, ...others] = childrenOf(up.pid);
  // One that does not end by itself: the first signal waits for it.
  process.kill(child, 'SIGSTOP');
  const ended = once(up, 'exit');
  up.kill('SIGINT');
  await systemClock.sleep(100);
  up.kill('SIGINT');
  expect(await ended).toEqual([130, null]);
  await gone([child, ...others]);
});

it('leaves no child behind when it is killed', async () => {
  const children = childrenOf(up.pid);
  expect(children).toHaveLength(2);
  up.kill('SIGKILL');
  await gone(children);
});
