// SPDX-License-Identifier: Apache-2.0
// What operators do to volumes with several active controllers, in whole clusters on the memory store and fake engines:
// growing them, snapshots of one instant over all parts, volumes that are made of those.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readState } from '../api/read-state.js';
import { createGroup, deleteGroup, listGroups, showGroup } from '../api/snapshot-groups.js';
import { snapshotsOf, snapshotView } from '../api/snapshot-views.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot, requireSnapshot } from '../api/snapshots.js';
import { deleteVolume, requireVolume, resizeVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { SnapshotView, VolumeView } from '../model/api.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { isSpread, onFront, readByFront, writeByFront } from './testing/fronts.js';

const mib = 2 ** 20;
const controllers = ['c1', 'c2', 'c3'];
let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(controllers.map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

const served = (volume: string): Promise<VolumeView> =>
  bed.until(volume, 'served by all', (view) => view.health === 'redundant' && isSpread(view));

async function make(request: { encrypt?: boolean } = {}): Promise<VolumeView> {
  await bed.create({ name: 'v1', active: 2, legs: 4, controllers, ...request });
  return served('v1');
}

const grown = (sizeBytes: number): Promise<VolumeView> =>
  bed.until('v1', `${sizeBytes} bytes`, (view) => view.growth === null && view.sizeBytes === sizeBytes);

const write = async (front: number, block: number, fill: number): Promise<void> =>
  writeByFront(bed, await bed.view('v1'), { front, block, fill });

async function sizes(volume: string): Promise<number[]> {
  const view = await bed.view(volume);
  const fronts = (view.fronts ?? []).map((_, front) => front);
  return Promise.all(fronts.map((front) => onFront(bed, view, { front }, async (handle) => handle.info.sizeBytes)));
}

/** Of every stripe the first block. */
const blocks = Array.from({ length: 16 }, (_, index) => index * 16);

async function snapshot(name: string, volume = 'v1'): Promise<SnapshotView> {
  await createSnapshot(bed.api, systemClock, { volume, request: { name } });
  await expect.poll(() => shown(name, volume), { timeout: 20_000 }).toMatchObject({ state: 'ready' });
  return shown(name, volume);
}

async function shown(name: string, of = 'v1'): Promise<SnapshotView> {
  const { state } = await readState(bed.server.connect());
  const { value: volume } = requireVolume(state, of);
  return snapshotView(state, volume, requireSnapshot(state, volume, name).value);
}

async function listed(): Promise<string[]> {
  const { state } = await readState(bed.server.connect());
  return snapshotsOf(state, requireVolume(state, 'v1').value).map(({ name }) => name);
}

async function clone(name: string, of: { volume?: string; snapshot: string }): Promise<VolumeView> {
  await cloneSnapshot(bed.api, { volume: 'v1', ...of, request: { name, controllers } });
  return served(name);
}

async function held(volume: string, front: number): Promise<number[]> {
  const seen: number[] = [];
  for (const block of blocks) seen.push(await readByFront(bed, volume, { front, block }));
  return seen;
}

describe('a volume with several active controllers that is asked to grow', () => {
  it('grows at all of its fronts, keeps what it holds, and has zeroes behind that', async () => {
    await make();
    for (const block of blocks) await write(block % 32 === 0 ? 0 : 1, block, block / 16 + 1);
    await resizeVolume(bed.api, 'v1', { sizeBytes: 16 * mib });
    await grown(16 * mib);
    expect(await sizes('v1')).toEqual([16 * mib, 16 * mib]);
    const last = (16 * mib) / 4096 - 1;
    for (const front of [0, 1]) {
      expect(await held('v1', front)).toEqual(blocks.map((block) => block / 16 + 1));
      expect(await readByFront(bed, 'v1', { front, block: last - front * 16 })).toBe(0);
      await write(front, last - front * 16, 9);
      expect(await readByFront(bed, 'v1', { front: 1 - front, block: last - front * 16 })).toBe(9);
    }
    const { state } = await readState(bed.server.connect());
    const parts = state.all('volumes').filter(({ partOf }) => partOf !== undefined);
    expect(parts.map(({ sizeBytes }) => sizeBytes)).toEqual([8 * mib, 8 * mib]);
  });

  it('grows by less than parts do, and again', async () => {
    await make();
    for (const sizeBytes of [4 * mib + 65536, 4 * mib + 131072, 7 * mib]) {
      await resizeVolume(bed.api, 'v1', { sizeBytes });
      await grown(sizeBytes);
      expect(await sizes('v1')).toEqual([sizeBytes, sizeBytes]);
    }
  });

  it('waits for a part that cannot grow, says so, and goes on when its controller dies', async () => {
    await make();
    await bed.acquainted(...controllers);
    let refusing = true;
    bed.intercept('c1', 'basalt_leg_resize', () => {
      if (refusing) throw new Error('no more legs today');
    });
    await resizeVolume(bed.api, 'v1', { sizeBytes: 8 * mib });
    const waits = await bed.until('v1', 'a reason', (view) => view.growth?.problem?.includes('today') === true);
    expect(waits.sizeBytes).toBe(4 * mib);
    // The wish is the same for all; another one now would leave them apart.
    const other = resizeVolume(bed.api, 'v1', { sizeBytes: 9 * mib });
    await expect(other).rejects.toMatchObject({ code: 'VOLUME_GROWING' });
    await resizeVolume(bed.api, 'v1', { sizeBytes: 8 * mib });
    refusing = false;
    await bed.kill('c1');
    await grown(8 * mib);
  });

  it('never becomes smaller, and asks for no more than disks can promise', async () => {
    const view = await make();
    const smaller = resizeVolume(bed.api, 'v1', { sizeBytes: 2 * mib });
    await expect(smaller).rejects.toMatchObject({ code: 'VOLUME_SHRINK' });
    const much = resizeVolume(bed.api, 'v1', { sizeBytes: 2 ** 44 });
    await expect(much).rejects.toMatchObject({ code: 'PLACEMENT_IMPOSSIBLE', fields: { field: 'sizeBytes' } });
    const part = resizeVolume(bed.api, view.parts?.[0]?.id ?? '', { sizeBytes: 8 * mib });
    await expect(part).rejects.toMatchObject({ code: 'VOLUME_MULTI_ACTIVE' });
  });
});

describe('a snapshot of a volume with several active controllers', () => {
  it('is one, is shown as one, and holds what the volume held then', async () => {
    await make();
    for (const block of blocks) await write(0, block, 1);
    const taken = await snapshot('s1');
    expect(taken).toMatchObject({ volume: 'v1', sizeBytes: 4 * mib, copies: 2, group: null, problem: null });
    expect(taken.legs).toHaveLength(4);
    for (const block of blocks) await write(1, block, 2);
    const copy = await clone('w1', { snapshot: 's1' });
    expect(copy).toMatchObject({ origin: 'v1@s1', sizeBytes: 4 * mib, controllers });
    expect(copy.parts).toHaveLength(2);
    for (const front of [0, 1]) expect(await held('w1', front)).toEqual(blocks.map(() => 1));
    expect((await shown('s1')).clones).toEqual(['w1']);
    // A clone is as the volume: it can be cut, grown and deleted.
    await snapshot('t1', 'w1');
    await resizeVolume(bed.api, 'w1', { sizeBytes: 8 * mib });
    await bed.until('w1', 'its size', (view) => view.growth === null && view.sizeBytes === 8 * mib);
    expect(await held('w1', 1)).toEqual(blocks.map(() => 1));
    await deleteSnapshot(bed.api, { volume: 'w1', snapshot: 't1' });
    await deleteVolume(bed.api, 'w1');
    expect(await held('v1', 0)).toEqual(blocks.map(() => 2));
  });

  it('is asked for and deleted as one of any volume, and keeps the volume from being deleted', async () => {
    await make();
    const [one, two] = await Promise.all([snapshot('s1'), snapshot('s1')]);
    expect(one.id).toBe(two.id);
    expect(await listGroups(bed.api)).toEqual([]);
    expect(await listed()).toEqual(['s1']);
    await expect(deleteVolume(bed.api, 'v1')).rejects.toMatchObject({ code: 'BUSY' });
    expect(await shown(one.id)).toEqual(one);
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    expect(await listed()).toEqual([]);
    await snapshot('s1');
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await deleteVolume(bed.api, 'v1');
    await expect
      .poll(async () => (await Promise.all(['d1', 'd2', 'd3'].map((node) => bed.lvols(node)))).flat(), {
        timeout: 20_000,
      })
      .toEqual([]);
  });

  it('is of the size that hosts were shown, also after the volume has grown', async () => {
    await make();
    await snapshot('s1');
    await resizeVolume(bed.api, 'v1', { sizeBytes: 4 * mib + 65536 });
    await grown(4 * mib + 65536);
    await snapshot('s2');
    await resizeVolume(bed.api, 'v1', { sizeBytes: 12 * mib });
    await grown(12 * mib);
    for (const [name, sizeBytes] of [
      ['s1', 4 * mib],
      ['s2', 4 * mib + 65536],
    ] as const) {
      expect((await shown(name)).sizeBytes).toBe(sizeBytes);
      await clone(`of-${name}`, { snapshot: name });
      expect(await sizes(`of-${name}`)).toEqual([sizeBytes, sizeBytes]);
    }
  });

  it('is read with the key of an encrypted volume', async () => {
    await make({ encrypt: true });
    for (const block of blocks) await write(0, block, 7);
    await snapshot('s1');
    await clone('w1', { snapshot: 's1' });
    await snapshot('s1', 'w1');
    await clone('w2', { volume: 'w1', snapshot: 's1' });
    for (const volume of ['w1', 'w2']) expect(await held(volume, 1)).toEqual(blocks.map(() => 7));
  });

  it('is taken in a group with other volumes, which has all of it or nothing', async () => {
    await make();
    await bed.create({ name: 'plain' });
    await bed.redundant('plain');
    await createGroup(bed.api, systemClock, { name: 'g1', volumes: ['v1', 'plain'] });
    await expect.poll(() => showGroup(bed.api, 'g1'), { timeout: 20_000 }).toMatchObject({ state: 'ready' });
    const group = await showGroup(bed.api, 'g1');
    expect(group.snapshots.map(({ volume }) => volume)).toEqual(['v1', 'plain']);
    expect((await listGroups(bed.api)).map(({ name }) => name)).toEqual(['g1']);
    expect(await shown('g1')).toMatchObject({ group: 'g1', state: 'ready' });
    await expect(deleteSnapshot(bed.api, { volume: 'v1', snapshot: 'g1' })).rejects.toMatchObject({ code: 'BUSY' });
    await clone('w1', { snapshot: 'g1' });
    await deleteGroup(bed.api, 'g1');
    expect(await listed()).toEqual([]);
  });

  it('is refused of one part alone', async () => {
    const part = (await make()).parts?.[0]?.id ?? '';
    const refused = { code: 'VOLUME_MULTI_ACTIVE' };
    const alone = createSnapshot(bed.api, systemClock, { volume: part, request: { name: 's1' } });
    await expect(alone).rejects.toMatchObject(refused);
    await expect(createGroup(bed.api, systemClock, { name: 'g1', volumes: [part] })).rejects.toMatchObject(refused);
    await snapshot('s1');
    const piece = cloneSnapshot(bed.api, { volume: part, snapshot: 's1', request: { name: 'w1' } });
    await expect(piece).rejects.toMatchObject(refused);
    await expect(
      cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's1', request: { name: 'w1', controllers: ['c1'] } }),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', fields: { field: 'controllers' } });
  });
});
