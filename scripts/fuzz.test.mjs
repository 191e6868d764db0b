// SPDX-License-Identifier: Apache-2.0
// Goal: `npm run fuzz` keeps what it finds, and when it is told to stop leaves no process and no half of a corpus.
// Method: a program in the place of a fuzzer that behaves like one, in a temporary folder.

import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const script = join(import.meta.dirname, 'lib/fuzz-run.sh');
const hash = 'a'.repeat(40);
const found = 'b'.repeat(40);

// Like libFuzzer it starts a process for a merge, and ends with 0 when it is told to.
const program = `#!/usr/bin/env bash
if [[ -n "\${BASALT_FUZZ_SEEDS:-}" ]]; then echo seed >"$BASALT_FUZZ_SEEDS/seed-one"; exit; fi
trap 'echo ended >>"$HOLD.ended"; exit 0' TERM INT
hold() {
  if [[ ! -e "$HOLD.$1" ]]; then return; fi
  sleep 300 &
  echo "$$ $!" >"$HOLD.pids"
  wait
}
for argument; do if [[ "$argument" == -* ]]; then options+=" $argument"; else folders+=("$argument"); fi; done
if [[ "$options" == *merge=1* ]]; then
  echo half >"\${folders[0]}/${'c'.repeat(40)}"
  hold merge
  cp "\${folders[2]}"/b* "\${folders[0]}"
  exit
fi
echo new >"\${folders[0]}/${found}"
hold fuzz
if [[ -e "$HOLD.crash" ]]; then echo crashed && exit 77; fi
echo "cov: 12 ft: 34"
echo "stat::number_of_executed_units: 56"
`;

let folder;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-fuzz-'));
  for (const name of ['build', 'corpus/demo', 'cache']) mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, 'build/fuzz_demo'), program);
  chmodSync(join(folder, 'build/fuzz_demo'), 0o755);
  writeFileSync(join(folder, 'corpus/demo', hash), 'old');
  writeFileSync(join(folder, 'corpus/demo/regression-7'), 'hurt once');
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (...names) => join(folder, ...names);
const corpus = () => readdirSync(at('corpus/demo')).sort();

function start(keep) {
  const options = [at('build'), at('corpus'), at('cache'), '1', String(keep), 'demo'];
  const env = { ...process.env, HOLD: at('hold') };
  const child = spawn('bash', [script, ...options], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  const ended = new Promise((resolve) => child.on('close', (code) => resolve({ code, output })));
  return { child, ended };
}

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    // A zombie has ended: whoever adopted it has not yet looked.
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
};

async function interrupted(where, keep) {
  writeFileSync(at(`hold.${where}`), '');
  const { child, ended } = start(keep);
  await expect
    .poll(() => existsSync(at('hold.pids')) && readFileSync(at('hold.pids'), 'utf8'), { timeout: 20_000 })
    .toMatch(/\n/);
  child.kill('SIGINT');
  const { code, output } = await ended;
  expect(code).toBe(130);
  for (const pid of readFileSync(at('hold.pids'), 'utf8').trim().split(' ')) expect(alive(Number(pid))).toBe(false);
  expect(corpus()).toEqual([hash, 'regression-7']);
  expect(readdirSync(at('cache/fuzz')).filter((name) => name.startsWith('merge'))).toEqual([]);
  return output;
}

it('counts targets, and leaves the committed corpus as it is', { timeout: 30_000 }, async () => {
  const { code, output } = await start(false).ended;
  expect(output).toMatch(/demo +56 execs +12 edges/);
  expect(output).toMatch(/\n1 passed, 0 failed\n$/);
  expect(code).toBe(0);
  expect(corpus()).toEqual([hash, 'regression-7']);
  expect(readdirSync(at('cache/fuzz/demo')).sort()).toEqual([found, 'seed-one']);
});

it('with --keep makes the corpus of what the merge chose, and of what once hurt', { timeout: 30_000 }, async () => {
  expect((await start(true).ended).code).toBe(0);
  expect(corpus()).toEqual([found, 'c'.repeat(40), 'regression-7']);
  expect(readFileSync(at('corpus/demo/regression-7'), 'utf8')).toBe('hurt once');
});

it('says that a target failed', { timeout: 30_000 }, async () => {
  writeFileSync(at('hold.crash'), '');
  const { code, output } = await start(false).ended;
  expect(output).toContain('0 passed, 1 failed');
  expect(code).toBe(1);
});

it('told to stop while it fuzzes, ends every process and keeps what was found', { timeout: 60_000 }, async () => {
  const output = await interrupted('fuzz', true);
  expect(output).toContain('interrupted');
  expect(output).toContain('0 passed, 0 failed');
  expect(readdirSync(at('cache/fuzz/demo'))).toContain(found);
});

it('told to stop while it merges, throws the half merged corpus away', { timeout: 60_000 }, async () => {
  const output = await interrupted('merge', true);
  expect(output).toContain('1 passed, 0 failed');
});
