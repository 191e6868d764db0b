// SPDX-License-Identifier: Apache-2.0
// Runs the GoogleTest programs of a build folder, as many at once as there are cores, and shows the output of those that fail.
//
//   node scripts/lib/run-native-tests.mjs <folder of programs> <result file> [program...]
//
// Writes `passed failed skipped` to the result file; a program that crashes, hangs or runs nothing counts as a failure.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scan_native, test_targets } from '../native-units.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [folder, result_file, ...only] = process.argv.slice(2);
// Programs of another architecture are run by this command.
const emulator = (process.env.BASALT_EMULATOR ?? '').split(' ').filter((word) => word !== '');
const timeout_ms = emulator.length > 0 ? 7_200_000 : 900_000;
const scratch = mkdtempSync(join(tmpdir(), 'basalt-gtest-'));
const total = { passed: 0, failed: 0, skipped: 0 };

/** Counts from GoogleTest's own report; null when the program ended before writing one. */
function counts(report_path) {
  if (!existsSync(report_path)) return null;
  const report = JSON.parse(readFileSync(report_path, 'utf8'));
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const test of report.testsuites.flatMap((suite) => suite.testsuite)) {
    if ((test.failures ?? []).length > 0) sum.failed += 1;
    else if (test.result === 'SKIPPED' || test.status === 'NOTRUN') sum.skipped += 1;
    else sum.passed += 1;
  }
  return sum;
}

function run(name) {
  const [program, ...before] = [...emulator, resolve(folder, name)];
  const report_path = join(scratch, `${name}.json`);
  const started_ms = performance.now();
  const child = spawn(
    program,
    [...before, `--gtest_output=json:${report_path}`, '--gtest_brief=1', '--gtest_color=no'],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, BASALT_SOURCE_DIR: root.replace(/\/$/, '') },
    },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  let timed_out = false;
  const timer = setTimeout(() => {
    timed_out = true;
    child.kill('SIGABRT');
    setTimeout(() => child.kill('SIGKILL'), 5_000).unref();
  }, timeout_ms);
  return new Promise((done) => {
    child.on('error', (error) => (output += `${error.message}\n`));
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const seconds = ((performance.now() - started_ms) / 1000).toFixed(1);
      done({ name, code, signal, timed_out, output, seconds, sum: counts(report_path) });
    });
  });
}

function account({ name, code, signal, timed_out, output, seconds, sum }) {
  const found = sum ?? { passed: 0, failed: 0, skipped: 0 };
  const died = sum === null || (code !== 0 && found.failed === 0);
  if (died) found.failed += 1;
  if (found.passed + found.failed + found.skipped === 0) found.failed += 1;
  for (const key of Object.keys(total)) total[key] += found[key];
  const skipped = found.skipped > 0 ? `, ${found.skipped} skipped` : '';
  console.log(
    `  ${found.failed > 0 ? 'FAIL' : 'ok  '} ${name}: ${found.passed} passed, ${found.failed} failed${skipped} (${seconds} s)`,
  );
  if (timed_out) console.log(`       ended after ${timeout_ms / 1000} s without finishing`);
  else if (died) console.log(`       ended with ${signal ?? `exit code ${code}`} before its report was complete`);
  if (found.failed > 0) console.log(output.slice(-20_000).replace(/^/gm, '       '));
}

const all = test_targets(scan_native(join(root, 'native')));
const unknown = only.filter((name) => !all.includes(name));
if (unknown.length > 0) throw new Error(`no such test program: ${unknown.join(', ')}`);
// What takes longest begins first, so that nothing runs alone at the end.
const long = ['test_sim_data', 'test_bdev_lvol', 'test_bdev_raid', 'test_nvmf_transport', 'test_bdev_leg', 'test_sim'];
const wanted = only.length > 0 ? only : all;
const waiting = [...long.filter((name) => wanted.includes(name)), ...wanted.filter((name) => !long.includes(name))];
async function worker() {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) account(await run(name));
}
await Promise.all(Array.from({ length: availableParallelism() }, worker));
rmSync(scratch, { recursive: true, force: true });
writeFileSync(result_file, `${total.passed} ${total.failed} ${total.skipped}\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
