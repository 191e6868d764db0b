// SPDX-License-Identifier: Apache-2.0
// A volume's wish for checksums reaches every lvol that holds a part of it, its snapshots and its clones.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cloneSnapshot, createSnapshot } from '../api/snapshots.js';
import { createVolume } from '../api/volumes.js';
import type { LvolDescription } from '../engine/descriptions.js';
import { systemClock } from '../env/clock.js';
import { ClusterBed } from './testing/cluster-bed.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

async function lvols(): Promise<LvolDescription[]> {
  return (await Promise.all(['d1', 'd2'].map((name) => bed.lvols(name)))).flat();
}

describe('checksums of a volume', () => {
  it('are of all its lvols, and of no other volume', async () => {
    const plain = await bed.create({ name: 'plain' });
    await bed.redundant('plain');
    expect(plain.checksums).toBe(false);
    expect((await lvols()).map(({ checksums }) => checksums)).not.toContain(true);
    const before = (await lvols()).length;
    const sure = await bed.create({ name: 'sure', checksums: true });
    await bed.redundant('sure');
    expect(sure.checksums).toBe(true);
    const withThem = (await lvols()).filter(({ checksums }) => checksums === true);
    expect(withThem).toHaveLength((await lvols()).length - before);
    expect(withThem.length).toBeGreaterThan(0);
    const request = { name: 'sure', sizeBytes: sure.sizeBytes, legs: 2, checksums: true };
    expect(await createVolume(bed.api, request)).toMatchObject({ made: false });
    await expect(createVolume(bed.api, { ...request, checksums: false })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
  });

  it('are of its snapshots and clones too', async () => {
    await bed.create({ name: 'sure', checksums: true });
    await bed.redundant('sure');
    await createSnapshot(bed.api, systemClock, { volume: 'sure', request: { name: 's' } });
    await cloneWhenReady();
    await bed.redundant('clone');
    expect((await bed.view('clone')).checksums).toBe(true);
    const all = await lvols();
    expect(all.some((lvol) => lvol.is_snapshot)).toBe(true);
    expect(all.filter(({ checksums }) => checksums !== true)).toEqual([]);
  });
});

/** The snapshot is cut by its controller, in its own time. */
async function cloneWhenReady(): Promise<void> {
  for (const endMs = systemClock.now() + 60_000; ; await systemClock.sleep(20)) {
    try {
      await cloneSnapshot(bed.api, { volume: 'sure', snapshot: 's', request: { name: 'clone' } });
      return;
    } catch (error) {
      if (systemClock.now() > endMs) throw error;
    }
  }
}
