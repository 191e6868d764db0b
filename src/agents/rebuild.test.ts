// SPDX-License-Identifier: Apache-2.0
// Replicas follow their pool's map: off disks that do not come back, onto disks that are new, away with their volume.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createPool } from '../api/pools.js';
import { deleteVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { ClusterBed } from './testing/cluster-bed.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 300, settleMs: 50, rebuildsMax: 2, rebuildsPerDiskMax: 2 };
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

const lvolsOn = async (node: string): Promise<number> => (await bed.lvols(node)).length;
const keysUnder = (prefix: string): number => bed.server.list(`/basalt/v1/${prefix}`).length;
const nodesOf = (view: VolumeView): string[] => [...new Set(view.legs.flat().map((entry) => entry.node))].sort();
const isOn = (...nodes: string[]): ((view: VolumeView) => boolean) => {
  return (view) => view.health === 'redundant' && nodesOf(view).every((node) => nodes.includes(node));
};

async function fill(volume: string, node: string, blocks: number): Promise<void> {
  for (let block = 0; block < blocks; block++) await bed.write(node, volume, block, block + 1);
}

async function expectFilled(volume: string, node: string, blocks: number): Promise<void> {
  for (let block = 0; block < blocks; block++) expect(await bed.read(node, volume, block)).toBe(block + 1);
}

describe('a disk that never comes back', () => {
  it('is replaced after the grace time, under I/O, and the volume is redundant again on the others', async () => {
    await bed.create({ name: 'v1', legs: 4 });
    await bed.redundant('v1');
    await fill('v1', 'c1', 64);
    await bed.kill('d2');
    await bed.write('c1', 'v1', 0, 1);
    let writing = true;
    const load = (async () => {
      for (let round = 0; writing; round++) {
        await bed.write('c1', 'v1', 64 + (round % 8), 7);
        // The fake answers without a turn of the event loop.
        await systemClock.sleep(1);
      }
    })();
    const view = await bed.until('v1', 'rebuilt', isOn('d1', 'd3'));
    writing = false;
    await load;
    expect(view.legs.every((leg) => leg.length === 2)).toBe(true);
    // What d2 held is really elsewhere: either of the two that are left has everything.
    await bed.kill('d1');
    await expectFilled('v1', 'c1', 64);
  });

  it('is waited for during the grace time: nothing is copied for a restart', async () => {
    bed.placement = { ...bed.placement, graceMs: 60_000 };
    await Promise.all(['c1', 'c2', 'd1', 'd3'].map((name) => bed.kill(name)));
    await Promise.all(['d1', 'd3'].map((name) => bed.startDiskNode(name)));
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    await bed.create({ name: 'v1', legs: 4 });
    const before = await bed.redundant('v1');
    await bed.kill('d1');
    await new Promise((resolve) => setTimeout(resolve, 600));
    await bed.startDiskNode('d1');
    const after = await bed.redundant('v1');
    expect(after.legs.map((leg) => leg.map((entry) => entry.replica).sort())).toEqual(
      before.legs.map((leg) => leg.map((entry) => entry.replica).sort()),
    );
  });

  it('deletes what was given up when it does come back', async () => {
    await bed.create({ name: 'v1', legs: 4 });
    await bed.redundant('v1');
    await bed.kill('d2');
    await bed.until('v1', 'rebuilt', isOn('d1', 'd3'));
    expect(keysUnder('tombstones/')).toBeGreaterThan(0);
    await bed.startDiskNode('d2');
    await expect.poll(() => keysUnder('tombstones/'), { timeout: 30_000 }).toBe(0);
    // It may have been given new replicas by then; every one that it has belongs to the volume.
    const { legs } = await bed.redundant('v1');
    await expect
      .poll(() => lvolsOn('d2'), { timeout: 30_000 })
      .toBe(legs.flat().filter((entry) => entry.node === 'd2').length);
  });

  it('leaves a volume alone when no other failure domain is there, and is replaced when one comes', async () => {
    await bed.kill('d3');
    await bed.create({ name: 'v1', legs: 1, copies: 2 });
    await bed.redundant('v1');
    await bed.kill('d2');
    await bed.write('c1', 'v1', 0, 9);
    await bed.until('v1', 'degraded', (view) => view.health === 'degraded');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await bed.view('v1')).health).toBe('degraded');
    await bed.startDiskNode('d4');
    await bed.until('v1', 'rebuilt on d4', isOn('d1', 'd4'));
    expect(await bed.read('c1', 'v1', 0)).toBe(9);
  });
});

describe('a report that reaches the store after its replica was deleted', () => {
  it('goes again, and those of replicas that there are stay', { timeout: 60_000 }, async () => {
    const made = await bed.create({ name: 'v1', legs: 1, copies: 2 });
    await bed.redundant('v1');
    const reports = bed.server.list(keys.observedReplicas);
    expect(reports).toHaveLength(2);
    await deleteVolume(bed.api, 'v1');
    await bed.create({ name: 'v2', legs: 1, copies: 2 });
    await expect.poll(() => bed.server.list(keys.volume(made.id)), { timeout: 30_000 }).toEqual([]);
    bed.server.apply(reports.map(({ key, value }) => ({ kind: 'put', key, value })));
    await bed.redundant('v2');
    const kept = new Set(bed.server.list(keys.observedReplicas).map(({ key }) => key));
    for (const { key } of reports) kept.delete(key);
    expect(kept.size).toBe(2);
    const left = (): string[] => bed.server.list(keys.observedReplicas).map(({ key }) => key);
    await expect.poll(left, { timeout: 30_000 }).toEqual([...kept]);
  });
});

