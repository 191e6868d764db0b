// SPDX-License-Identifier: Apache-2.0
// Operations over whole clusters: hand-overs by name, drains of disks and nodes, and who runs them when somebody dies.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cordon, drain, previewDrain, removeDisk, uncordon } from '../api/cordons.js';
import { cancelJob, moveController, showJob } from '../api/jobs.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { SeededRandom } from '../env/seeded-random.js';
import type { VolumeView } from '../model/api.js';
import { hasEnded } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { ClusterBed } from './testing/cluster-bed.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 30, rebuildsMax: 2, rebuildsPerDiskMax: 2 };
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

const diskOf = (node: string): string => {
  for (const { value } of bed.server.list('/basalt/v1/disks/')) {
    const disk = JSON.parse(value.toString()) as { id: string; node: string };
    if (disk.node === node) return disk.id;
  }
  throw new Error(`${node} has no disk`);
};
const nodesOf = (view: VolumeView): string[] => [...new Set(view.legs.flat().map((entry) => entry.node))].sort();
const byNodes = (...nodes: string[]): ((view: VolumeView) => boolean) => {
  return (view) => view.health === 'redundant' && nodesOf(view).join() === nodes.join();
};

describe('a volume that is handed over by name', () => {
  it('is driven by that node one epoch later, clean, with what was written', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.write('c1', 'v1', 0, 5);
    const watch = bed.leaderships();
    const job = await bed.ended(await moveController(bed.api, 'v1', 'c2'));
    await watch.stop();
    expect(job).toMatchObject({ state: 'done', progress: { done: 1, total: 1 }, error: null, runner: null });
    expect(await bed.view('v1')).toMatchObject({ controller: 'c2', epoch: 2, health: 'redundant' });
    // What the members hold says that it was left clean, and one swap is enough.
    expect(watch.seen).toHaveLength(1);
    expect(watch.seen[0]).toMatchObject({ epoch: 2, controller: 'c2', clean: false });
    expect(await bed.read('c2', 'v1', 0)).toBe(5);
    expect(bed.server.list('/basalt/v1/handovers/')).toEqual([]);
  });

  it('serves on where it was when the one that was named reaches no disk, whatever that one writes into the store', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    for (const name of ['d1', 'd2', 'd3']) bed.network.partition(bed.node('c2').engine, bed.node(name).engine);
    await moveController(bed.api, 'v1', 'c2');
    await bed.until('v1', 'an epoch that c2 drew itself', (view) => view.epoch > 2);
    for (let block = 0; block < 20; block++) {
      await bed.write('c1', 'v1', block, 7);
      await systemClock.sleep(50);
    }
  });

  it('goes to the one that was named, not to the first standby', async () => {
    await bed.startController('c3');
    await bed.create({ name: 'v1', controllers: ['c1', 'c2', 'c3'] });
    await bed.redundant('v1');
    await bed.until('v1', 'on standby', (view) => view.paths.length === 3);
    const job = await bed.ended(await moveController(bed.api, 'v1', 'c3'));
    expect(job.state).toBe('done');
    expect(await bed.view('v1')).toMatchObject({ controller: 'c3', epoch: 2 });
  });

  it('to a node that is none of its controllers, makes it one first, under ids of its own', async () => {
    await bed.create({ name: 'v1', controllers: ['c1', 'c2'] });
    await bed.redundant('v1');
    await bed.startController('c3');
    await bed.ended(await moveController(bed.api, 'v1', 'c3'));
    const view = await bed.view('v1');
    expect(view).toMatchObject({ controller: 'c3', controllers: ['c1', 'c2', 'c3'] });
    const ranges = await Promise.all(
      ['c1', 'c2', 'c3'].map(async (name) => {
        const [subsystem] = await bed.node(name).engine.rpc('nvmf_get_subsystems', { nqn: view.nqn });
        return subsystem?.min_cntlid;
      }),
    );
    expect(new Set(ranges).size).toBe(3);
  });

  it('is taken anew by a node to which it came back before that one saw that it was gone', async () => {
    const { id } = await bed.create({ name: 'v1', controllers: ['c1', 'c2'] });
    await bed.redundant('v1');
    await bed.write('c1', 'v1', 1, 7);
    // Another one had it meanwhile, and gave it back: of two changes in a row a watch may show the last one only.
    const key = keys.leadership(id);
    const held = (await bed.api.store.get(key)).entry?.value.toString() ?? '';
    const before = codecs.leadership.decode(held, key);
    const value = codecs.leadership.encode({ ...before, epoch: before.epoch + 2, controller: 'c1', instance: null });
    await bed.api.store.txn({ conditions: [], changes: [{ kind: 'put', key, value }] });
    const after = await bed.until(
      'v1',
      'served anew',
      (view) => view.epoch > before.epoch && view.health === 'redundant',
    );
    expect(after.controller).toBe('c1');
    expect(await bed.read('c1', 'v1', 1)).toBe(7);
  });

  it('is driven by somebody, and whole, whoever is killed at whatever moment of it', async () => {
    const seed = BigInt(process.env['BASALT_SEED'] ?? systemRandom.bytes(4).readUInt32LE());
    const random = new SeededRandom(seed);
    await bed.startController('c3');
    await bed.create({ name: 'v1', controllers: ['c1', 'c2', 'c3'] });
    for (let round = 0; round < 6; round++) {
      const what = `seed ${seed}, round ${round}`;
      await bed.until('v1', `whole (${what})`, (view) => view.health === 'redundant' && view.paths.length === 3);
      const holder = (await bed.view('v1')).controller ?? '';
      await bed.write(holder, 'v1', 1, round + 1);
      const to = ['c1', 'c2', 'c3'].filter((name) => name !== holder)[random.fraction() < 0.5 ? 0 : 1] ?? '';
      const killed = random.fraction() < 0.5 ? holder : to;
      const job = await moveController(bed.api, 'v1', to);
      await systemClock.sleep(random.fraction() * 60);
      await bed.kill(killed);
      const view = await bed.until('v1', `served (${what})`, (now) => {
        return now.health !== 'unserved' && now.controller !== killed && now.controller !== null;
      });
      expect(await bed.read(view.controller ?? '', 'v1', 1), what).toBe(round + 1);
      await bed.startController(killed);
      expect(hasEnded({ ...(await bed.ended(job)), format: 1 }), what).toBe(true);
    }
  }, 60_000);

  it('is refused for a node that is none, and while it is on the way elsewhere', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await expect(moveController(bed.api, 'v1', 'd1')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(moveController(bed.api, 'nope', 'c2')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const job = await bed.ended(await moveController(bed.api, 'v1', 'c2'));
    await expect(cancelJob(bed.api, job.id)).rejects.toMatchObject({ code: 'JOB_ENDED' });
  });
});

