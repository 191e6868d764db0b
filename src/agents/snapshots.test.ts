// SPDX-License-Identifier: Apache-2.0
// Snapshots and clones: one instant whatever fails in the middle, nothing left behind, and no copy counted that is none.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rotateClusterKey } from '../api/encryption.js';
import { readState } from '../api/read-state.js';
import { snapshotView } from '../api/snapshot-views.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot, requireSnapshot } from '../api/snapshots.js';
import { deleteVolume, requireVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { SnapshotView } from '../model/api.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 50 };
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
});

afterEach(() => bed.close());

async function controllers(): Promise<void> {
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1' });
  await bed.redundant('v1');
}

const active = async (volume = 'v1'): Promise<string> => (await bed.view(volume)).controller ?? '';

const ask = (name: string, volume = 'v1'): Promise<{ made: boolean; id: string }> =>
  createSnapshot(bed.api, systemClock, { volume, request: { name } });

async function stored(name: string): Promise<SnapshotObject> {
  const { state } = await readState(bed.server.connect());
  return requireSnapshot(state, requireVolume(state, 'v1').value, name).value;
}

async function shown(name: string): Promise<SnapshotView> {
  const { state } = await readState(bed.server.connect());
  const { value: volume } = requireVolume(state, 'v1');
  return snapshotView(state, volume, requireSnapshot(state, volume, name).value);
}

async function ready(name: string): Promise<SnapshotView> {
  let view = await shown(name);
  for (const endMs = systemClock.now() + 30_000; view.state === 'pending'; view = await shown(name)) {
    if (systemClock.now() > endMs) break;
    await systemClock.sleep(5);
  }
  expect(view, view.problem ?? 'no problem').toMatchObject({ state: 'ready' });
  return view;
}

async function clone(snapshot: string, name: string): Promise<void> {
  await cloneSnapshot(bed.api, { volume: 'v1', snapshot, request: { name } });
  await bed.redundant(name);
}

/** Lvols on all disks that are neither replicas of volumes nor copies of snapshots that are ready. */
async function strays(nodes: readonly string[] = ['d1', 'd2']): Promise<string[]> {
  const { state } = await readState(bed.server.connect());
  const replicas = state.all('volumes').flatMap((volume) => volume.legs.flatMap((leg) => leg.replicas));
  const known = new Set(replicas.map((entry) => entry.replica));
  const attempts = state
    .all('snapshots')
    .flatMap(({ id, phase, cut }) => (phase === 'ready' ? [`${id}.${cut?.attempt}.`] : []));
  const lvols = await Promise.all(nodes.map((node) => bed.lvols(node)));
  return lvols
    .flat()
    .map((lvol) => lvol.name)
    .filter((name) => !known.has(name) && !attempts.some((prefix) => name.startsWith(prefix)));
}

const clean = (nodes?: readonly string[]): Promise<void> =>
  expect.poll(() => strays(nodes), { timeout: 30_000 }).toEqual([]) as Promise<void>;

const snapshotCount = (): number => bed.server.list('/basalt/v1/snapshots/').length;