describe('a volume that was never driven', () => {
  it('gets other replicas at once instead of the ones that are gone', async () => {
    await bed.create({ name: 'v1', legs: 4, controllers: [] });
    await bed.until('v1', 'made', (view) => view.phase === 'live');
    await bed.kill('d2');
    const view = await bed.until('v1', 'placed elsewhere', (now) => !nodesOf(now).includes('d2'));
    expect(view.legs.every((leg) => leg.every((entry) => entry.state === 'in_sync'))).toBe(true);
    await bed.until('v1', 'made', (now) => now.phase === 'live');
  });

  it('leaves nothing on the node that was gone when that is back', { timeout: 180_000 }, async () => {
    await bed.create({ name: 'v1', legs: 4, controllers: [] });
    await bed.until('v1', 'made', (view) => view.phase === 'live');
    await bed.kill('d2');
    await bed.until('v1', 'placed elsewhere', (now) => !nodesOf(now).includes('d2'), 60_000);
    await bed.startDiskNode('d2');
    const isPlacedOnly = async (): Promise<boolean> => {
      const placed = (await bed.view('v1')).legs.flat().map((entry) => entry.node);
      const nodes = ['d1', 'd2', 'd3'];
      const there = await Promise.all(nodes.map((node) => lvolsOn(node)));
      return nodes.every((node, index) => there[index] === placed.filter((each) => each === node).length);
    };
    await expect.poll(isPlacedOnly, { timeout: 60_000 }).toBe(true);
  });
});

describe('a new disk', () => {
  it('takes its share of the data, copied under I/O, and the old replicas are deleted', {
    timeout: 120_000,
  }, async () => {
    for (const name of ['v1', 'v2', 'v3', 'v4']) await bed.create({ name, legs: 4 });
    for (const name of ['v1', 'v2', 'v3', 'v4']) await bed.redundant(name);
    await fill('v1', 'c1', 64);
    await bed.startDiskNode('d4');
    const volumes = ['v1', 'v2', 'v3', 'v4'];
    const read = (): Promise<VolumeView[]> => Promise.all(volumes.map((name) => bed.view(name)));
    // Between two moves everything may look settled.
    const differing = async (): Promise<string[]> => {
      const views = await read();
      const replicas = views.flatMap((view) => view.legs.flat());
      const moving = views.filter((view) => view.health !== 'redundant' || view.legs.flat().length !== 8);
      const found = moving.map((view) => `${view.name} is ${view.health}`);
      if (!replicas.some(({ node }) => node === 'd4')) found.push('d4 has nothing');
      for (const node of ['d1', 'd2', 'd3', 'd4']) {
        const [lvols, wanted] = [await lvolsOn(node), replicas.filter((entry) => entry.node === node).length];
        if (lvols !== wanted) found.push(`${node} has ${lvols} lvols for ${wanted} replicas`);
      }
      return found;
    };
    await expect.poll(differing, { timeout: 60_000 }).toEqual([]);
    const views = await read();
    expect(views.every((view) => view.epoch === 1)).toBe(true);
    await expectFilled('v1', views[0]?.controller ?? '', 64);
  });
});

describe('a volume that is deleted while a node is away', () => {
  it('goes when the grace time is over, and its replica when the node is back', async () => {
    await bed.create({ name: 'v1', legs: 4 });
    await bed.redundant('v1');
    await bed.kill('d2');
    await deleteVolume(bed.api, 'v1');
    await expect.poll(() => keysUnder('volumes/') + keysUnder('leadership/'), { timeout: 30_000 }).toBe(0);
    await bed.startDiskNode('d2');
    await expect.poll(() => lvolsOn('d2'), { timeout: 30_000 }).toBe(0);
    await expect.poll(() => keysUnder('tombstones/'), { timeout: 30_000 }).toBe(0);
  });

  it('goes at once when that is forced', async () => {
    bed.placement = { ...bed.placement, graceMs: 60_000 };
    await Promise.all(['c1', 'c2', 'd1', 'd3'].map((name) => bed.kill(name)));
    await Promise.all(['d1', 'd3'].map((name) => bed.startDiskNode(name)));
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    await bed.create({ name: 'v1', legs: 4 });
    await bed.redundant('v1');
    await bed.kill('d2');
    await expect.poll(() => keysUnder('live/d2'), { timeout: 30_000 }).toBe(0);
    await deleteVolume(bed.api, 'v1');
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(keysUnder('volumes/')).toBe(1);
    const [left] = bed.server.list('/basalt/v1/volumes/');
    const { id } = codecs.volume.decode(left?.value.toString() ?? '', 'volume');
    await deleteVolume(bed.api, id, { force: true });
    await expect.poll(() => keysUnder('volumes/'), { timeout: 30_000 }).toBe(0);
  });
});

describe('a pool of one copy', () => {
  it('is moved to another disk without ever being without its data', async () => {
    await createPool(bed.api, { name: 'single', redundancy: { kind: 'copies', copies: 1 }, pgCount: 64 });
    // New disks take over two of five PGs, whichever: with this many legs, some are among them.
    const legs = 24;
    await bed.create({ name: 'v1', legs, pool: 'single', copies: 1 });
    await bed.redundant('v1');
    await fill('v1', 'c1', 64);
    await bed.startDiskNode('d4');
    await bed.startDiskNode('d5');
    await expect
      .poll(async () => nodesOf(await bed.view('v1')).some((node) => node === 'd4' || node === 'd5'), {
        timeout: 30_000,
      })
      .toBe(true);
    await bed.until('v1', 'settled', (view) => view.health === 'redundant' && view.legs.flat().length === legs);
    await expectFilled('v1', 'c1', 64);
  });
});