describe('a disk that is drained', () => {
  it('ends empty and can be removed, and no leg ever has fewer replicas in sync', async () => {
    await bed.create({ name: 'v1', legs: 4 });
    await bed.redundant('v1');
    for (let block = 0; block < 64; block++) await bed.write('c1', 'v1', block, block + 1);
    const disk = diskOf('d2');
    const target = { kind: 'disk' as const, name: disk };
    await expect(removeDisk(bed.api, disk)).rejects.toMatchObject({ code: 'BUSY' });
    const plan = await previewDrain(bed.api, target);
    expect(plan.replicas).toBeGreaterThan(0);
    const watch = bed.leaderships();
    const job = await bed.ended(await drain(bed.api, target));
    await watch.stop();
    expect(job).toMatchObject({ state: 'done', progress: { done: plan.replicas, total: plan.replicas } });
    for (const leadership of watch.seen)
      for (const leg of leadership.legs) expect(leg.inSync.length).toBeGreaterThanOrEqual(2);
    expect(nodesOf(await bed.redundant('v1'))).toEqual(['d1', 'd3']);
    expect(await bed.lvols('d2')).toEqual([]);
    await removeDisk(bed.api, disk);
    await removeDisk(bed.api, disk);
    expect(bed.server.list(`/basalt/v1/disks/${disk}`)).toEqual([]);
    for (let block = 0; block < 64; block++) expect(await bed.read('c1', 'v1', block)).toBe(block + 1);
  });

  it('is refused when the others cannot hold it, with what would do', async () => {
    await bed.create({ name: 'v1', copies: 3, legs: 1 });
    await bed.redundant('v1');
    const target = { kind: 'disk' as const, name: diskOf('d2') };
    const refusal = { code: 'DRAIN_REFUSED', message: expect.stringMatching(/add a disk in 1 more node/) };
    await expect(drain(bed.api, target)).rejects.toMatchObject(refusal);
    expect(bed.server.list('/basalt/v1/cordons/')).toEqual([]);
    expect(bed.server.list('/basalt/v1/jobs/')).toEqual([]);
  });

  it('keeps what has not moved when that is cancelled, and takes it back when it is uncordoned', async () => {
    await bed.create({ name: 'v1', legs: 8, sizeBytes: 32 * 2 ** 20 });
    await bed.redundant('v1');
    const target = { kind: 'disk' as const, name: diskOf('d2') };
    const job = await drain(bed.api, target);
    await cancelJob(bed.api, job.id);
    expect(await bed.ended(job)).toMatchObject({ state: 'cancelled' });
    await bed.redundant('v1');
    await systemClock.sleep(300);
    const still = await bed.redundant('v1');
    expect(still.legs.every((leg) => leg.length === 2)).toBe(true);
    await uncordon(bed.api, target);
    await bed.until('v1', 'spread again', byNodes('d1', 'd2', 'd3'));
  });

  it('goes on under another runner when the one that had it is killed', async () => {
    // The first of the nodes by name runs jobs.
    await bed.startController('a1');
    await bed.create({ name: 'v1', legs: 8, sizeBytes: 32 * 2 ** 20, controllers: ['c1', 'c2'] });
    await bed.redundant('v1');
    const job = await drain(bed.api, { kind: 'disk', name: diskOf('d2') });
    await expect.poll(async () => (await showJob(bed.api, job.id)).runner?.node).toBe('a1');
    await bed.kill('a1');
    const done = await bed.ended(job);
    expect(done.state).toBe('done');
    expect(done.events.map((event) => event.text)).toContain('taken on by c1');
    expect(nodesOf(await bed.redundant('v1'))).toEqual(['d1', 'd3']);
  });
});

