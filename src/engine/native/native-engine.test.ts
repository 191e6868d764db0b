// SPDX-License-Identifier: Apache-2.0

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { engineContract } from '../contract.js';
import { createNativeEngine } from './native-engine.js';

engineContract('native', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'basalt-engine-'));
  return {
    makeEngine: () => createNativeEngine(),
    diskPath: (name) => join(folder, name),
    dispose: () => rm(folder, { recursive: true, force: true }),
  };
});
