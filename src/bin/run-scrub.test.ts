// SPDX-License-Identifier: Apache-2.0

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createNativeEngine } from '../engine/native/native-engine.js';
import { runScrub } from './run-scrub.js';

let folder: string;
let rpcPath: string;
let engine: Engine;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-scrub-'));
  rpcPath = join(folder, 'rpc.sock');
  engine = createNativeEngine({ rpcPath });
});

afterEach(async () => {
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

const request = { bytesPerS: 0, fromBytes: 0, repair: false };

it('scrubs lvols and raids of an engine behind a socket', async () => {
  for (const name of ['a', 'b', 'c'])
    await engine.rpc('bdev_malloc_create', { name, num_blocks: 8192, block_size: 4096 });
  const raid = { name: 'r', raid_level: 'raid5' as const, base_bdevs: ['a', 'b', 'c'], strip_size_kb: 16 };
  await engine.rpc('bdev_raid_create', raid);
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'r', lvs_name: 'lvs' });
  const lvol = { lvs_name: 'lvs', lvol_name: 'v', size_in_mib: 8, thin_provision: true, checksums: true };
  await engine.rpc('bdev_lvol_create', lvol);
  const handle = await engine.openBdev('lvs/v');
  await handle.write(0, new Uint8Array(65536).fill(7));
  await handle.close();
  const told: number[] = [];
  const found = await runScrub({ ...request, rpcPath, name: 'lvs/v' }, (percent) => told.push(percent));
  expect(found).toMatchObject({ kind: 'lvol', finished: true, sound: true, counts: { checkedBlocks: 16 } });
  expect(told).toEqual([100]);
  expect(await runScrub({ ...request, rpcPath, name: 'r' }, () => {})).toMatchObject({ kind: 'raid5', sound: true });
});

it('scrubs a leg, tells how far it is, and repairs only when asked to', async () => {
  for (const name of ['a', 'b']) await engine.rpc('bdev_malloc_create', { name, num_blocks: 2048, block_size: 4096 });
  const one = await engine.openBdev('b');
  await one.write(4096 * 7, new Uint8Array(4096).fill(9));
  await one.close();
  const members = ['a', 'b'].map((name) => ({ name, in_sync: true }));
  await engine.rpc('basalt_leg_create', { name: 'leg', epoch: 1, members, all_dirty: false, lease_ms: 300 });
  const told: number[] = [];
  const found = await runScrub({ ...request, rpcPath, name: 'leg' }, (percent) => told.push(percent));
  expect(found).toMatchObject({ kind: 'leg', finished: true, percent: 100, sound: false });
  expect(found.counts).toMatchObject({ comparedBlocks: 2048, differentBlocks: 1, repairedBlocks: 0 });
  expect(told.at(-1)).toBe(100);
  await runScrub({ ...request, rpcPath, name: 'leg', repair: true }, () => {});
  expect(await runScrub({ ...request, rpcPath, name: 'leg' }, () => {})).toMatchObject({ sound: true });
});

it('says what is wrong with a name, and with a socket that nobody serves', async () => {
  await expect(runScrub({ ...request, rpcPath, name: 'none' }, () => {})).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('none'),
  });
  await expect(runScrub({ ...request, rpcPath: join(folder, 'no'), name: 'r' }, () => {})).rejects.toThrow();
});
