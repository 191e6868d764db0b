// SPDX-License-Identifier: Apache-2.0
// Volumes that are given to another pool while they are used, over whole clusters: the old replicas serve until the new ones are
// equal, redundancy is kept, snapshots go along, it ends whoever dies, and called off it goes back.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cancelJob, changePool, moveReplica } from '../api/jobs.js';
import { createPool, deletePool } from '../api/pools.js';
import { readState } from '../api/read-state.js';
import { cloneSnapshot, createSnapshot } from '../api/snapshots.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

const MiB = 1024 * 1024;
let bed: ClusterBed;

/** Two disks of each class, each on a node of its own. */
beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 30, rebuildsMax: 2, rebuildsPerDiskMax: 2 };
  await Promise.all(['f1', 'f2'].map((name) => startDisk(name, 'ssd')));
  await Promise.all(['s1', 's2', 's3'].map((name) => startDisk(name, 'hdd')));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await pool('fast', 2, 'ssd');
  await pool('slow', 2, 'hdd');
});

afterEach(() => bed.close());

async function startDisk(name: string, diskClass: string): Promise<void> {
  const path = `/disks/${name}`;
  if (bed.network.disks.find(path) === null) bed.network.disks.add(path, 512 * MiB);
  await bed.start({ name, roles: ['disk'], engine: 'fake', disks: [{ path, class: diskClass }] });
}

async function pool(name: string, copies: number, diskClass: 'ssd' | 'hdd'): Promise<void> {
  await createPool(bed.api, { name, redundancy: { kind: 'copies', copies }, class: diskClass, pgCount: 8 });
}

const make = (name: string): Promise<VolumeView> => bed.create({ name, pool: 'fast', controllers: ['c1', 'c2'] });
const nodesOf = (view: VolumeView): string[] => [...new Set(view.legs.flat().map((entry) => entry.node))].sort();
const isOn = (view: VolumeView, letter: string): boolean => nodesOf(view).every((node) => node.startsWith(letter));

async function lvolsOn(node: string): Promise<number> {
  return (await bed.lvols(node)).length;
}

async function pauseCopying(volume: string, paused: boolean): Promise<void> {
  const { engine } = bed.node((await bed.view(volume)).controller ?? '');
  const legs = (await engine.rpc('bdev_get_bdevs', {})).filter(({ product_name }) => product_name === 'leg');
  await Promise.all(legs.map(({ name }) => engine.rpc('basalt_leg_set_resync', { name, paused })));
}

