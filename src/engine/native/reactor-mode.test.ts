// SPDX-License-Identifier: Apache-2.0
//
// Goal: how a reactor waits changes while it serves, one reactor at a time. Method: what the reactors count: one that
// sleeps is seen to, one that is busy turns on and on and never does.

import { expect, it, vi } from 'vitest';
import type { ReactorDescription } from '../descriptions.js';
import { createNativeEngine } from './native-engine.js';

it('a reactor that is made busy never sleeps while the other one does, and sleeps again when it may', async () => {
  const engine = createNativeEngine({ reactors: 2 });
  try {
    const reactor = async (lcore: number): Promise<ReactorDescription> => {
      const found = (await engine.rpc('framework_get_reactors')).reactors[lcore];
      if (found === undefined) throw new Error(`no reactor ${lcore}`);
      return found;
    };
    // To be asked wakes it: it has slept in between.
    const sleeps = async (lcore: number): Promise<void> => {
      const { sleeps: before } = await reactor(lcore);
      await vi.waitFor(async () => expect((await reactor(lcore)).sleeps).toBeGreaterThan(before), 10_000);
    };
    await sleeps(1);
    await engine.rpc('basalt_reactor_set_mode', { mode: 'busy', lcore: 1 });
    const first = await reactor(1);
    expect([first.mode, (await reactor(0)).mode]).toEqual(['busy', 'adaptive']);
    // Far more idle turns than anything else gives it.
    await vi.waitFor(async () => expect((await reactor(1)).idle).toBeGreaterThan(first.idle + 10_000), 30_000);
    expect((await reactor(1)).sleeps).toBe(first.sleeps);
    await sleeps(0);

    await engine.rpc('bdev_malloc_create', { name: 'm', num_blocks: 64, block_size: 4096 });
    const handle = await engine.openBdev('m');
    const block = new Uint8Array(engine.allocate(4096)).fill(7);
    for (const mode of ['interrupt', 'busy', 'adaptive'] as const) {
      const writing = handle.write(0, block);
      await engine.rpc('basalt_reactor_set_mode', { mode });
      await writing;
    }
    await handle.close();
    await sleeps(1);
  } finally {
    await engine.close();
  }
});