describe('a snapshot', () => {
  it('holds what the volume held, whatever is written, and a clone begins as it and goes its own way', async () => {
    await controllers();
    const at = await active();
    for (let block = 0; block < 64; block++) await bed.write(at, 'v1', block * 16, 1);
    await ask('s1');
    const made = await ready('s1');
    expect(made).toMatchObject({ copies: 2, copiesWanted: 2, sizeBytes: 4 * 2 ** 20, problem: null });
    for (let block = 0; block < 64; block++) await bed.write(at, 'v1', block * 16, 2);
    await clone('s1', 'c');
    const other = await active('c');
    for (let block = 0; block < 64; block++) expect(await bed.read(other, 'c', block * 16)).toBe(1);
    expect(await bed.read(other, 'c', 1)).toBe(0);
    await bed.write(other, 'c', 0, 3);
    expect([await bed.read(at, 'v1', 0), await bed.read(other, 'c', 0)]).toEqual([2, 3]);
    await clone('s1', 'c2');
    expect(await bed.read(await active('c2'), 'c2', 0)).toBe(1);
    expect((await shown('s1')).clones.sort()).toEqual(['c', 'c2']);
    await clean();
  });

  it('is one instant over all legs, under writes', async () => {
    await controllers();
    const at = await active();
    const writes: { block: number; fill: number; invoked: number; acknowledged: number }[] = [];
    let step = 0;
    let writing = true;
    const worker = async (index: number): Promise<void> => {
      // A value of a block is never used again for it.
      for (let round = 1; writing && round < 250; round++) {
        const write = { block: index * 16 + (round % 4) * 256, fill: round, invoked: ++step, acknowledged: Infinity };
        writes.push(write);
        await bed.write(at, 'v1', write.block, write.fill);
        write.acknowledged = ++step;
        await systemClock.sleep(1);
      }
    };
    const load = Promise.all([0, 1, 2, 3].map(worker));
    await expect.poll(() => step).toBeGreaterThan(40);
    await ask('s1');
    await ready('s1');
    writing = false;
    await load;
    await clone('s1', 'c');
    const reader = await active('c');
    const contained = await Promise.all(
      [...new Set(writes.map((write) => write.block))].map(async (block) => {
        const fill = await bed.read(reader, 'c', block);
        return { block, write: writes.find((write) => write.block === block && write.fill === fill) ?? null };
      }),
    );
    expect(contained.filter((entry) => entry.write !== null).length).toBeGreaterThan(3);
    const last = Math.max(...contained.map(({ write }) => write?.invoked ?? 0));
    for (const { block, write } of contained) {
      const missed = writes.filter(
        (each) => each.block === block && each.acknowledged < last && each.invoked > (write?.acknowledged ?? 0),
      );
      expect(missed, `block ${block} holds ${write?.fill}, the cut is after ${last}`).toEqual([]);
    }
  });

  it('can be asked for while many older ones are being deleted from disks that are away', async () => {
    await controllers();
    const { id: volumeId } = await bed.view('v1');
    const store = bed.connect();
    for (let number = 0; number < 64; number++) {
      const id = systemRandom.uuid();
      const away = { lvol: `x${number}`, replica: id, disk: id, node: 'gone', epoch: 1 };
      const old = { format: 1 as const, id, name: `o${number}`, volumeId, createdAtMs: 0, failedCount: 0 };
      const object: SnapshotObject = { ...old, phase: 'deleting', leftovers: [away] };
      await store.put(keys.snapshot(id), codecs.snapshot.encode(object));
    }
    await ask('s1');
    await ready('s1');
  });

  it('is asked for once, however often, and deleted with everything that it took', async () => {
    await controllers();
    const first = await ask('s1');
    await ready('s1');
    expect(await ask('s1')).toEqual({ made: false, id: first.id });
    await expect(deleteVolume(bed.api, 'v1')).rejects.toMatchObject({ code: 'BUSY' });
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await expect(shown('s1')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const second = await ask('s1');
    expect(second.id).not.toBe(first.id);
    await ready('s1');
    await clean();
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await expect.poll(snapshotCount).toBe(0);
    await clean();
    await deleteVolume(bed.api, 'v1');
  });

  it('goes before its clones, which keep what they hold', async () => {
    await controllers();
    await bed.write(await active(), 'v1', 5, 7);
    await ask('s1');
    await ready('s1');
    await clone('s1', 'c');
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await expect.poll(snapshotCount).toBe(0);
    expect(await bed.read(await active('c'), 'c', 5)).toBe(7);
    await deleteVolume(bed.api, 'v1');
    expect(await bed.read(await active('c'), 'c', 5)).toBe(7);
  });

  it('stays while a volume of it is being made', async () => {
    await controllers();
    await ask('s1');
    await ready('s1');
    await bed.kill('d2');
    await bed.write(await active(), 'v1', 0, 1);
    bed.intercept('d1', 'bdev_lvol_clone', () => Promise.reject(new Error('not now')));
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's1', request: { name: 'c' } });
    await expect(deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' })).rejects.toMatchObject({ code: 'BUSY' });
    await expect(
      cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's1', request: { name: 'v1' } }),
    ).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });
});

