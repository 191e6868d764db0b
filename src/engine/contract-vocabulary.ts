// SPDX-License-Identifier: Apache-2.0
//
// The part of the engine contract that SPDK promises too: run on the native engine and, where one is installed, on a real
// spdk_tgt. Names of lvols are aliases here, since SPDK answers with UUIDs, and messages are everybody's own.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pattern, refusal } from './contract-tools.js';
import { type Engine, engineErrorCodes } from './engine.js';

export interface VocabularyWorld {
  /** One at a time; the next one finds what the one before left on its disks. */
  start(): Promise<Engine>;
  /** A file of zeroes. */
  makeDisk(name: string, bytes: number): Promise<string>;
  dispose(): Promise<void>;
}

const mib = 1024 * 1024;

export function vocabularyContract(name: string, skipped: boolean, makeWorld: () => Promise<VocabularyWorld>): void {
  describe.skipIf(skipped)(`engine vocabulary: ${name}`, () => {
    let world: VocabularyWorld;
    let engine: Engine;
    const restart = async (): Promise<void> => {
      await engine.close();
      engine = await world.start();
    };
    beforeEach(async () => {
      world = await makeWorld();
      engine = await world.start();
    });
    afterEach(async () => {
      await engine.close();
      await world.dispose();
    });

    it('lists its methods, says its version, and refuses methods that there are not', async () => {
      const methods = await engine.rpc('rpc_get_methods');
      expect(methods).toEqual(expect.arrayContaining(['bdev_malloc_create', 'nvmf_create_subsystem']));
      expect((await engine.rpc('spdk_get_version')).version).toMatch(/^(SPDK|Basalt) v\d/);
      const unknown = await refusal(engine.rpc('no_such_method' as 'rpc_get_methods'));
      expect(unknown.code).toBe(engineErrorCodes.methodNotFound);
    });

    it('gives back what was written, refuses names that are taken, and forgets what was deleted', async () => {
      const params = { name: 'm0', num_blocks: 1024, block_size: 4096 };
      expect(await engine.rpc('bdev_malloc_create', params)).toBe('m0');
      expect(await engine.rpc('bdev_get_bdevs', { name: 'm0' })).toMatchObject([
        { name: 'm0', block_size: 4096, num_blocks: 1024, claimed: false, zoned: false },
      ]);
      expect((await refusal(engine.rpc('bdev_malloc_create', params))).code).toBe(engineErrorCodes.exists);
      const data = pattern(mib, 1);
      await writeTo(engine, 'm0', 4096, data);
      expect(Buffer.compare(await readFrom(engine, 'm0', 4096, mib), data)).toBe(0);
      expect((await readFrom(engine, 'm0', 0, 4096)).every((byte) => byte === 0)).toBe(true);
      expect(await engine.rpc('bdev_malloc_delete', { name: 'm0' })).toBe(true);
      expect((await refusal(engine.rpc('bdev_get_bdevs', { name: 'm0' }))).code).toBe(engineErrorCodes.noDevice);
    });

    it('stripes over members', async () => {
      for (const member of ['a', 'b'])
        await engine.rpc('bdev_malloc_create', { name: member, num_blocks: 256, block_size: 4096 });
      const raid = { name: 'r', raid_level: 'raid0' as const, base_bdevs: ['a', 'b'], strip_size_kb: 16 };
      expect(await engine.rpc('bdev_raid_create', raid)).toBe(true);
      expect(await engine.rpc('bdev_get_bdevs', { name: 'r' })).toMatchObject([{ num_blocks: 512 }]);
      const data = pattern(mib, 3);
      await writeTo(engine, 'r', 0, data);
      expect(Buffer.compare(await readFrom(engine, 'r', 0, mib), data)).toBe(0);
      expect(await engine.rpc('bdev_raid_delete', { name: 'r' })).toBe(true);
    });

    it('keeps lvols, snapshots and clones apart, and through a restart', async () => {
      const filename = await world.makeDisk('d0', 128 * mib);
      const open = (): Promise<string> => engine.rpc('bdev_aio_create', { name: 'disk', filename, block_size: 4096 });
      await open();
      await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
      await engine.rpc('bdev_lvol_create', { lvs_name: 'lvs', lvol_name: 'r1', size_in_mib: 8, thin_provision: true });
      await writeTo(engine, 'lvs/r1', 0, pattern(mib, 1));
      await engine.rpc('bdev_lvol_snapshot', { lvol_name: 'lvs/r1', snapshot_name: 's1' });
      await writeTo(engine, 'lvs/r1', 0, pattern(mib, 2));
      await engine.rpc('bdev_lvol_clone', { snapshot_name: 'lvs/s1', clone_name: 'c1' });
      await writeTo(engine, 'lvs/c1', mib, pattern(mib, 3));
      await restart();
      await open();
      // SPDK has looked by itself, unless it was told not to.
      const found = await engine.rpc('bdev_lvol_get_lvstores');
      if (found.length === 0) await engine.rpc('bdev_examine', { name: 'disk' });
      const lvols = await engine.rpc('bdev_lvol_get_lvols');
      expect(lvols.map(({ alias }) => alias).toSorted()).toEqual(['lvs/c1', 'lvs/r1', 'lvs/s1']);
      expect(lvols.find((lvol) => lvol.name === 's1')).toMatchObject({ is_snapshot: true });
      for (const [lvol, seed] of [
        ['lvs/r1', 2],
        ['lvs/s1', 1],
        ['lvs/c1', 1],
      ] as const)
        expect(Buffer.compare(await readFrom(engine, lvol, 0, mib), pattern(mib, seed)), lvol).toBe(0);
      expect(Buffer.compare(await readFrom(engine, 'lvs/c1', mib, mib), pattern(mib, 3))).toBe(0);
      expect((await readFrom(engine, 'lvs/r1', mib, mib)).every((byte) => byte === 0)).toBe(true);
    });
  });
}

async function writeTo(engine: Engine, bdev: string, offsetBytes: number, data: Uint8Array): Promise<void> {
  const handle = await engine.openBdev(bdev);
  try {
    await handle.write(offsetBytes, data);
    await handle.flush();
  } finally {
    await handle.close();
  }
}

async function readFrom(engine: Engine, bdev: string, offsetBytes: number, bytes: number): Promise<Uint8Array> {
  const handle = await engine.openBdev(bdev);
  const data = new Uint8Array(bytes);
  await handle.read(offsetBytes, data).finally(() => handle.close());
  return data;
}
