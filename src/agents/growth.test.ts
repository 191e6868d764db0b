// SPDX-License-Identifier: Apache-2.0
// Volumes grow while they are used: every step can be the last of its controller, and what stands in the way is told.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resizeVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { slotName } from './assembly.js';
import { ClusterBed } from './testing/cluster-bed.js';

const mib = 2 ** 20;
let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 50 };
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1' });
  await bed.redundant('v1');
});

afterEach(() => bed.close());

const resize = (sizeBytes: number): Promise<void> => resizeVolume(bed.api, 'v1', { sizeBytes });
const grown = (sizeBytes: number): Promise<VolumeView> =>
  bed.until('v1', `${sizeBytes} bytes`, (view) => view.growth === null && view.sizeBytes === sizeBytes);
const blockOf = (bytes: number): number => bytes / 4096;

async function slotBytes(node: string): Promise<number> {
  const { id } = await bed.view('v1');
  const bdevs = await bed.node(node).engine.rpc('bdev_get_bdevs', {});
  const slot = bdevs.find((bdev) => bdev.name === slotName(id));
  return (slot?.num_blocks ?? 0) * 4096;
}

/** Fails `method` on that node's engine as long as the returned function was not called. */
function refuse(node: string, method: string, message: string): () => void {
  const { engine } = bed.node(node);
  const rpc = engine.rpc.bind(engine);
  let refusing = true;
  Object.assign(engine, {
    rpc: (...args: Parameters<typeof rpc>) =>
      refusing && args[0] === method ? Promise.reject(new Error(message)) : rpc(...args),
  });
  return () => {
    refusing = false;
  };
}

describe('a volume that is asked to grow', () => {
  it('grows under writes, on every controller, and keeps what it holds', async () => {
    const { controller } = await bed.view('v1');
    const active = controller ?? '';
    for (let block = 0; block < 64; block++) await bed.write(active, 'v1', block * 16, block + 1);
    let writing = true;
    const load = (async () => {
      for (let round = 0; writing; round++) {
        await bed.write(active, 'v1', (round % 64) * 16 + 1, (round % 250) + 1);
        await systemClock.sleep(1);
      }
    })();
    await resize(16 * mib);
    await grown(16 * mib);
    writing = false;
    await load;
    await expect.poll(async () => [await slotBytes('c1'), await slotBytes('c2')]).toEqual([16 * mib, 16 * mib]);
    for (let block = 0; block < 64; block++) expect(await bed.read(active, 'v1', block * 16)).toBe(block + 1);
    expect(await bed.read(active, 'v1', blockOf(16 * mib) - 1)).toBe(0);
    await bed.write(active, 'v1', blockOf(16 * mib) - 1, 9);
    await bed.kill(active);
    const other = active === 'c1' ? 'c2' : 'c1';
    await bed.served('v1', other);
    expect(await bed.read(other, 'v1', blockOf(16 * mib) - 1)).toBe(9);
    expect(await bed.read(other, 'v1', 16)).toBe(2);
  });

  it('does so once, whoever asks however often, and never becomes smaller', async () => {
    await Promise.all([resize(16 * mib), resize(16 * mib), resize(16 * mib)]);
    await grown(16 * mib);
    await resize(16 * mib);
    await expect(resize(8 * mib)).rejects.toMatchObject({ code: 'VOLUME_SHRINK' });
    await expect(resize(2 ** 40)).rejects.toMatchObject({ code: 'PLACEMENT_IMPOSSIBLE' });
    expect(await bed.view('v1')).toMatchObject({ sizeBytes: 16 * mib, growth: null });
    await resize(32 * mib);
    await grown(32 * mib);
  });

  it('serves its old size while a disk refuses, says exactly why, and goes on when the disk does', async () => {
    const allow = refuse('d2', 'bdev_lvol_resize', 'lvstore is full of metadata');
    await resize(16 * mib);
    const view = await bed.until('v1', 'a problem', (now) => now.growth?.problem?.includes('metadata') === true);
    expect(view).toMatchObject({ sizeBytes: 4 * mib, health: 'redundant', growth: { sizeBytes: 16 * mib } });
    expect(view.growth?.problem).toContain('on d2');
    const active = view.controller ?? '';
    await bed.write(active, 'v1', 3, 5);
    expect(await slotBytes(active)).toBe(4 * mib);
    // Nothing is lengthened yet: the wish can still change.
    await resize(8 * mib);
    allow();
    await grown(8 * mib);
    expect(await bed.read(active, 'v1', 3)).toBe(5);
  });

  it('goes on under another controller when the first dies in the middle', async () => {
    const { controller } = await bed.view('v1');
    const active = controller ?? '';
    await bed.write(active, 'v1', 7, 7);
    refuse(active, 'basalt_leg_resize', 'not now');
    await resize(16 * mib);
    await bed.until('v1', 'to be in the middle', (view) => view.growth?.problem === 'not now');
    await expect(resize(8 * mib)).rejects.toMatchObject({ code: 'VOLUME_GROWING' });
    await bed.kill(active);
    await grown(16 * mib);
    const other = active === 'c1' ? 'c2' : 'c1';
    expect(await bed.read(other, 'v1', 7)).toBe(7);
    expect(await slotBytes(other)).toBe(16 * mib);
    await bed.write(other, 'v1', blockOf(16 * mib) - 1, 3);
  });

  it('makes a replica that was away as large before it joins again', async () => {
    const { controller } = await bed.view('v1');
    const active = controller ?? '';
    await bed.kill('d2');
    await bed.write(active, 'v1', 0, 4);
    await bed.until('v1', 'degraded', (view) => view.health === 'degraded');
    await resize(16 * mib);
    await grown(16 * mib);
    await bed.write(active, 'v1', blockOf(16 * mib) - 1, 6);
    await bed.startDiskNode('d2');
    await bed.redundant('v1');
    await bed.kill('d1');
    expect(await bed.read(active, 'v1', blockOf(16 * mib) - 1)).toBe(6);
    expect(await bed.read(active, 'v1', 0)).toBe(4);
  });
});
