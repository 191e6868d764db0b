// SPDX-License-Identifier: Apache-2.0

import { afterEach, expect, it } from 'vitest';
import type { Engine } from '../engine.js';
import { createNativeEngine } from './native-engine.js';

let engine: Engine | null = null;
afterEach(async () => {
  await engine?.close();
  engine = null;
});

async function withDisks(...names: string[]): Promise<Engine> {
  engine = createNativeEngine();
  for (const name of names) await engine.rpc('bdev_malloc_create', { name, num_blocks: 8192, block_size: 4096 });
  return engine;
}

const pattern = (bytes: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, at) => (at * 31 + seed * 7 + (at >> 12)) & 0xff);

async function untilOnlyInSync(from: Engine): Promise<void> {
  for (;;) {
    const [raid] = await from.rpc('bdev_raid_get_bdevs', { category: 'all' });
    if (raid?.num_base_bdevs_operational === raid?.num_base_bdevs && raid?.resync_percent === 100) return;
  }
}

it('raid5: an lvstore on it outlives a member and its replacement', async () => {
  const from = await withDisks('a', 'b', 'c', 'd', 'spare');
  for (const name of ['a', 'b', 'c', 'd']) await from.rpc('bdev_error_create', { base_name: name });
  const bases = ['EE_a', 'EE_b', 'EE_c', 'EE_d'];
  await from.rpc('bdev_raid_create', { name: 'r', raid_level: 'raid5', base_bdevs: bases, strip_size_kb: 16 });
  await from.rpc('bdev_lvol_create_lvstore', { bdev_name: 'r', lvs_name: 'lvs' });
  await from.rpc('bdev_lvol_create', { lvs_name: 'lvs', lvol_name: 'v', size_in_mib: 16, thin_provision: true });
  const handle = await from.openBdev('lvs/v');
  const data = pattern(1 << 20, 1);
  await handle.write(0, data);
  await from.rpc('bdev_error_inject_error', { name: 'EE_b', io_type: 'write', error_type: 'failure' });
  const small = pattern(4096, 2);
  await handle.write(8192, small);
  await handle.flush();
  const [broken] = await from.rpc('bdev_raid_get_bdevs', { category: 'online' });
  expect(broken).toMatchObject({ raid_level: 'raid5', num_base_bdevs: 4, num_base_bdevs_operational: 3 });
  expect(broken?.members?.map((member) => member.state)).toEqual(['in_sync', 'missing', 'in_sync', 'in_sync']);
  await from.rpc('bdev_raid_add_base_bdev', { raid_bdev: 'r', base_bdev: 'spare' });
  await untilOnlyInSync(from);
  const expected = data.slice();
  expected.set(small, 8192);
  const back = new Uint8Array(data.length);
  await handle.read(0, back);
  expect(Buffer.compare(back, expected)).toBe(0);
  await handle.close();
  expect(await from.rpc('basalt_raid_scrub', { name: 'r' })).toMatchObject({
    state: 'finished',
    percent: 100,
    different_blocks: 0,
    repaired_blocks: 0,
  });
});

it('raid5: a member that comes back gets what it missed, and one is replaced while it serves', async () => {
  const from = await withDisks('a', 'b', 'c', 'd', 'spare');
  for (const name of ['a', 'b', 'c', 'd']) await from.rpc('bdev_error_create', { base_name: name });
  const bases = ['EE_a', 'EE_b', 'EE_c', 'EE_d'];
  await from.rpc('bdev_raid_create', { name: 'r', raid_level: 'raid5', base_bdevs: bases, strip_size_kb: 16 });
  await untilOnlyInSync(from);
  const handle = await from.openBdev('r');
  const data = pattern(1 << 20, 3);
  await handle.write(0, data);
  await handle.flush();
  await from.rpc('bdev_error_inject_error', { name: 'EE_b', io_type: 'write', error_type: 'failure', num: 1 });
  await handle.write(0, data);
  await expect(from.rpc('bdev_raid_add_base_bdev', { raid_bdev: 'r', base_bdev: 'EE_a' })).rejects.toThrow('EE_a');
  await from.rpc('bdev_raid_add_base_bdev', { raid_bdev: 'r', base_bdev: 'EE_b' });
  await untilOnlyInSync(from);
  await expect(
    from.rpc('basalt_raid_replace_base_bdev', { name: 'r', base_bdev: 'spare', new_base_bdev: 'spare' }),
  ).rejects.toThrow('is not of its set');
  const exchanged = new Promise((resolve) => {
    from.on('event', (event) => {
      if (event.method === 'raid_member_exchanged') resolve(event.params);
    });
  });
  await from.rpc('basalt_raid_replace_base_bdev', { name: 'r', base_bdev: 'EE_c', new_base_bdev: 'spare' });
  expect(await exchanged).toEqual({ raid: 'r', member: 'spare', instead_of: 'EE_c' });
  const [raid] = await from.rpc('bdev_raid_get_bdevs', { category: 'all' });
  expect(raid?.base_bdevs_list).toEqual(['EE_a', 'EE_b', 'spare', 'EE_d']);
  // Nobody uses it any more.
  await from.rpc('bdev_error_delete', { name: 'EE_c' });
  await from.rpc('bdev_malloc_delete', { name: 'c' });
  const back = new Uint8Array(data.length);
  await handle.read(0, back);
  expect(Buffer.compare(back, data)).toBe(0);
  await handle.close();
  expect(await from.rpc('basalt_raid_scrub', { name: 'r' })).toMatchObject({ different_blocks: 0 });
});

