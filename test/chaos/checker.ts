// SPDX-License-Identifier: Apache-2.0
// The checker of histories, as a program: built by the script that runs the test; BASALT_CHECK names another.

import { join } from 'node:path';
import { packageRoot } from '../../src/engine/native/addon.js';
import { runCommand } from '../lab/command.js';

const checkerMsMax = 600_000;

export interface Judgement {
  readonly right: boolean;
  readonly said: string;
}

/** Of a history in a file, or on the image of a raw disk. */
export async function checkHistory(path: string): Promise<Judgement> {
  const checker = process.env['BASALT_CHECK'] ?? join(packageRoot(), 'build', 'release', 'basalt_check');
  const result = await runCommand(checker, [path], { timeoutMs: checkerMsMax });
  const said = `${result.stdout.toString()}${result.stderr}`.replaceAll(`${path}: `, '').trim();
  return { right: result.exitCode === 0, said: said.slice(0, 2000) };
}
