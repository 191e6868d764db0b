// SPDX-License-Identifier: Apache-2.0
//
// The part of the engine contract about scrubbing, and about lvstores that are opened to be read only.

import { expect, it } from 'vitest';
import { systemClock } from '../env/clock.js';
import { expectRefusal, pattern } from './contract-tools.js';
import type { Engine } from './engine.js';
import { type ScrubContext, type ScrubRequest, scrubBdev } from './scrub.js';

const mib = 2 ** 20;
const all: Omit<ScrubRequest, 'name'> = { bytesPerS: 0, fromBytes: 0, repair: false };

/** Ends the scrub after so many words of progress. */
function context(told: number[], endAfter = Number.POSITIVE_INFINITY): ScrubContext {
  const ending = new AbortController();
  return {
    clock: systemClock,
    signal: ending.signal,
    progress: (percent) => {
      told.push(percent);
      if (told.length >= endAfter) ending.abort();
    },
  };
}

async function makeLvol(engine: Engine, path: string): Promise<void> {
  const disk = { name: 'disk', filename: path, block_size: 4096, create_bytes: 256 * mib };
  await engine.rpc('bdev_aio_create', disk);
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  const lvol = { lvs_name: 'lvs', lvol_name: 'v', size_in_mib: 160, thin_provision: true, checksums: true };
  await engine.rpc('bdev_lvol_create', lvol);
  const handle = await engine.openBdev('lvs/v');
  await handle.write(0, pattern(mib, 7));
  await handle.write(100 * mib, pattern(mib, 8));
  await handle.flush();
  await handle.close();
}

export function scrubbing(start: () => Engine, diskPath: (name: string) => string): void {
  it('scrubs an lvol piece by piece, and goes on where it was ended', async () => {
    const engine = start();
    await makeLvol(engine, diskPath('d0'));
    const told: number[] = [];
    const whole = await scrubBdev(engine, { ...all, name: 'lvs/v' }, context(told));
    expect(whole).toEqual({
      name: 'lvs/v',
      kind: 'lvol',
      finished: true,
      percent: 100,
      nextBytes: null,
      sound: true,
      counts: { checkedBlocks: 512, badBlocks: 0 },
    });
    expect(told).toEqual([40, 80, 100]);
    const first = await scrubBdev(engine, { ...all, name: 'lvs/v' }, context([], 1));
    expect(first).toMatchObject({ finished: false, percent: 40, counts: { checkedBlocks: 256 } });
    expect(first.nextBytes).toBe(64 * mib);
    const rest = await scrubBdev(engine, { ...all, name: 'lvs/v', fromBytes: first.nextBytes ?? 0 }, context([]));
    expect(rest).toMatchObject({ finished: true, counts: { checkedBlocks: 256 } });
    await expect(scrubBdev(engine, { ...all, name: 'lvs/none' }, context([]))).rejects.toThrow('none');
  });

  it('refuses to scrub what cannot be scrubbed', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
    await expect(scrubBdev(engine, { ...all, name: 'm0' }, context([]))).rejects.toThrow('m0');
  });

  it('opens an lvstore to be read only, and neither changes nor deletes it then', async () => {
    const path = diskPath('d0');
    const first = start();
    await makeLvol(first, path);
    await first.close();
    const engine = start();
    await engine.rpc('bdev_aio_create', { name: 'disk', filename: path, block_size: 4096 });
    expect(await engine.rpc('bdev_examine', { name: 'disk', read_only: true })).toBe(true);
    expect(await engine.rpc('bdev_examine', { name: 'disk', read_only: true })).toBe(true);
    await expectRefusal(engine.rpc('bdev_examine', { name: 'disk' }), 'busy', 'read-only');
    expect(await engine.rpc('bdev_lvol_get_lvstores', {})).toMatchObject([{ name: 'lvs', read_only: true }]);
    const handle = await engine.openBdev('lvs/v');
    const back = new Uint8Array(mib);
    await handle.read(100 * mib, back);
    expect(Buffer.compare(back, pattern(mib, 8))).toBe(0);
    await expect(handle.write(0, pattern(4096, 1))).rejects.toThrow();
    await handle.close();
    await expectRefusal(engine.rpc('bdev_lvol_delete_lvstore', { lvs_name: 'lvs' }), 'busy', 'lvs');
    const lvol = { lvs_name: 'lvs', lvol_name: 'w', size_in_mib: 1, thin_provision: true };
    await expect(engine.rpc('bdev_lvol_create', lvol)).rejects.toThrow();
  });
}
