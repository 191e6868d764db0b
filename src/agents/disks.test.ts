// SPDX-License-Identifier: Apache-2.0
// Which disks a node takes, and that those it does not take stay as they are.

import { beforeEach, describe, expect, it } from 'vitest';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { FakeNetwork } from '../engine/fake/network.js';
import { systemRandom } from '../env/random.js';
import type { CompiledDisk } from '../model/config.js';
import { type DiskOpener, openDisk } from './disks.js';

const MiB = 1024 * 1024;
let network: FakeNetwork;
let engine: FakeEngine;

beforeEach(() => {
  network = new FakeNetwork();
  engine = new FakeEngine('n1', network);
});

const opener = (clusterId = '11111111-1111-4111-8111-111111111111', by = engine): DiskOpener => ({
  engine: by,
  random: systemRandom,
  clusterId,
  node: by.name,
});
const disk = (path: string): CompiledDisk => ({
  path,
  createBytes: null,
  buffered: false,
  class: 'ssd',
  tags: [],
  weight: 1,
});

describe('a disk', () => {
  it('gets an lvstore when it is empty, and is the same disk after a restart', async () => {
    network.disks.add('/d', 64 * MiB);
    const first = await openDisk(opener(), disk('/d'), 0);
    engine.kill();
    const again = await openDisk(opener(undefined, new FakeEngine('n1', network)), disk('/d'), 0);
    expect(again.lvstore.uuid).toBe(first.lvstore.uuid);
    expect(again.lvstore.name).toBe(first.lvstore.name);
  });

  it('of another cluster is refused, and still belongs to that one', async () => {
    network.disks.add('/d', 64 * MiB);
    const { lvstore } = await openDisk(opener(), disk('/d'), 0);
    engine.kill();
    const stranger = new FakeEngine('n2', network);
    const other = opener('22222222-2222-4222-8222-222222222222', stranger);
    await expect(openDisk(other, disk('/d'), 3)).rejects.toMatchObject({
      code: 'CLUSTER_MISMATCH',
      fields: { field: 'disks[3].path', found: '11111111-1111-4111-8111-111111111111' },
    });
    stranger.kill();
    const back = await openDisk(opener(undefined, new FakeEngine('n1', network)), disk('/d'), 0);
    expect(back.lvstore.uuid).toBe(lvstore.uuid);
  });

  it('that holds something else is refused untouched', async () => {
    const stored = network.disks.add('/d', 64 * MiB);
    await engine.rpc('bdev_aio_create', { name: 'raw', filename: '/d' });
    const handle = await engine.openBdev('raw');
    await handle.write(8192, new Uint8Array(4096).fill(0xef));
    await handle.close();
    await engine.rpc('bdev_aio_delete', { name: 'raw' });
    await expect(openDisk(opener(), disk('/d'), 0)).rejects.toMatchObject({ code: 'DISK_REFUSED' });
    expect(stored.lvstore).toBeNull();
  });

  it.each<[string, () => void, string]>([
    ['that is not there', () => {}, '/nope'],
    [
      'that another process uses',
      () => void new FakeEngine('other', network).rpc('bdev_aio_create', { name: 'x', filename: '/busy' }),
      '/busy',
    ],
    ['that is too small', () => void network.disks.add('/small', MiB), '/small'],
  ])('%s is refused, with its place in the configuration', async (_, prepare, path) => {
    network.disks.add('/busy', 64 * MiB);
    prepare();
    await new Promise((resolve) => setImmediate(resolve));
    await expect(openDisk(opener(), disk(path), 1)).rejects.toMatchObject({
      code: 'DISK_REFUSED',
      fields: { field: 'disks[1].path', path },
    });
  });
});