describe('a snapshot in the middle of which', () => {
  it('the controller dies after the cut is made by the next one, and nothing of the first try stays', async () => {
    await controllers();
    const at = await active();
    await bed.write(at, 'v1', 3, 9);
    let cuts = 0;
    const { engine } = bed.node(at);
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        const answer = await rpc(...args);
        if (args[0] !== 'basalt_slot_snapshot') return answer;
        cuts++;
        // Every member has it; nobody will ever say so.
        return new Promise(() => {});
      },
    });
    await ask('s1');
    await expect.poll(() => cuts).toBe(1);
    expect((await stored('s1')).phase).toBe('cutting');
    expect((await strays()).length).toBe(4);
    void bed.kill(at);
    const made = await ready('s1');
    expect(made.copies).toBe(2);
    expect((await stored('s1')).failedCount).toBe(1);
    await clean();
    await clone('s1', 'c');
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
  });

  /** Kills the controller at the n-th of its steps: transactions about the snapshot, and the cut. */
  it.each([1, 2, 3, 4, 5])('the controller dies at step %i is there once, whole, and nothing else is', async (step) => {
    let steps = 0;
    let victim = '';
    const reached = (node: string): boolean => node === victim && ++steps === step;
    const die = (node: string): Promise<never> => {
      void bed.kill(node);
      return new Promise(() => {});
    };
    bed.wrapStore = (store, node) =>
      faultyStore(store, async (txn) => {
        const about = txn.changes.some((change) => change.kind === 'put' && change.key.includes('/snapshots/'));
        // Before the transaction, or right after it: its answer is heard by nobody.
        if (about && reached(node)) return die(node);
        if (!about || !reached(node)) return 'pass' as const;
        await store.txn(txn);
        return die(node);
      });
    await controllers();
    const at = await active();
    await bed.write(at, 'v1', 3, 9);
    victim = at;
    bed.intercept(at, 'basalt_slot_snapshot', () => (reached(at) ? die(at) : undefined));
    await ask('s1');
    const made = await ready('s1');
    expect(made).toMatchObject({ copies: 2, problem: null });
    if (step < 5 || (await stored('s1')).failedCount > 0)
      await bed.until('v1', 'another controller', (view) => view.controller !== at);
    await clean();
    await clone('s1', 'c');
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
  });

  it('a disk node is lost is made of those that are left, and counts no more copies than there are', async () => {
    await controllers();
    const at = await active();
    await bed.write(at, 'v1', 3, 9);
    let first = true;
    bed.intercept(at, 'basalt_slot_snapshot', async () => {
      if (first) void bed.kill('d2');
      first = false;
    });
    await ask('s1');
    // Whoever writes finds out that the node is gone.
    const writing = bed.write(at, 'v1', 4, 1);
    const made = await ready('s1');
    await writing;
    expect(made).toMatchObject({ copies: 1, copiesWanted: 2 });
    expect(made.legs.flat().map(({ node }) => node)).toEqual(['d1', 'd1']);
    await bed.startDiskNode('d2');
    await bed.redundant('v1');
    // What d2 made of the first try goes as soon as nothing of that epoch can be on its way: with the next one.
    expect((await shown('s1')).copies).toBe(1);
    await clone('s1', 'c');
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
    await bed.kill(at);
    await bed.served('v1', at === 'c1' ? 'c2' : 'c1');
    await clean();
  });

  it.each<TxnFault>(['lost-before', 'lost-after'])('the answer of the store is %s is there once', async (fault) => {
    let faults = 0;
    bed.wrapStore = (store, node) =>
      node.startsWith('c')
        ? faultyStore(store, (txn) => {
            const records = txn.changes.some(
              (change) => change.kind === 'put' && String(change.value).includes('"phase":"ready"'),
            );
            if (!records || faults > 0) return 'pass';
            faults++;
            return fault;
          })
        : store;
    await controllers();
    await bed.write(await active(), 'v1', 3, 9);
    await ask('s1');
    await ready('s1');
    expect(faults).toBe(1);
    expect((await stored('s1')).failedCount).toBe(fault === 'lost-before' ? 1 : 0);
    await clone('s1', 'c');
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
  });

  it('a copy vanishes with its disk is shown with what is left, until it is made anew', async () => {
    await controllers();
    await ask('s1');
    expect((await ready('s1')).copies).toBe(2);
    await bed.kill('d2');
    await expect.poll(async () => (await shown('s1')).copies, { timeout: 30_000 }).toBe(1);
    await bed.startDiskNode('d2');
    await expect.poll(async () => (await shown('s1')).copies, { timeout: 30_000 }).toBe(2);
    const { engine } = bed.node('d2');
    for (const { alias, is_snapshot, epoch } of await engine.rpc('bdev_lvol_get_lvols', {}))
      if (is_snapshot) await engine.rpc('bdev_lvol_delete', { name: alias, epoch });
    void bed.kill('d2');
    await bed.startDiskNode('d2');
    let isFull = true;
    bed.intercept('d2', 'basalt_bdev_copy', () => {
      if (isFull) throw new Error('there is no room');
    });
    await expect.poll(async () => (await stored('s1')).cut?.copies.length, { timeout: 30_000 }).toBe(2);
    expect((await shown('s1')).copies).toBe(1);
    isFull = false;
    await expect.poll(async () => (await shown('s1')).copies, { timeout: 30_000 }).toBe(2);
  });

  it('a replica of another volume cannot be made is deleted all the same', async () => {
    await controllers();
    await ask('s1');
    await ready('s1');
    let refused = 0;
    for (const node of ['d1', 'd2'])
      bed.intercept(node, 'bdev_lvol_create', () => {
        refused++;
        throw new Error('there is no room');
      });
    await bed.create({ name: 'v2' });
    await expect.poll(() => refused).toBeGreaterThan(0);
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await clean();
    await expect.poll(snapshotCount).toBe(0);
  });

  it('a disk node is away leaves nothing there when it is back', async () => {
    await controllers();
    await ask('s1');
    await ready('s1');
    await bed.kill('d2');
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await clean(['d1']);
    expect(snapshotCount()).toBe(1);
    await bed.startDiskNode('d2');
    await clean();
    await expect.poll(snapshotCount).toBe(0);
  });
});

