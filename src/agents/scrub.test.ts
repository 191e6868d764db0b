// SPDX-License-Identifier: Apache-2.0
// Scrubs of volumes as jobs, over whole clusters: all legs are compared, planted differences are found and mended, it
// waits for members that are away, whoever dies, and called off it leaves nothing behind.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cancelJob, scrubVolume, showJob } from '../api/jobs.js';
import type { JobView } from '../model/jobs.js';
import { Wakeup } from './signal.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

const legs = 2;
const nothing = { differentBlocks: 0, unreadableBlocks: 0, repairedBlocks: 0 };

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 30 };
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1', legs, controllers: ['c1', 'c2'] });
  await bed.redundant('v1');
});

afterEach(() => bed.close());

/** Changes a block of one replica behind everybody's back. */
async function damage(node: string, block: number): Promise<void> {
  const { engine } = bed.node(node);
  const [lvol] = (await bed.lvols(node)).map(({ uuid }) => uuid);
  await engine.damage(lvol ?? '', block);
}

const left = (): unknown[] => bed.server.list('/basalt/v1/scrubs/');
const waiting = (job: JobView, text: string): Promise<void> =>
  eventually(`the job waits: ${text}`, async () => (await showJob(bed.api, job.id)).waitsFor?.includes(text) === true);

describe('a scrub of a volume', { timeout: 60_000 }, () => {
  it('compares all of its legs and takes itself away', async () => {
    await bed.write('c1', 'v1', 3, 5);
    const job = await bed.ended(await scrubVolume(bed.api, 'v1', {}));
    expect(job).toMatchObject({ state: 'done', error: null, progress: { done: 100, total: 100 }, result: nothing });
    const { sizeBytes } = await bed.view('v1');
    expect(job.result?.['comparedBlocks']).toBeGreaterThanOrEqual(sizeBytes / 4096);
    expect(job.events.at(-1)?.text).toBe('nothing is wrong in what was compared');
    expect(left()).toEqual([]);
  });

  it('finds a planted difference, rewrites it when that is wanted, and then finds nothing any more', async () => {
    await bed.write('c1', 'v1', 0, 5);
    await damage('d1', 1);
    const found = { differentBlocks: 1, unreadableBlocks: 0 };
    const look = await bed.ended(await scrubVolume(bed.api, 'v1', { repair: false }));
    expect(look).toMatchObject({ state: 'done', result: { ...found, repairedBlocks: 0 } });
    const mend = await bed.ended(await scrubVolume(bed.api, 'v1', {}));
    expect(mend).toMatchObject({ state: 'done', result: { ...found, repairedBlocks: 1 } });
    expect(mend.events.at(-1)?.text).toBe('blocks that differ: 1, unreadable: 0, rewritten: 1');
    expect(await bed.ended(await scrubVolume(bed.api, 'v1', {}))).toMatchObject({ result: nothing });
    expect(await bed.read('c1', 'v1', 0)).toBe(5);
  });

  it('waits until all members of a leg are there, and ends then', async () => {
    await bed.kill('d1');
    await bed.until('v1', 'degraded', (view) => view.health === 'degraded');
    const job = await scrubVolume(bed.api, 'v1', {});
    await waiting(job, 'leg 0 has 1 of 2 members in sync');
    await bed.startDiskNode('d1');
    expect(await bed.ended(job)).toMatchObject({ state: 'done', waitsFor: null, result: nothing });
  });

  it('is gone on with by whoever drives the volume next', async () => {
    await bed.until('v1', 'on standby', (view) => view.paths.length === 2);
    // The first controller gets no further than the beginning.
    const begun = new Wakeup();
    const dying = new Wakeup();
    const { signal } = new AbortController();
    bed.intercept('c1', 'basalt_leg_scrub_start', () => {
      begun.wake();
      return dying.wait(signal);
    });
    const job = await scrubVolume(bed.api, 'v1', {});
    await begun.wait(signal);
    const killed = bed.kill('c1');
    dying.wake();
    await killed;
    expect(await bed.ended(job)).toMatchObject({ state: 'done', result: nothing });
    expect((await bed.view('v1')).controller).toBe('c2');
    expect(left()).toEqual([]);
  });

  it('that is cancelled is over, and the next one begins anew', async () => {
    await bed.kill('d2');
    await bed.until('v1', 'degraded', (view) => view.health === 'degraded');
    const job = await scrubVolume(bed.api, 'v1', { bytesPerS: 1 });
    await waiting(job, 'members in sync');
    expect((await scrubVolume(bed.api, 'v1', { bytesPerS: 1 })).id).toBe(job.id);
    await expect(scrubVolume(bed.api, 'v1', {})).rejects.toMatchObject({ code: 'BUSY' });
    await cancelJob(bed.api, job.id);
    expect(await bed.ended(job)).toMatchObject({ state: 'cancelled', result: { comparedBlocks: 0 } });
    expect(left()).toEqual([]);
    await bed.startDiskNode('d2');
    expect(await bed.ended(await scrubVolume(bed.api, 'v1', {}))).toMatchObject({ state: 'done' });
  });

  it('is refused for a volume that is not there', async () => {
    await expect(scrubVolume(bed.api, 'nope', {})).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
