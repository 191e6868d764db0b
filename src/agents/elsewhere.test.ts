// SPDX-License-Identifier: Apache-2.0
// A controller that reaches the store and the other controllers, and too few replicas: it leaves the volume to whoever
// reaches more, in whole clusters on the memory store and fake engines.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../env/clock.js';
import { ClusterBed } from './testing/cluster-bed.js';

const disks = ['d1', 'd2', 'd3'];
let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(disks.map((name) => bed.startDiskNode(name)));
});

afterEach(() => bed.close());

async function start(...controllers: string[]): Promise<void> {
  await Promise.all(controllers.map((name) => bed.startController(name)));
  await bed.create({ name: 'v1', controllers });
  await bed.redundant('v1');
}

/** From the disk nodes, and from nobody else. */
function cut(controller: string): void {
  for (const disk of disks) bed.network.partition(bed.node(controller).engine, bed.node(disk).engine);
}

/** A host's request: what finds out. */
function ask(controller: string): void {
  bed.write(controller, 'v1', 0, 3).catch(() => {});
}

describe('a controller that reaches no replica', () => {
  it('leaves the volume to one that does', async () => {
    await start('c1', 'c2');
    await bed.write('c1', 'v1', 1, 7);
    cut('c1');
    ask('c1');
    const view = await bed.served('v1', 'c2');
    expect(await bed.read('c2', 'v1', 1)).toBe(7);
    expect(view.paths.find(({ node }) => node === 'c1')?.state).not.toBe('active');
    // It is in nobody's way afterwards.
    const { epoch } = await bed.redundant('v1');
    await systemClock.sleep(2_500);
    expect(await bed.view('v1')).toMatchObject({ controller: 'c2', epoch });
  });

  it('leaves it to others that do not either, slowly, and whoever reaches them first serves it', async () => {
    await start('c1', 'c2', 'c3');
    await bed.write('c1', 'v1', 1, 7);
    const { seen, stop } = bed.leaderships();
    for (const controller of ['c2', 'c3', 'c1']) cut(controller);
    ask('c1');
    const holders = (): Set<string | null> => new Set(seen.map(({ controller }) => controller));
    await expect.poll(() => holders().size, { timeout: 30_000 }).toBe(4);
    // Nobody has been left out, and nothing was said of the sets.
    expect(seen.every(({ legs }) => legs.every(({ inSync }) => inSync.length > 0))).toBe(true);
    // A right and its return for each wait, which are not shorter than the time that members are given.
    const [before, sinceMs] = [seen.length, systemClock.now()];
    await systemClock.sleep(4_000);
    expect(seen.length - before).toBeLessThanOrEqual(2 * Math.ceil((systemClock.now() - sinceMs) / 1_000));
    bed.network.healAll();
    await bed.redundant('v1');
    await stop();
    const { controller } = await bed.view('v1');
    expect(await bed.read(controller ?? '', 'v1', 1)).toBe(7);
  });

  it('keeps it when there is nobody else', async () => {
    await start('c1');
    cut('c1');
    ask('c1');
    await bed.until('v1', 'unserved', (view) => view.health === 'unserved');
    const { seen, stop } = bed.leaderships();
    await systemClock.sleep(3_000);
    await stop();
    expect(seen.filter(({ controller }) => controller === null)).toEqual([]);
    bed.network.healAll();
    await bed.served('v1', 'c1');
  });
});
