// SPDX-License-Identifier: Apache-2.0

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/engine/native/addon.js';

/**
 * The command `basalt` for who starts it as a process: scripts/build-command.mjs makes it of what tsc wrote.
 * @throws {Error} when there is none, or tsc wrote something since
 */
export function commandPath(): string {
  const dist = join(packageRoot(), 'dist');
  const path = join(dist, 'bin', 'basalt.js');
  const madeMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const compiledMs = statSync(join(dist, 'tsconfig.tsbuildinfo'), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (madeMs === 0 || madeMs < compiledMs)
    throw new Error(`${path} is ${madeMs === 0 ? 'missing' : 'older than what it is made of'}: npm run build makes it`);
  return path;
}