describe('a disk that is cordoned', () => {
  it('keeps what it has and gets nothing new', async () => {
    await bed.create({ name: 'v1', legs: 4 });
    const before = await bed.redundant('v1');
    await cordon(bed.api, { kind: 'disk', name: diskOf('d2') });
    await bed.create({ name: 'v2', legs: 4 });
    expect(nodesOf(await bed.redundant('v2'))).toEqual(['d1', 'd3']);
    expect(nodesOf(await bed.view('v1'))).toEqual(nodesOf(before));
    await cordon(bed.api, { kind: 'node', name: 'd1' });
    await expect(bed.create({ name: 'v3', legs: 1 })).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
      message: expect.stringMatching(/cordoned disks/),
    });
  });
});

describe('a node that is drained', () => {
  it('hands over what it drives and is no controller any more', async () => {
    await bed.startController('c3');
    for (const name of ['v1', 'v2']) await bed.create({ name, controllers: ['c1', 'c2'] });
    for (const name of ['v1', 'v2']) await bed.redundant(name);
    const job = await bed.ended(await drain(bed.api, { kind: 'node', name: 'c1' }));
    expect(job.state).toBe('done');
    for (const name of ['v1', 'v2']) {
      const view = await bed.redundant(name);
      expect(view).toMatchObject({ controller: 'c2', controllers: ['c2', 'c3'] });
    }
    // What hosts saw there goes after the job has ended.
    const subsystems = (): Promise<unknown[]> => bed.node('c1').engine.rpc('nvmf_get_subsystems', {});
    await expect.poll(subsystems, { timeout: 30_000 }).toHaveLength(1);
  });

  it('is refused when a volume has nobody else', async () => {
    await bed.create({ name: 'v1', controllers: ['c1'] });
    await bed.redundant('v1');
    await bed.kill('c2');
    await expect.poll(() => bed.server.list('/basalt/v1/live/c2').length, { timeout: 30_000 }).toBe(0);
    await expect(drain(bed.api, { kind: 'node', name: 'c1' })).rejects.toMatchObject({ code: 'DRAIN_REFUSED' });
  });
});

describe('jobs', () => {
  it('are the same one while the same wish is under way', async () => {
    await bed.create({ name: 'v1', legs: 8, sizeBytes: 32 * 2 ** 20 });
    await bed.redundant('v1');
    const target = { kind: 'disk' as const, name: diskOf('d1') };
    const [first, second] = [await drain(bed.api, target), await drain(bed.api, target)];
    expect(hasEnded({ ...second, format: 1 }) || second.id === first.id).toBe(true);
    await bed.ended(first);
  });
});
