// SPDX-License-Identifier: Apache-2.0
// Goal: what a stock Linux host is told about a replicated volume is one consistent history, through the death of the active
// controller, its return, and a crash of the host itself, after which another kernel goes on. Method: basalt_history in
// the guests puts down every operation on a disk that outlives them, and the checker judges it. So that a judge who sees
// nothing is noticed, old blocks are put back behind its back at the end.

import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/engine/native/addon.js';
import { systemRandom } from '../../src/env/random.js';
import { checkHistory } from '../chaos/checker.js';
import { packFreight } from '../lab/freight.js';
import { Guest } from '../lab/guest.js';
import type { KernelSeries } from '../lab/kernel.js';
import type { GuestDevice } from '../lab/qemu-arguments.js';
import { ClusterTarget } from './cluster-target.js';
import { clientCount, goOnScript, recordScript } from './history-scripts.js';

const MiB = 1024 * 1024;
const guestMsMax = 240_000;
const seed = Number(process.env['BASALT_SEED'] ?? systemRandom.bytes(4).readUInt32LE() >>> 1);
let cluster: ClusterTarget;
let folder: string;
let devices: GuestDevice[];

beforeAll(async () => {
  process.stderr.write(`history: BASALT_SEED=${seed}\n`);
  // Not /tmp, which may be a file system without O_DIRECT.
  folder = await mkdtemp(join('/var/tmp', 'basalt-history-'));
  const [freight, history] = [join(folder, 'freight.tar'), join(folder, 'history')];
  await packFreight(freight, [join(packageRoot(), 'build', 'release', 'basalt_history')]);
  const file = await open(history, 'w');
  await file.truncate(32 * MiB);
  await file.close();
  devices = [freight, history].map((path) => ({ kind: 'disk', path }));
  cluster = await ClusterTarget.start();
});

afterAll(async () => {
  await cluster?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

interface Line {
  readonly op?: 'read' | 'write' | 'zero' | 'flush';
  readonly id: number;
  readonly inv: number;
  readonly end?: number;
  readonly status: string;
}

/** The history on the disk as it is now: whole lines before the first zero byte. */
async function historyNow(): Promise<{ text: string; lines: Line[] }> {
  const bytes = await readFile(join(folder, 'history'));
  const text = bytes.subarray(0, bytes.indexOf(0)).toString();
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  const lines = whole.split('\n').filter((line) => line !== '');
  return { text: whole, lines: lines.map((line) => JSON.parse(line) as Line) };
}

const lastMoment = (lines: readonly Line[]): number => Math.max(...lines.map(({ inv, end }) => end ?? inv ?? 0));

/** Enough of everything, that began after `sinceNs`. */
function expectWork(lines: readonly Line[], sinceNs: number, what: string): void {
  const count = (op: Line['op']): number =>
    lines.filter((line) => line.op === op && line.status === 'ok' && line.inv > sinceNs).length;
  const counts = { read: count('read'), write: count('write'), zero: count('zero'), flush: count('flush') };
  process.stderr.write(`history: ${what}: ${JSON.stringify(counts)}\n`);
  expect(counts.read, what).toBeGreaterThan(80);
  expect(counts.write, what).toBeGreaterThan(80);
  expect(counts.zero, what).toBeGreaterThan(4);
  expect(counts.flush, what).toBeGreaterThan(4);
}

function boot(name: string, kernel: KernelSeries, script: string): Promise<Guest> {
  return Guest.boot({ name, script, system: { kernel, equipment: [] }, devices, timeoutMs: guestMsMax });
}

async function judged(name: string, text: string): Promise<{ right: boolean; said: string }> {
  const path = join(folder, name);
  await writeFile(path, text);
  return checkHistory(path);
}

test("a host's history is right through a controller's death and return, and a crash of the host", async () => {
  const first = await boot('history-record', '6.1', recordScript(await cluster.paths(), seed));
  try {
    await first.waitForMark('recording', { timeoutMs: guestMsMax });
    expectWork((await historyNow()).lines, 0, 'before the kill');
    await cluster.killActive();
    const killedNs = lastMoment((await historyNow()).lines);
    first.go('killed');
    await first.waitForMark('survived', { timeoutMs: guestMsMax });
    expectWork((await historyNow()).lines, killedNs, 'after the kill');
    await cluster.restartKilled();
    first.go('restarted');
    await first.waitForMark('crash-me', { timeoutMs: guestMsMax });
    await first.crash();
  } finally {
    await first.stop();
  }
  const crashed = await historyNow();
  const told = new Set(crashed.lines.filter(({ status }) => status === 'ok').map(({ id }) => id));
  const open = crashed.lines.filter(({ status, id }) => status === 'sent' && !told.has(id)).length;
  expect(crashed.lines.filter(({ status }) => status === 'info' || status === 'fail')).toEqual([]);
  expect(open, 'writes under way when the host crashed').toBeLessThanOrEqual(clientCount);

  const second = await boot('history-go-on', '6.12', goOnScript(await cluster.paths(), seed + 1));
  try {
    await second.waitForMark('recorded', { timeoutMs: guestMsMax });
    const recorded = await historyNow();
    expectWork(recorded.lines, lastMoment(crashed.lines), 'after the crash');
    const judgement = await judged('recorded.ndjson', recorded.text);
    process.stderr.write(
      `history: ${open} writes open at the crash, ${recorded.text.length} bytes: ${judgement.said}\n`,
    );
    expect(judgement.right, judgement.said).toBe(true);
    second.go('spoil');
    const result = await second.result();
    expect(result.rc, result.log).toBe(0);
  } finally {
    await second.stop();
  }
  const spoilt = await checkHistory(join(folder, 'history'));
  expect(spoilt.right, 'the checker sees old blocks').toBe(false);
  expect(spoilt.said).toMatch(/^R[238]: block \d+: /m);
});