it('raid5: grows with its members', async () => {
  const from = await withDisks('disk');
  await from.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs', cluster_sz: 65536 });
  const names = ['l0', 'l1', 'l2'];
  for (const name of names)
    await from.rpc('bdev_lvol_create', { lvs_name: 'lvs', lvol_name: name, size_in_mib: 4, thin_provision: true });
  const bases = names.map((name) => `lvs/${name}`);
  await from.rpc('bdev_raid_create', { name: 'r', raid_level: 'raid5', base_bdevs: bases, strip_size_kb: 16 });
  await untilOnlyInSync(from);
  const handle = await from.openBdev('r');
  const data = pattern(1 << 20, 4);
  await handle.write(0, data);
  const blocks = async (): Promise<number> => (await from.rpc('bdev_get_bdevs', { name: 'r' }))[0]?.num_blocks ?? 0;
  const before = await blocks();
  await expect(from.rpc('basalt_raid_resize', { name: 'r', num_blocks: before * 2 })).rejects.toThrow('room for');
  for (const base of bases) await from.rpc('bdev_lvol_resize', { name: base, size_in_mib: 8 });
  await from.rpc('basalt_raid_resize', { name: 'r' });
  expect(await blocks()).toBe(before + 2 * 1024);
  const back = new Uint8Array(data.length);
  await handle.read(0, back);
  expect(Buffer.compare(back, data)).toBe(0);
  await handle.write(before * 4096, data);
  await handle.close();
  expect(await from.rpc('basalt_raid_scrub', { name: 'r' })).toMatchObject({ different_blocks: 0 });
});

it('raid6: is found again on four of its six members', async () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f'];
  const from = await withDisks(...names);
  await from.rpc('bdev_raid_create', { name: 'r', raid_level: 'raid6', base_bdevs: names, strip_size_kb: 64 });
  const data = pattern(1 << 20, 3);
  const handle = await from.openBdev('r');
  await handle.write(4096, data);
  await handle.close();
  await from.rpc('bdev_raid_delete', { name: 'r' });
  const again = { name: 'r', raid_level: 'raid6', base_bdevs: names, strip_size_kb: 64 } as const;
  await expect(from.rpc('bdev_raid_create', again)).rejects.toMatchObject({ code: -17 });
  await from.rpc('basalt_raid_load', { name: 'r', base_bdevs: ['f', 'b', 'd', 'a'] });
  const reader = await from.openBdev('r');
  const back = new Uint8Array(data.length);
  await reader.read(4096, back);
  expect(Buffer.compare(back, data)).toBe(0);
  await reader.close();
});

it('raid1: has all on each of its members, and is found again on one alone only when that is asked for', async () => {
  const from = await withDisks('a', 'b', 'c');
  const members = { name: 'r', raid_level: 'raid1' as const, base_bdevs: ['a', 'b', 'c'], superblock: true };
  await from.rpc('bdev_raid_create', members);
  const data = pattern(1 << 20, 5);
  const handle = await from.openBdev('r');
  await handle.write(4096, data);
  await handle.close();
  const [made] = await from.rpc('bdev_raid_get_bdevs', { category: 'all' });
  expect(made).toMatchObject({ raid_level: 'raid1', num_base_bdevs: 3, strip_size_kb: 64 });
  await from.rpc('bdev_raid_delete', { name: 'r' });
  const alone = { name: 'r', base_bdevs: ['c'] };
  await expect(from.rpc('basalt_raid_load', alone)).rejects.toThrow(
    'r: 1 members of its last set are here; 3 are needed, as others may have gone on without them (accept_missing)',
  );
  await from.rpc('basalt_raid_load', { ...alone, accept_missing: true });
  const reader = await from.openBdev('r');
  const back = new Uint8Array(data.length);
  await reader.read(4096, back);
  expect(Buffer.compare(back, data)).toBe(0);
  await reader.close();
  for (const base_bdev of ['a', 'b']) await from.rpc('bdev_raid_add_base_bdev', { raid_bdev: 'r', base_bdev });
  await untilOnlyInSync(from);
  expect(await from.rpc('basalt_raid_scrub', { name: 'r' })).toMatchObject({ different_blocks: 0 });
  const wrong = { ...members, name: 'q', base_bdevs: ['a'] };
  await expect(from.rpc('bdev_raid_create', wrong)).rejects.toThrow('2 to 4 members');
});

it('parity raids refuse bad arguments by name and change nothing', async () => {
  const from = await withDisks('a', 'b', 'c');
  const create = (over: object): Promise<unknown> =>
    from.rpc('bdev_raid_create', {
      name: 'r',
      raid_level: 'raid5',
      base_bdevs: ['a', 'b', 'c'],
      strip_size_kb: 16,
      ...over,
    });
  await expect(create({ strip_size_kb: 512 })).rejects.toThrow('strip_size_kb: a power of two from 4 to 256');
  await expect(create({ base_bdevs: ['a'] })).rejects.toThrow('base_bdevs: 1 parity members and 1 to 16 others, got 1');
  await expect(create({ base_bdevs: ['a', 'a', 'b'] })).rejects.toThrow('a');
  await expect(from.rpc('basalt_raid_load', { name: 'r', base_bdevs: ['a', 'b', 'c'] })).rejects.toThrow(
    'a: no raid superblock',
  );
  await expect(from.rpc('basalt_raid_scrub', { name: 'a' })).rejects.toThrow(
    'a is a malloc bdev, not raid1, raid5 or raid6',
  );
  await from.rpc('bdev_malloc_delete', { name: 'a' });
});
