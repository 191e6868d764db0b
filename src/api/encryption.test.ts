// SPDX-License-Identifier: Apache-2.0
// Encrypted volumes on a whole cluster of fake engines: what is on the disks, who may serve them, and what a change of
// the cluster key does at each step of its way.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { faultyStore } from '../agents/testing/faulty-store.js';
import { MemoryKeys } from '../agents/testing/memory-keys.js';
import { configurationLvol } from '../model/configuration-copy.js';
import { clusterKeyView, pruneClusterKeys, rotateClusterKey } from './encryption.js';
import { resizeVolume } from './volumes.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
});

afterEach(() => bed.close());

const isOfVolume = ({ name }: { name: string }): boolean => name !== configurationLvol;

/** Every block that any replica holds. */
function blocksOnDisks(): Uint8Array[] {
  return ['/disks/d1', '/disks/d2'].flatMap((path) =>
    [...(bed.network.disks.find(path)?.lvstore?.lvols.values() ?? [])]
      .filter(isOfVolume)
      .flatMap((lvol) => lvol.blocks.written().map((block) => lvol.blocks.read(block, 1))),
  );
}

const isFilled = (fill: number) => (block: Uint8Array) => block.every((byte) => byte === fill);

async function make(name: string, encrypt: boolean): Promise<void> {
  await bed.create({ name, legs: 2, controllers: ['c1', 'c2'], encrypt });
  await bed.served(name, 'c1');
}

