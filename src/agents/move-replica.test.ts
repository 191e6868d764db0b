// SPDX-License-Identifier: Apache-2.0
// Replicas that an operator moves from one disk to another, over whole clusters: redundancy is kept, snapshots go along,
// it ends whoever dies, and called off it leaves everything as it was.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cancelJob, moveReplica } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import { cloneSnapshot, createSnapshot } from '../api/snapshots.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import type { JobView } from '../model/jobs.js';
import type { Txn } from '../store/store.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';
import { eventually } from './testing/waiting.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 30, rebuildsMax: 2, rebuildsPerDiskMax: 2 };
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

const nodesOf = (view: VolumeView): string[] => [...new Set(view.legs.flat().map((entry) => entry.node))].sort();

async function diskOf(node: string): Promise<string> {
  const { state } = await readState(bed.server.connect());
  const disk = state.all('disks').find((each) => each.node === node);
  if (disk === undefined) throw new Error(`${node} has no disk`);
  return disk.id;
}

/** A volume of one leg: where it is, and where it is not. */
async function begin(): Promise<{ from: string; to: string; stays: string }> {
  await bed.create({ name: 'v1', legs: 1, controllers: ['c1', 'c2'] });
  const [stays = '', from = ''] = nodesOf(await bed.redundant('v1'));
  const to = ['d1', 'd2', 'd3'].find((node) => node !== stays && node !== from) ?? '';
  return { from, to, stays };
}

const move = async (from: string, to: string): Promise<JobView> =>
  moveReplica(bed.api, 'v1', { from: await diskOf(from), to: await diskOf(to) });

async function pauseCopying(paused: boolean): Promise<void> {
  const { engine } = bed.node((await bed.view('v1')).controller ?? '');
  const legs = (await engine.rpc('bdev_get_bdevs', {})).filter(({ product_name }) => product_name === 'leg');
  await Promise.all(legs.map(({ name }) => engine.rpc('basalt_leg_set_resync', { name, paused })));
}

