// SPDX-License-Identifier: Apache-2.0
// A disk that is carried to another node: what it holds is found there, also while the node that had it is up with another
// disk, and copies of snapshots on it are as good as before.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rollBack } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import { snapshotView } from '../api/snapshot-views.js';
import { cloneSnapshot, createSnapshot, requireSnapshot } from '../api/snapshots.js';
import { requireVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { SnapshotView } from '../model/api.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
  // Nothing moves because a disk has come.
  bed.placement = { graceMs: 600_000, settleMs: 600_000 };
});

afterEach(() => bed.close());

async function snapshot(): Promise<SnapshotView> {
  const { state } = await readState(bed.server.connect());
  const volume = requireVolume(state, 'v1').value;
  return snapshotView(state, volume, requireSnapshot(state, volume, 's').value);
}

const write = async (fill: number): Promise<void> => bed.write((await bed.view('v1')).controller ?? '', 'v1', 3, fill);
const expectRead = async (volume: string, fill: number): Promise<void> =>
  expect(await bed.read((await bed.view(volume)).controller ?? '', volume, 3)).toBe(fill);

/** Block 3 holds 1 in a snapshot, and 2 now; the disk of d2 is at d3, and d2 has another one. */
async function carried(): Promise<void> {
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1' });
  await bed.redundant('v1');
  await write(1);
  await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's' } });
  await eventually('the snapshot has two copies', async () => (await snapshot()).copies === 2);
  await bed.kill('d2');
  await write(2);
  bed.network.disks.add('/disks/other', 512 * 2 ** 20);
  await bed.start({ name: 'd2', roles: ['disk'], engine: 'fake', disks: [{ path: '/disks/other' }] });
  await bed.start({ name: 'd3', roles: ['disk'], engine: 'fake', disks: [{ path: '/disks/d2' }] });
}

const onD1AndD3 = (legs: readonly (readonly { readonly node: string }[])[]): boolean =>
  legs.every(
    (leg) =>
      leg
        .map(({ node }) => node)
        .sort()
        .join(' ') === 'd1 d3',
  );

describe('a disk that was carried to another node', { timeout: 120_000 }, () => {
  it('is found there: the volume is redundant again, and served without the other disk', async () => {
    await carried();
    await bed.until('v1', 'redundant, on d1 and d3', ({ health, legs }) => health === 'redundant' && onD1AndD3(legs));
    await bed.kill('d1');
    await write(4);
    await expectRead('v1', 4);
  });

  it('has the copies of snapshots, which volumes begin as there', async () => {
    await carried();
    expect(await snapshot()).toMatchObject({ copies: 2 });
    expect(onD1AndD3((await snapshot()).legs)).toBe(true);
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's', request: { name: 'c' } });
    await bed.until('c', 'redundant, on d1 and d3', ({ health, legs }) => health === 'redundant' && onD1AndD3(legs));
    await expectRead('c', 1);
  });

  it('has them for a volume that goes back to one, which is there at once and not copied', async () => {
    await carried();
    await bed.until('v1', 'redundant', ({ health }) => health === 'redundant');
    const job = await bed.ended(await rollBack(bed.api, { volume: 'v1', snapshot: 's' }));
    expect(job).toMatchObject({ state: 'done' });
    await bed.until('v1', 'on d1 and d3', ({ health, legs }) => health === 'redundant' && onD1AndD3(legs));
    const { state } = await readState(bed.server.connect());
    const volume = requireVolume(state, 'v1').value;
    // Both begin as what the snapshot holds.
    for (const { replicas } of volume.legs)
      expect(replicas.map(({ source }) => source !== undefined)).toEqual([true, true]);
    await bed.kill('d1');
    await eventually('it is read without d1', () => expectRead('v1', 1).then(() => true));
  });
});