describe('an encrypted volume', () => {
  it('is ciphertext on the disks, and is served by the standby after the active one died', async () => {
    await bed.startController('c1');
    await bed.startController('c2');
    await make('plain', false);
    await make('v', true);
    await bed.write('c1', 'plain', 3, 0x41);
    expect(blocksOnDisks().filter(isFilled(0x41)), 'the look at the disks sees what is there').toHaveLength(2);
    await bed.write('c1', 'v', 3, 0x42);
    expect(blocksOnDisks().filter(isFilled(0x42))).toHaveLength(0);
    expect(await bed.read('c1', 'v', 3)).toBe(0x42);
    expect(await bed.read('c1', 'v', 4)).toBe(0);
    await bed.kill('c1');
    await bed.served('v', 'c2');
    expect(await bed.read('c2', 'v', 3)).toBe(0x42);
    expect(await bed.read('c2', 'v', 4)).toBe(0);
  });

  it('grows while it is used: what is new reads as zeroes and is encrypted, too', async () => {
    await bed.startController('c1');
    await bed.startController('c2');
    await make('v', true);
    const { sizeBytes } = await bed.view('v');
    await bed.write('c1', 'v', 3, 0x51);
    await resizeVolume(bed.api, 'v', { sizeBytes: 4 * sizeBytes });
    await bed.until('v', 'its new size', (view) => view.sizeBytes === 4 * sizeBytes && view.growth === null);
    const last = (4 * sizeBytes) / 4096 - 1;
    expect(await bed.read('c1', 'v', last)).toBe(0);
    await bed.write('c1', 'v', last, 0x52);
    await bed.kill('c1');
    await bed.served('v', 'c2');
    expect([await bed.read('c2', 'v', 3), await bed.read('c2', 'v', last)]).toEqual([0x51, 0x52]);
    expect(blocksOnDisks().filter((block) => isFilled(0x51)(block) || isFilled(0x52)(block))).toHaveLength(0);
  });

  it('is not touched by a controller without its key, which says so, and served by one that has it', async () => {
    const wrong = new MemoryKeys();
    bed.nodeKeys.set('c1', wrong).set('c2', null);
    await bed.startController('c1');
    await bed.startController('c2');
    await bed.create({ name: 'v', legs: 2, controllers: ['c1', 'c2'], encrypt: true });
    const { encryptedBy } = await bed.view('v');
    const said = `volume v needs cluster key ${encryptedBy}; held here: ${wrong.keys[0]?.id}`;
    const view = await bed.until('v', 'a problem', ({ paths }) => paths.some((path) => path.problem === said));
    expect(view).toMatchObject({ epoch: 0, controller: null, health: 'unserved' });
    const missing = 'cluster key file none: does not exist';
    await bed.until('v', 'another problem', ({ paths }) => paths.some((path) => path.problem === missing));
    // The file is brought there: nothing has to be started again.
    bed.nodeKeys.delete('c2');
    await bed.served('v', 'c2');
    await bed.write('c2', 'v', 1, 7);
    expect(await bed.read('c2', 'v', 1)).toBe(7);
  });

  it('is passed on by a controller that drove it in an earlier life and has lost its key since', async () => {
    await bed.startController('c1');
    await bed.startController('c2');
    await make('v', true);
    await bed.write('c1', 'v', 2, 9);
    await bed.kill('c2');
    await bed.kill('c1');
    bed.nodeKeys.set('c1', null);
    await bed.startController('c1');
    await bed.startController('c2');
    await bed.served('v', 'c2');
    expect(await bed.read('c2', 'v', 2)).toBe(9);
  });

  it('cannot be made where the current key is not in the file, and is another volume than a plain one', async () => {
    await bed.startController('c1');
    await bed.create({ name: 'v', legs: 2, controllers: ['c1'], encrypt: true });
    await expect(bed.create({ name: 'v', legs: 2, controllers: ['c1'] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    await bed.keys.add();
    bed.keys.keys.shift();
    await expect(bed.create({ name: 'w', legs: 2, controllers: ['c1'], encrypt: true })).rejects.toMatchObject({
      code: 'CLUSTER_KEY_MISSING',
    });
    await expect(rotateClusterKey(bed.api)).rejects.toMatchObject({ code: 'CLUSTER_KEY_MISSING' });
  });
});

describe('a change of the cluster key', () => {
  it('wraps every key anew, touches no data, and lets the old key go', async () => {
    await bed.startController('c1');
    await bed.startController('c2');
    await make('v', true);
    await make('w', true);
    await make('plain', false);
    await bed.write('c1', 'v', 0, 5);
    const [first] = bed.keys.keys;
    const before = blocksOnDisks();
    const done = await rotateClusterKey(bed.api);
    expect(done).toEqual({ keyId: bed.keys.keys[1]?.id, rewrapped: 2 });
    expect(blocksOnDisks()).toEqual(before);
    expect(await clusterKeyView(bed.api)).toEqual({
      current: done.keyId,
      keys: [
        { id: first?.id, held: true, volumes: 0, hosts: 0 },
        { id: done.keyId, held: true, volumes: 2, hosts: 0 },
      ],
    });
    expect(await pruneClusterKeys(bed.api)).toEqual({ removed: [first?.id] });
    expect(await bed.read('c1', 'v', 0)).toBe(5);
    await bed.kill('c1');
    await bed.served('v', 'c2');
    expect(await bed.read('c2', 'v', 0)).toBe(5);
    await bed.create({ name: 'x', legs: 2, controllers: ['c2'], encrypt: true });
    expect((await bed.view('x')).encryptedBy).toBe(done.keyId);
  });

  it('goes on where it ended, whichever of its steps was the last, and draws one key in all', async () => {
    await bed.startController('c1');
    await bed.startController('c2');
    await make('v', true);
    await make('w', true);
    await bed.write('c1', 'v', 0, 6);
    // Steps: the store names the key, then the volumes.
    for (const [round, steps] of [0, 1, 2].entries()) {
      for (const fault of ['lost-before', 'lost-after'] as const) {
        const drawn = bed.keys.keys.length;
        let left = steps;
        const store = faultyStore(bed.connect(), () => (left-- > 0 ? 'pass' : fault));
        await expect(rotateClusterKey({ ...bed.api, store })).rejects.toMatchObject({ code: 'STORE_UNKNOWN_OUTCOME' });
        for (const name of ['v', 'w']) {
          const { encryptedBy } = await bed.view(name);
          expect(bed.keys.keys.map((key) => key.id)).toContain(encryptedBy);
        }
        const pruned = await pruneClusterKeys(bed.api);
        const done = await rotateClusterKey(bed.api);
        const last = steps === 2 && fault === 'lost-after';
        // The one case in which the first call had done everything: the second is a change of its own.
        expect(bed.keys.keys.length + pruned.removed.length, `round ${round} ${fault}`).toBe(drawn + (last ? 2 : 1));
        for (const name of ['v', 'w']) expect((await bed.view(name)).encryptedBy).toBe(done.keyId);
      }
    }
    await bed.kill('c1');
    await bed.served('v', 'c2');
    expect(await bed.read('c2', 'v', 0)).toBe(6);
  });
});