describe('a replica that is moved by name', { timeout: 180_000 }, () => {
  it('serves until the new one is equal, then goes, with its snapshots, and nobody moves it back', async () => {
    const { from, to, stays } = await begin();
    await bed.write('c1', 'v1', 3, 5);
    await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's1' } });
    await eventually('the snapshot is made', async () => {
      const { state } = await readState(bed.server.connect());
      return state.all('snapshots')[0]?.phase === 'ready';
    });
    await bed.write('c1', 'v1', 3, 6);
    const watch = bed.leaderships();
    const job = await bed.ended(await move(from, to));
    await watch.stop();
    expect(job).toMatchObject({ state: 'done', error: null, progress: { done: 2, total: 2 } });
    for (const { legs } of watch.seen) for (const { inSync } of legs) expect(inSync.length).toBeGreaterThanOrEqual(2);
    // In by one swap, out by one.
    expect(watch.seen.map(({ legs }) => legs[0]?.inSync.length)).toEqual([3, 2]);
    expect(nodesOf(await bed.redundant('v1'))).toEqual([stays, to].sort());
    await eventually('nothing is left of it', async () => {
      return (await bed.lvols(from)).length === 0;
    });
    expect(await bed.read('c1', 'v1', 3)).toBe(6);
    await bed.kill(stays);
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's1', request: { name: 'c' } });
    await bed.served('c');
    expect(await bed.read((await bed.view('c')).controller ?? '', 'c', 3)).toBe(5);
    // Whoever plans placement looks at it again, and finds it right.
    await bed.startDiskNode(stays);
    expect(nodesOf(await bed.redundant('v1'))).toEqual([stays, to].sort());
  });

  it('is refused, with nothing changed, where it cannot be; and asked for twice it is one job', async () => {
    const { from, to, stays } = await begin();
    const refused = (problem: RegExp) => ({ code: 'MOVE_REFUSED', message: expect.stringMatching(problem) });
    await expect(move(from, stays)).rejects.toMatchObject(refused(/has a replica on disk .* already/));
    await expect(move(to, from)).rejects.toMatchObject(refused(/none of its legs has a replica on disk/));
    const [fromDisk, toDisk] = [await diskOf(from), await diskOf(to)];
    const nowhere = moveReplica(bed.api, 'v1', { from: fromDisk, to: '00000000-0000-4000-8000-000000000000' });
    await expect(nowhere).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(moveReplica(bed.api, 'v1', { leg: 7, from: fromDisk, to: toDisk })).rejects.toMatchObject(
      refused(/has no leg 7/),
    );
    expect(bed.server.list('/basalt/v1/jobs/')).toEqual([]);
    await pauseCopying(true);
    const first = await move(from, to);
    expect(await move(from, to)).toMatchObject({ id: first.id });
    const other = moveReplica(bed.api, 'v1', { leg: 0, from: fromDisk, to: toDisk });
    await expect(other).rejects.toMatchObject({ code: 'BUSY', message: expect.stringContaining(first.id) });
    await pauseCopying(false);
    expect((await bed.ended(first)).state).toBe('done');
  });

  it('stays when that is called off while it is copied, and what was copied goes', async () => {
    const { from, to, stays } = await begin();
    await bed.write('c1', 'v1', 3, 5);
    await pauseCopying(true);
    const job = await move(from, to);
    await bed.until(
      'v1',
      'a joining replica',
      (view) => view.legs[0]?.some(({ state }) => state === 'joining') === true,
    );
    // The controller gives it up by itself, not because its disk is gone.
    let abandoned = false;
    bed.intercept((await bed.view('v1')).controller ?? '', 'basalt_leg_abandon_member', () => {
      abandoned = true;
    });
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    bed.intercept(to, 'nvmf_delete_subsystem', () => gate);
    await cancelJob(bed.api, job.id);
    expect(await bed.ended(job)).toMatchObject({ state: 'cancelled' });
    await eventually('the copy is given up', () => abandoned);
    open();
    const view = await bed.until(
      'v1',
      'as it was',
      ({ health, legs }) => health === 'redundant' && legs[0]?.length === 2,
    );
    expect(nodesOf(view)).toEqual([from, stays].sort());
    await eventually('the copy is deleted', async () => {
      return (await bed.lvols(to)).length === 0;
    });
    await bed.write('c1', 'v1', 4, 6);
    expect(await bed.read('c1', 'v1', 3)).toBe(5);
    // It can be asked for again.
    await pauseCopying(false);
    expect((await bed.ended(await move(from, to))).state).toBe('done');
    expect(await bed.read('c1', 'v1', 4)).toBe(6);
  });

  it('arrives when the runner of the job, and then the controller, is killed in the middle of it', async () => {
    // The first of the nodes by name runs jobs.
    await bed.startController('a1');
    const { from, to, stays } = await begin();
    await bed.acquainted('c1', 'c2');
    await bed.write((await bed.view('v1')).controller ?? '', 'v1', 3, 5);
    await pauseCopying(true);
    const job = await move(from, to);
    await bed.until(
      'v1',
      'a joining replica',
      (view) => view.legs[0]?.some(({ state }) => state === 'joining') === true,
    );
    const { controller } = await bed.view('v1');
    await bed.kill('a1');
    await bed.kill(controller ?? '');
    const done = await bed.ended(job);
    expect(done).toMatchObject({ state: 'done' });
    expect(done.events.map((event) => event.text)).toContainEqual(expect.stringMatching(/^taken on by/));
    const view = await bed.redundant('v1');
    expect(nodesOf(view)).toEqual([stays, to].sort());
    expect(await bed.read(view.controller ?? '', 'v1', 3)).toBe(5);
  });

  it('arrives when answers of the store are lost, and when it is away for a while', async () => {
    let count = 0;
    let armed = false;
    const isOfJob = (txn: Txn): boolean => txn.changes.some(({ key }) => key.startsWith('/basalt/v1/jobs/'));
    // Of what runners write, two of three: carried out without an answer, or lost.
    const judge = (txn: Txn): TxnFault =>
      !armed || !isOfJob(txn) ? 'pass' : ((['lost-after', 'lost-before', 'pass'] as const)[count++ % 3] ?? 'pass');
    await bed.close();
    bed = new ClusterBed();
    bed.placement = { graceMs: 60_000, settleMs: 30 };
    bed.wrapStore = (store) => faultyStore(store, judge);
    await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    const { from, to, stays } = await begin();
    await bed.write('c1', 'v1', 3, 5);
    armed = true;
    const job = await move(from, to);
    await eventually('an answer was lost', () => count > 1);
    bed.server.away = true;
    await systemClock.sleep(200);
    bed.server.away = false;
    expect(await bed.ended(job)).toMatchObject({ state: 'done' });
    armed = false;
    const view = await bed.redundant('v1');
    expect(nodesOf(view)).toEqual([stays, to].sort());
    expect(await bed.read(view.controller ?? '', 'v1', 3)).toBe(5);
  });
});
