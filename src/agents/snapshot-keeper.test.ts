// SPDX-License-Identifier: Apache-2.0
// A disk node's keeper of snapshots, with the store changing while it looks at its disks.

import { beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { type SnapshotObject, snapshotLvol } from '../model/snapshots.js';
import type { OpenDisk } from './disks.js';
import { SnapshotKeeper } from './snapshot-keeper.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const [id, volumeId, replica, disk, otherDisk] = [uuid(1), uuid(2), uuid(3), uuid(4), uuid(5)];
const never = new AbortController().signal;
const first = snapshotLvol(id, '00000001', replica);
const second = snapshotLvol(id, '00000002', replica);

const openDisk = (uuid: string): OpenDisk => ({ lvstore: { uuid, name: `lvs-${uuid}` } }) as unknown as OpenDisk;

/** The first try is over; what it made is to go. */
const wanted: SnapshotObject = {
  format: 1,
  id,
  name: 's1',
  volumeId,
  phase: 'wanted',
  createdAtMs: 1,
  failedCount: 1,
  leftovers: [{ lvol: first, replica, disk, node: 'd1', epoch: 1 }],
};
const cutAgain: SnapshotObject = {
  ...wanted,
  phase: 'ready',
  cut: { attempt: '00000002', epoch: 2, copies: [{ leg: 0, replica, disk, node: 'd1' }] },
  shape: { sizeBytes: 4096, legSizeBytes: 2 ** 20 },
};

describe('the keeper of snapshots', () => {
  let link: MemoryLink;
  /** Lvols of the disks, with the epoch that each obeys. */
  let lvols: Map<string, number>;
  let afterListing: () => void;
  let failing: string | null;

  beforeEach(() => {
    link = new MemoryLink();
    lvols = new Map([[replica, 2]]);
    afterListing = () => {};
    failing = null;
  });

  const store = (snapshot: SnapshotObject): void => link.put(keys.snapshot(id), codecs.snapshot.encode(snapshot));
  const stored = (): SnapshotObject | null => link.state.get('snapshots', id);

  function pass(...disks: string[]): Promise<unknown[]> {
    const rpc = async (method: string, params: { lvs_uuid?: string; name?: string }): Promise<unknown> => {
      if (method === 'bdev_lvol_delete') return lvols.delete(params.name?.split('/')[1] ?? '');
      if (params.lvs_uuid === failing) throw new Error('the disk does not answer');
      const listed = [...lvols].map(([name, epoch]) => ({ name, epoch: String(epoch) }));
      afterListing();
      return listed;
    };
    const engine = { rpc } as unknown as Engine;
    const context = { engine, clock: systemClock, random: systemRandom, log: quietLog };
    return new SnapshotKeeper({ context, link }).pass(disks.map(openDisk), never);
  }

  it('forgets a leftover that is not there and that nobody can make any more', async () => {
    store(wanted);
    await pass(disk);
    expect(stored()?.leftovers).toEqual([]);
  });

  it('goes on with the other disks when one does not answer, and says that it did not', async () => {
    const there = { lvol: second, replica, disk: otherDisk, node: 'd1', epoch: 1 };
    store({ ...wanted, leftovers: [...wanted.leftovers, there] });
    lvols.set(second, 1);
    failing = disk;
    expect(await pass(disk, otherDisk)).toEqual([new Error('the disk does not answer')]);
    expect(lvols.has(second)).toBe(false);
    expect(stored()?.leftovers).toEqual(wanted.leftovers);
  });

  it('does not take a copy for lost that was cut after it had looked', async () => {
    store(wanted);
    afterListing = () => {
      lvols.set(second, 2);
      store(cutAgain);
    };
    await pass(disk);
    expect(stored()).toEqual(cutAgain);
    afterListing = () => {};
    await pass(disk);
    expect(stored()).toEqual({ ...cutAgain, leftovers: [] });
  });

  it('does not take a leftover for gone that was named, and made, after it had looked', async () => {
    store(wanted);
    const late = { lvol: second, replica, disk, node: 'd1', epoch: 1 };
    const renamed = { ...wanted, leftovers: [...wanted.leftovers, late] };
    afterListing = () => {
      lvols.set(second, 2);
      store(renamed);
    };
    await pass(disk);
    expect(stored()).toEqual(renamed);
    afterListing = () => {};
    await pass(disk);
    expect(lvols.has(second)).toBe(false);
    expect(stored()?.leftovers).toEqual([]);
  });
});
