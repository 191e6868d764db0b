// SPDX-License-Identifier: Apache-2.0
// A real spdk_tgt behind the contract, where there is one.

import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type VocabularyWorld, vocabularyContract } from '../contract-vocabulary.js';
import { createNativeEngine } from '../native/native-engine.js';
import { spdkProblem } from './spdk-version.js';
import { SpdkBridge } from './testing/spdk-bridge.js';
import { SpdkProcess, spdkMissing } from './testing/spdk-process.js';

async function inFolder(start: (folder: string) => ReturnType<VocabularyWorld['start']>): Promise<VocabularyWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'basalt-vocabulary-'));
  return {
    start: () => start(folder),
    makeDisk: async (name, bytes) => {
      const file = await open(join(folder, name), 'w');
      await file.truncate(bytes).finally(() => file.close());
      return join(folder, name);
    },
    dispose: () => rm(folder, { recursive: true, force: true }),
  };
}

vocabularyContract('native', false, () => inFolder(() => Promise.resolve(createNativeEngine())));
vocabularyContract(`SPDK${spdkMissing}`, spdkMissing !== '', () =>
  inFolder(async (folder) => new SpdkBridge(await SpdkProcess.start(folder))),
);

describe.skipIf(spdkMissing !== '')(`a real SPDK${spdkMissing}`, () => {
  it('can have the drives of a node, and declares what else it does not promise', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'basalt-real-spdk-'));
    const spdk = await SpdkProcess.start(folder);
    try {
      expect(spdkProblem(spdk.engine.capabilities)).toBeNull();
      expect(spdk.engine.capabilities.missing).toEqual(expect.arrayContaining(['member gate', 'write-intent marks']));
    } finally {
      await spdk.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
