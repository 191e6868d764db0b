// SPDX-License-Identifier: Apache-2.0

import { expect, it } from 'vitest';
import { createNativeEngine } from './native-engine.js';

it('bdev_get_iostat counts what was asked of each bdev, in operations and bytes', async () => {
  const engine = createNativeEngine();
  try {
    await engine.rpc('bdev_malloc_create', { name: 'm', num_blocks: 64, block_size: 4096 });
    const handle = await engine.openBdev('m');
    const view = new Uint8Array(engine.allocate(8192));
    await handle.write(0, view);
    await handle.write(8192, view.subarray(0, 4096));
    await handle.read(0, view);
    await handle.flush();
    await handle.close();
    const { bdevs, tick_rate } = await engine.rpc('bdev_get_iostat', { name: 'm' });
    expect(tick_rate).toBe(1_000_000_000);
    expect(bdevs).toEqual([
      expect.objectContaining({
        name: 'm',
        num_write_ops: 2,
        bytes_written: 12288,
        num_read_ops: 1,
        bytes_read: 8192,
        num_flush_ops: 1,
        num_unmap_ops: 0,
      }),
    ]);
    await expect(engine.rpc('bdev_get_iostat', { name: 'nobody' })).rejects.toMatchObject({ code: -19 });
  } finally {
    await engine.close();
  }
});