describe('a volume that is given to another pool', { timeout: 180_000 }, () => {
  it('moves to disks of another class with its snapshots, and has two replicas in sync all the time', async () => {
    await make('v1');
    const before = await bed.redundant('v1');
    expect(isOn(before, 'f')).toBe(true);
    await bed.write(before.controller ?? '', 'v1', 3, 5);
    await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's' } });
    await eventually('the snapshot is made', async () => {
      const { state } = await readState(bed.server.connect());
      return state.all('snapshots')[0]?.phase === 'ready';
    });
    await bed.write(before.controller ?? '', 'v1', 3, 6);
    const watch = bed.leaderships();
    const job = await bed.ended(await changePool(bed.api, 'v1', { pool: 'slow' }));
    await watch.stop();
    expect(job).toMatchObject({ state: 'done', error: null, waitsFor: null });
    expect(job.progress.done).toBe(job.progress.total);
    expect(watch.seen.length).toBeGreaterThan(0);
    for (const { legs } of watch.seen) for (const { inSync } of legs) expect(inSync.length).toBeGreaterThanOrEqual(2);
    const after = await bed.redundant('v1');
    expect(after).toMatchObject({ pool: 'slow', copies: 2 });
    expect(isOn(after, 's')).toBe(true);
    for (const node of ['f1', 'f2'])
      await eventually(`nothing is left on ${node}`, async () => (await lvolsOn(node)) === 0);
    expect(await bed.read(after.controller ?? '', 'v1', 3)).toBe(6);
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's', request: { name: 'c' } });
    await bed.served('c');
    expect(await bed.read((await bed.view('c')).controller ?? '', 'c', 3)).toBe(5);
    // Nobody uses it any more.
    await deletePool(bed.api, 'fast');
  });

  it('gets more copies, and fewer', async () => {
    await pool('safe', 3, 'hdd');
    await pool('single', 1, 'hdd');
    await make('v1');
    const { controller } = await bed.redundant('v1');
    await bed.write(controller ?? '', 'v1', 3, 5);
    const wish = await changePool(bed.api, 'v1', { pool: 'safe' });
    expect(await bed.ended(wish)).toMatchObject({ state: 'done' });
    const more = await bed.redundant('v1');
    expect(more).toMatchObject({ pool: 'safe', copies: 3 });
    expect(more.legs.map((leg) => leg.length)).toEqual([3, 3]);
    expect(await bed.ended(await changePool(bed.api, 'v1', { pool: 'single' }))).toMatchObject({ state: 'done' });
    const fewer = await bed.redundant('v1');
    expect(fewer).toMatchObject({ pool: 'single', copies: 1 });
    expect(fewer.legs.map((leg) => leg.length)).toEqual([1, 1]);
    expect(await bed.read(fewer.controller ?? '', 'v1', 3)).toBe(5);
  });

  it('is refused with nothing changed where it cannot be, and asked for twice it is one job', async () => {
    await make('v1');
    await bed.redundant('v1');
    const refused = (problem: RegExp) => ({ code: 'MOVE_REFUSED', message: expect.stringMatching(problem) });
    const redundancy = { kind: 'erasure', data: 2, parity: 1 } as const;
    await createPool(bed.api, { name: 'coded', redundancy, class: 'hdd', pgCount: 8 });
    await expect(changePool(bed.api, 'v1', { pool: 'fast' })).rejects.toMatchObject(refused(/in pool fast already/));
    await expect(changePool(bed.api, 'v1', { pool: 'coded' })).rejects.toMatchObject(
      refused(/v1 is mirrored, and pool coded has 2\+1.*: take a pool of copies/),
    );
    await expect(changePool(bed.api, 'v1', { pool: 'none' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    // On two of three disks: each pair of them has one of those.
    await bed.create({ name: 'big', pool: 'slow', sizeBytes: 300 * MiB, legs: 1 });
    await bed.create({ name: 'other', pool: 'fast', sizeBytes: 300 * MiB, legs: 1 });
    await expect(changePool(bed.api, 'other', { pool: 'slow' })).rejects.toMatchObject(
      refused(/disk .* of pool slow has \d+ bytes left, and its replicas of other may come to take \d+/),
    );
    expect(bed.server.list('/basalt/v1/jobs/')).toEqual([]);
    await pauseCopying('v1', true);
    const first = await changePool(bed.api, 'v1', { pool: 'slow' });
    expect(await changePool(bed.api, 'v1', { pool: 'slow' })).toMatchObject({ id: first.id });
    const { state } = await readState(bed.server.connect());
    const diskOf = (node: string): string => state.all('disks').find((disk) => disk.node === node)?.id ?? '';
    const move = moveReplica(bed.api, 'v1', { from: diskOf('f1'), to: diskOf('s1') });
    await expect(move).rejects.toMatchObject({ code: 'BUSY', message: expect.stringContaining(first.id) });
    await pauseCopying('v1', false);
    expect(await bed.ended(first)).toMatchObject({ state: 'done' });
  });

  it('goes back when that is called off in the middle', async () => {
    await make('v1');
    const { controller } = await bed.redundant('v1');
    await bed.write(controller ?? '', 'v1', 3, 5);
    await pauseCopying('v1', true);
    const job = await changePool(bed.api, 'v1', { pool: 'slow' });
    await bed.until('v1', 'a joining replica', ({ legs }) => legs.flat().some(({ state }) => state === 'joining'));
    await cancelJob(bed.api, job.id);
    expect(await bed.ended(job)).toMatchObject({ state: 'cancelled' });
    await pauseCopying('v1', false);
    const after = await bed.until(
      'v1',
      'back in its pool',
      (view) => view.health === 'redundant' && isOn(view, 'f') && view.legs.every((leg) => leg.length === 2),
    );
    expect(after).toMatchObject({ pool: 'fast', copies: 2 });
    for (const node of ['s1', 's2', 's3'])
      await eventually(`nothing is left on ${node}`, async () => (await lvolsOn(node)) === 0);
    expect(await bed.read(after.controller ?? '', 'v1', 3)).toBe(5);
  });

  it('arrives when the runner of the job, and then the controller, is killed in the middle of it', async () => {
    // The first of the nodes by name runs jobs.
    await bed.startController('a1');
    await make('v1');
    await bed.acquainted('c1', 'c2');
    const { controller } = await bed.redundant('v1');
    await bed.write(controller ?? '', 'v1', 3, 5);
    await pauseCopying('v1', true);
    const job = await changePool(bed.api, 'v1', { pool: 'slow' });
    await bed.until('v1', 'a joining replica', ({ legs }) => legs.flat().some(({ state }) => state === 'joining'));
    await bed.kill('a1');
    await bed.kill(controller ?? '');
    expect(await bed.ended(job)).toMatchObject({ state: 'done' });
    const after = await bed.redundant('v1');
    expect(isOn(after, 's')).toBe(true);
    expect(await bed.read(after.controller ?? '', 'v1', 3)).toBe(5);
  });

  it('that was never written to is exchanged at once', async () => {
    await Promise.all(['c1', 'c2'].map((name) => bed.kill(name)));
    await make('v1');
    const job = await bed.ended(await changePool(bed.api, 'v1', { pool: 'slow' }));
    expect(job).toMatchObject({ state: 'done' });
    expect(isOn(await bed.view('v1'), 's')).toBe(true);
  });
});
