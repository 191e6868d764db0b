// SPDX-License-Identifier: Apache-2.0
// Calls through the addon: one method, and one read, write and flush of an embedding program, each awaited alone.

import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import type { JsCases } from './main.js';

export async function engineCases(): Promise<JsCases> {
  const engine = createNativeEngine();
  await engine.rpc('bdev_null_create', { name: 'null', num_blocks: 1 << 20, block_size: 4096 });
  await engine.rpc('bdev_malloc_create', { name: 'malloc', num_blocks: 1 << 14, block_size: 4096 });
  const [none, memory] = [await engine.openBdev('null'), await engine.openBdev('malloc')];
  const block = new Uint8Array(engine.allocate(4096));
  const large = new Uint8Array(engine.allocate(1 << 20));
  const together = Array.from({ length: 32 }, () => new Uint8Array(engine.allocate(4096)));
  const all32 = async (): Promise<void> => {
    await Promise.all(together.map((view, i) => memory.read(i * 4096, view)));
  };
  return {
    cases: [
      { name: 'engine/rpc/spdk_get_version', run: () => engine.rpc('spdk_get_version') },
      { name: 'engine/read/null/4k', run: () => none.read(0, block) },
      { name: 'engine/read/malloc/4k', run: () => memory.read(4096, block) },
      { name: 'engine/write/malloc/4k', run: () => memory.write(4096, block) },
      { name: 'engine/flush/malloc', run: () => memory.flush() },
      { name: 'engine/read/malloc/1m', run: () => memory.read(0, large) },
      { name: 'engine/read/malloc/4k/32-at-once', run: all32 },
    ],
    end: async () => {
      await none.close();
      await memory.close();
      await engine.close();
    },
  };
}