describe('a snapshot of an encrypted volume', () => {
  it('gives a clone whose key is wrapped as it is now, when the cluster key changes at that moment', async () => {
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    await bed.create({ name: 'v1', encrypt: true });
    await bed.redundant('v1');
    await ask('s1');
    await ready('s1');
    let rotated = false;
    const store = faultyStore(bed.connect(), async (): Promise<TxnFault> => {
      if (!rotated) {
        rotated = true;
        await rotateClusterKey(bed.api);
      }
      return 'pass';
    });
    const deps = { ...bed.api, store };
    await cloneSnapshot(deps, { volume: 'v1', snapshot: 's1', request: { name: 'c' } });
    expect(rotated).toBe(true);
    expect((await bed.view('c')).encryptedBy).toBe((await bed.view('v1')).encryptedBy);
  });

  it('gives a clone that is read with the same key, also after the cluster key has changed', async () => {
    await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
    await bed.create({ name: 'v1', encrypt: true });
    await bed.redundant('v1');
    await bed.write(await active(), 'v1', 3, 9);
    await ask('s1');
    await ready('s1');
    await bed.write(await active(), 'v1', 3, 1);
    await clone('s1', 'c');
    expect((await bed.view('c')).encryptedBy).toBe((await bed.view('v1')).encryptedBy);
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
    expect((await rotateClusterKey(bed.api)).rewrapped).toBe(2);
    const before = await active('c');
    void bed.kill(before);
    await bed.served('c', before === 'c1' ? 'c2' : 'c1');
    expect(await bed.read(await active('c'), 'c', 3)).toBe(9);
  });
});
