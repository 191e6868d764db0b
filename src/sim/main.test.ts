// SPDX-License-Identifier: Apache-2.0
//
// Goal: the simulator can run one plan in a process of its own, and gets the same answer for the same plan each time.

import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../engine/native/addon.js';
import { rareEventTexts } from './rare-events.js';

const program = join(packageRoot(), 'dist', 'src', 'sim', 'main.js');
const plan = '{"suite":"cluster-ts","seed":"0x4","reduction":{"steps":[0,1,2,3],"clients":[1,2],"ops_max":40}}';

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function start(...words: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...words], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

describe('a run in a process of its own', { timeout: 300_000 }, () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'basalt-sim-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('answers with one object, the same for the same plan, whoever listens', async () => {
    const history = join(folder, 'history.ndjson');
    const first = await start(plan);
    expect(first).toMatchObject({ code: 0, stderr: '' });
    const answer = JSON.parse(first.stdout) as Record<string, unknown>;
    expect(answer).toMatchObject({ failure: 'none', explanation: '', steps: 19, clients: 4 });
    expect(answer['trace']).toMatch(/^[0-9a-f]{16}$/);
    // Those of the agents, and those of native code that were reached.
    const events = answer['rare_events'] as { name: string; count: number }[];
    expect(events.map(({ name }) => name)).toEqual(expect.arrayContaining(Object.keys(rareEventTexts)));
    const native = events.filter(({ name }) => !Object.hasOwn(rareEventTexts, name));
    expect(native.length).toBeGreaterThan(0);
    expect(native.every(({ count }) => count > 0)).toBe(true);
    const second = await start(plan, '--verbose', '--history', history);
    expect(second.stdout).toBe(first.stdout);
    expect(second.stderr).toMatch(/^ 1000\.000000 {2}d1 {7}start$/m);
    expect(readFileSync(history, 'utf8')).toContain('{"history":1,');
  });

  it('says what is wrong with its arguments', async () => {
    const wrong = [
      [[], 'one argument is needed: the text of a plan'],
      [['{}'], 'suite: must be cluster-ts'],
      [[plan, '--loud'], "Unknown option '--loud'"],
    ] as const;
    for (const [words, message] of wrong) {
      const { code, stdout, stderr } = await start(...words);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain(message);
    }
  });
});
