// SPDX-License-Identifier: Apache-2.0
//
// npm run chaos [-- OPTIONS]: a cluster of processes under mixed verifying load and a fault a minute. The last line is
// `N passed, N failed`; exit code 0 when nothing failed.

import { randomInt } from 'node:crypto';
import { type ChaosOptions, parseOptions, usage } from './options.js';
import { ChaosRun } from './run.js';

async function main(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  let options: ChaosOptions;
  try {
    options = parseOptions(args, randomInt(2 ** 32));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const run = new ChaosRun(options);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      run.endNow();
      run.removeFolder();
      process.stderr.write('interrupted: everything that was started has been ended\n');
      process.exit(signal === 'SIGINT' ? 130 : 143);
    });
  }
  const { minutes, seed, store } = options;
  process.stderr.write(`seed ${seed}, ${minutes} minutes, store ${store}, files in ${run.folder}\n`);
  try {
    await run.run();
  } catch (error) {
    run.report.check('the run came to its end', false, error instanceof Error ? (error.stack ?? '') : String(error));
  }
  run.conclude();
  await run.end();
  const { report } = run;
  if (report.failed === 0 && !options.keep) run.removeFolder();
  else process.stderr.write(`logs, histories and disks are in ${run.folder}\n`);
  process.stdout.write(`${options.json ? report.toJson() : report.toText()}\nseed ${seed}\n${report.verdict}\n`);
  return report.failed === 0 && report.checks.length > 0 ? 0 : 1;
}

const code = await main(process.argv.slice(2));
// What is still open here must not keep the verdict from its reader.
process.stdout.write('', () => process.exit(code));
