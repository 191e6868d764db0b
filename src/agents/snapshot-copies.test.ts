// SPDX-License-Identifier: Apache-2.0
// Copies of snapshots are where the replicas of their volume are: made anew after a disk is lost, drained or was away,
// whoever dies while they are made; and what is not needed any more goes.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { drain, removeDisk } from '../api/cordons.js';
import { showJob } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import { snapshotView } from '../api/snapshot-views.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot, requireSnapshot } from '../api/snapshots.js';
import { requireVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { SnapshotView, VolumeView } from '../model/api.js';
import { nqns } from '../model/keys.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { isReady } from '../reconcile/snapshot-copies.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore } from './testing/faulty-store.js';
import { eventually, patientMs } from './testing/waiting.js';

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
});

/** Two disk nodes; one that is away for longer than `graceMs` is given up. */
async function start(graceMs = 300): Promise<void> {
  bed.placement = { graceMs, settleMs: 50 };
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
}

afterEach(() => bed.close());

const active = async (volume = 'v1'): Promise<string> => (await bed.view(volume)).controller ?? '';
const nodesOf = (view: VolumeView): string[] => [...new Set(view.legs.flat().map((entry) => entry.node))].sort();

async function stored(name: string): Promise<SnapshotObject> {
  const { state } = await readState(bed.server.connect());
  return requireSnapshot(state, requireVolume(state, 'v1').value, name).value;
}

async function shown(name: string): Promise<SnapshotView> {
  const { state } = await readState(bed.server.connect());
  const { value: volume } = requireVolume(state, 'v1');
  return snapshotView(state, volume, requireSnapshot(state, volume, name).value);
}

async function snapshot(name: string): Promise<void> {
  await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name } });
  await eventually(`${name} is ready`, async () => (await shown(name)).state === 'ready');
}

/** The copies of every leg are on exactly these nodes, up, and nothing is being made. */
function copiesOn(name: string, ...nodes: string[]): Promise<void> {
  return eventually(`the copies of ${name} are on ${nodes.join()}`, async () => {
    const { legs } = await shown(name);
    const isThere = legs.every((leg) => {
      const up = leg.filter((copy) => copy.state === 'up').map((copy) => copy.node);
      return up.length === leg.length && up.sort().join() === nodes.join();
    });
    return isThere && (await stored(name)).making === undefined;
  });
}

let clones = 0;

async function reads(name: string, block: number, fill: number): Promise<void> {
  const volume = `${name}-${fill}-${++clones}`;
  await cloneSnapshot(bed.api, { volume: 'v1', snapshot: name, request: { name: volume } });
  await bed.served(volume);
  expect(await bed.read(await active(volume), volume, block)).toBe(fill);
}

/** Nothing on the disks of these nodes but replicas, and copies that the store names. */
function clean(...nodes: string[]): Promise<void> {
  return eventually('nothing stays on the disks', async () => {
    const { state } = await readState(bed.server.connect());
    const replicas = state.all('volumes').flatMap((volume) => volume.legs.flatMap((leg) => leg.replicas));
    const copies = state
      .all('snapshots')
      .flatMap((each) => (isReady(each) ? each.cut.copies.map(({ replica }) => [each, replica] as const) : []))
      .map(([each, replica]) => `${each.id}.${each.cut?.attempt}.${replica.replaceAll('-', '').slice(0, 16)}`);
    const known = new Set([...replicas.map((entry) => entry.replica), ...copies]);
    const lvols = await Promise.all(nodes.map((node) => bed.lvols(node)));
    return lvols.flat().every((lvol) => known.has(lvol.name));
  });
}

/** A volume with two snapshots: blocks 3 and 4 differ between them and now. */
async function begin(): Promise<void> {
  await start();
  await bed.create({ name: 'v1' });
  await bed.redundant('v1');
  for (let round = 1; round <= 2; round++) {
    for (const block of [0, 3, 30 * round]) await bed.write(await active(), 'v1', block, round);
    await snapshot(`s${round}`);
  }
  await bed.write(await active(), 'v1', 3, 9);
}

const rebuiltOn = (...nodes: string[]): Promise<VolumeView> =>
  bed.until(
    'v1',
    `redundant on ${nodes.join()}`,
    (view) => view.health === 'redundant' && nodesOf(view).join() === nodes.join(),
    patientMs,
  );

describe('copies of snapshots', () => {
  it('are made anew when a disk is lost for good: then the other old disk can be lost as well', async () => {
    await begin();
    await bed.startDiskNode('d3');
    await bed.kill('d2');
    await rebuiltOn('d1', 'd3');
    for (const name of ['s1', 's2']) await copiesOn(name, 'd1', 'd3');
    const lvols = await bed.lvols('d3');
    const made = lvols.filter((lvol) => lvol.is_read_only);
    expect(made.length).toBe(4);
    // They share what has not changed with what the leg holds now.
    expect(made.every((lvol) => lvol.is_clone)).toBe(true);
    expect(Math.max(...made.map((lvol) => lvol.num_allocated_clusters))).toBeLessThanOrEqual(2);
    await bed.kill('d1');
    await bed.served('v1');
    await reads('s1', 3, 1);
    await reads('s2', 3, 2);
    await reads('s1', 60, 0);
    await reads('s2', 30, 1);
    expect(await bed.read(await active(), 'v1', 3)).toBe(9);
  }, 180_000);

  it('are made on a disk that was away when the snapshot was cut', async () => {
    await start(60_000);
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.kill('d2');
    await bed.write(await active(), 'v1', 3, 1);
    await snapshot('s1');
    expect((await shown('s1')).copies).toBe(1);
    await bed.write(await active(), 'v1', 3, 2);
    await bed.startDiskNode('d2');
    await copiesOn('s1', 'd1', 'd2');
    await bed.kill('d1');
    await bed.write(await active(), 'v1', 3, 3);
    await reads('s1', 3, 1);
  }, 120_000);

  it('leave a disk that is drained, which can be removed then', async () => {
    await begin();
    await bed.startDiskNode('d3');
    const { state } = await readState(bed.server.connect());
    const disk = state.all('disks').find((each) => each.node === 'd2')?.id ?? '';
    await expect(removeDisk(bed.api, disk)).rejects.toMatchObject({ code: 'BUSY' });
    const job = await drain(bed.api, { kind: 'disk', name: disk });
    await eventually('the drain ends', async () => (await showJob(bed.api, job.id)).endedAtMs !== null);
    expect(await showJob(bed.api, job.id)).toMatchObject({ state: 'done' });
    expect(await bed.lvols('d2')).toEqual([]);
    await removeDisk(bed.api, disk);
    for (const name of ['s1', 's2']) await copiesOn(name, 'd1', 'd3');
    await bed.kill('d1');
    await bed.write(await active(), 'v1', 5, 5);
    await reads('s1', 3, 1);
    await reads('s2', 3, 2);
  }, 180_000);

  it('are read by the UUID of their lvol: what is made again under a name is not taken for what was there', async () => {
    await begin();
    const d3 = await bed.startDiskNode('d3');
    const rpc = d3.engine.rpc.bind(d3.engine);
    const seen: [shown: string | undefined, own: string | undefined][] = [];
    Object.assign(d3.engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        const answer = await rpc(...args);
        if (args[0] !== 'bdev_nvme_attach_controller' || !JSON.stringify(args[1]).includes(nqns.snapshotCopy('')))
          return answer;
        const source = bed.node('d1').engine;
        const lvols = await source.rpc('bdev_lvol_get_lvols', {});
        for (const { nqn, namespaces } of await source.rpc('nvmf_get_subsystems', {})) {
          if (!nqn.startsWith(nqns.snapshotCopy(''))) continue;
          const own = lvols.find((lvol) => nqns.snapshotCopy(lvol.name) === nqn)?.uuid;
          seen.push([namespaces[0]?.uuid, own]);
        }
        return answer;
      },
    });
    await bed.kill('d2');
    for (const name of ['s1', 's2']) await copiesOn(name, 'd1', 'd3');
    expect(seen.length).toBeGreaterThan(0);
    for (const [shown, own] of seen) expect(shown).toBe(own);
    expect(new Set(seen.map(([, own]) => own)).has(undefined)).toBe(false);
  }, 120_000);

  it('that are deleted while they are made leave nothing behind', async () => {
    await begin();
    let copying = 0;
    let deleted = false;
    const d3 = await bed.startDiskNode('d3');
    const rpc = d3.engine.rpc.bind(d3.engine);
    Object.assign(d3.engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        const answer = await rpc(...args);
        if (args[0] !== 'basalt_bdev_copy') return answer;
        copying++;
        // One of them is half made when both are deleted.
        while (!deleted) await systemClock.sleep(5);
        return answer;
      },
    });
    await bed.kill('d2');
    await eventually('a copy is being made', () => Promise.resolve(copying > 0));
    for (const name of ['s1', 's2']) await deleteSnapshot(bed.api, { volume: 'v1', snapshot: name });
    deleted = true;
    await bed.startDiskNode('d2');
    await eventually('the snapshots are gone', () =>
      Promise.resolve(bed.server.list('/basalt/v1/snapshots/').length === 0),
    );
    await bed.redundant('v1');
    await clean('d1', 'd2', 'd3');
  }, 120_000);

  /** Steps of the first copy: the claim, clone, resize or attach, copy, close for writing, record. */
  it.each([1, 2, 3, 4, 5, 6, 7])(
    'are there once, whole, when their disk node dies at step %i',
    async (step) => {
      let steps = 0;
      let killed = false;
      const methods = ['bdev_lvol_clone', 'bdev_nvme_attach_controller', 'basalt_bdev_copy', 'bdev_lvol_set_read_only'];
      const reached = (): boolean => !killed && ++steps === step;
      const die = (): Promise<never> => {
        killed = true;
        void bed.kill('d3');
        return new Promise(() => {});
      };
      bed.wrapStore = (store, node) =>
        faultyStore(store, async (txn) => {
          const about = txn.changes.some((change) => change.kind === 'put' && change.key.includes('/snapshots/'));
          if (!about || node !== 'd3' || killed) return 'pass' as const;
          if (reached()) return die();
          if (!reached()) return 'pass' as const;
          await store.txn(txn);
          return die();
        });
      await begin();
      const d3 = await bed.startDiskNode('d3');
      const rpc = d3.engine.rpc.bind(d3.engine);
      Object.assign(d3.engine, {
        rpc: async (...args: Parameters<typeof rpc>) => {
          const [method, params] = args;
          const about = methods.includes(method) && JSON.stringify(params).includes('.');
          return about && reached() ? die() : rpc(...args);
        },
      });
      await bed.kill('d2');
      await eventually(`d3 dies at step ${step}`, () => Promise.resolve(killed));
      await bed.startDiskNode('d3');
      await rebuiltOn('d1', 'd3');
      for (const name of ['s1', 's2']) await copiesOn(name, 'd1', 'd3');
      await clean('d1', 'd3');
      await bed.kill('d1');
      await bed.write(await active(), 'v1', 5, 5);
      await reads('s1', 3, 1);
      await reads('s2', 3, 2);
    },
    180_000,
  );

  it('are made of another one when the disk that they were made of is lost', async () => {
    await start();
    await bed.startDiskNode('d3');
    await bed.create({ name: 'v1', copies: 3 });
    await bed.redundant('v1');
    await bed.write(await active(), 'v1', 3, 1);
    await snapshot('s1');
    await bed.write(await active(), 'v1', 3, 2);
    const d4 = await bed.startDiskNode('d4');
    let source = '';
    const rpc = d4.engine.rpc.bind(d4.engine);
    Object.assign(d4.engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        if (args[0] === 'basalt_bdev_copy' && source === '') {
          const from = (await stored('s1')).making?.[0]?.from;
          source = (await stored('s1')).cut?.copies.find((copy) => copy.replica === from)?.node ?? '';
          void bed.kill(source);
        }
        return rpc(...args);
      },
    });
    await bed.kill('d3');
    await eventually('a copy is being made', () => Promise.resolve(source !== ''));
    const last = source === 'd1' ? 'd2' : 'd1';
    await eventually('its copies are on what is left', async () => {
      const { legs } = await shown('s1');
      return legs.every((leg) => leg.filter((copy) => copy.state === 'up').length === 2);
    });
    await bed.kill(last);
    await bed.write(await active(), 'v1', 5, 5);
    await reads('s1', 3, 1);
  }, 180_000);

  /** Three disk nodes have copies; a fourth one makes its own, of what `spoil` lets be read, while d3 is away for good. */
  async function makeOnFourth(spoil: (call: SourceCall) => boolean): Promise<{ refused: string[]; read: string[] }> {
    await start();
    await bed.startDiskNode('d3');
    await bed.create({ name: 'v1', copies: 3, sizeBytes: 64 * 2 ** 20 });
    await bed.redundant('v1');
    for (const block of [3, 9_000]) await bed.write(await active(), 'v1', block, 1);
    await snapshot('s1');
    await bed.write(await active(), 'v1', 3, 2);
    const d4 = await bed.startDiskNode('d4');
    const rpc = d4.engine.rpc.bind(d4.engine);
    const nodes = new Map<string, string>();
    const refused: string[] = [];
    const read: string[] = [];
    Object.assign(d4.engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        const [method, params] = args;
        const { name, subnqn, source, offset_blocks: block } = params as SourceParams;
        let call: SourceCall | null = null;
        if (method === 'bdev_nvme_attach_controller' && subnqn?.startsWith(nqns.snapshotCopy('')) === true) {
          const { cut } = await stored('s1');
          const copy = cut?.copies.find((each) => subnqn.endsWith(each.replica.replaceAll('-', '').slice(0, 16)));
          nodes.set(`${name}n1`, copy?.node ?? '');
          call = { node: copy?.node ?? '', block: null };
        }
        if (method === 'basalt_bdev_copy') call = { node: nodes.get(source ?? '') ?? '', block: block ?? null };
        const isSpoilt = call !== null && spoil(call);
        if (call === null || !isSpoilt) {
          if (call !== null && call.block !== null) read.push(call.node);
          return rpc(...args);
        }
        refused.push(call.node);
        throw new Error('it cannot be read');
      },
    });
    await bed.kill('d3');
    await copiesOn('s1', 'd1', 'd2', 'd4');
    await bed.kill('d1');
    await bed.kill('d2');
    await reads('s1', 3, 1);
    await reads('s1', 9_000, 1);
    return { refused, read };
  }

  it('are made of another one when the disk of a source is dead, and its node up', async () => {
    // The first one that is asked.
    let dead = '';
    const { refused, read } = await makeOnFourth(({ node }) => {
      if (dead === '') dead = node;
      return node === dead;
    });
    expect(['d1', 'd2']).toContain(dead);
    expect(new Set(refused)).toEqual(new Set([dead]));
    expect(read.length).toBeGreaterThan(0);
    expect(read).not.toContain(dead);
  }, 180_000);

  it('are made of all others together where none of them can be read as a whole', async () => {
    const stepBlocks = 2_048;
    const isOdd = (block: number): boolean => (block / stepBlocks) % 2 === 1;
    const { refused } = await makeOnFourth(({ node, block }) => block !== null && isOdd(block) === (node === 'd1'));
    expect(new Set(refused)).toEqual(new Set(['d1', 'd2']));
  }, 180_000);
});

/** A call that reads a copy on that node; null: it connects to it. */
interface SourceCall {
  readonly node: string;
  readonly block: number | null;
}

interface SourceParams {
  readonly name?: string;
  readonly subnqn?: string;
  readonly source?: string;
  readonly offset_blocks?: number;
}

describe('a clone', () => {
  it('that lacks a replica is served from the others, and gets it later', async () => {
    await begin();
    const d2 = bed.node('d2');
    const rpc = d2.engine.rpc.bind(d2.engine);
    let refused = 0;
    Object.assign(d2.engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        if (args[0] !== 'bdev_lvol_clone') return rpc(...args);
        refused++;
        throw new Error('not here');
      },
    });
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's1', request: { name: 'c' } });
    await expect(deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' })).rejects.toMatchObject({ code: 'BUSY' });
    await bed.until('c', 'served', (view) => view.health !== 'unserved', patientMs);
    expect(refused).toBeGreaterThan(0);
    expect(await bed.read(await active('c'), 'c', 3)).toBe(1);
    await bed.write(await active('c'), 'c', 4, 4);
    // The source is not needed any more: what was left out gets everything from the other.
    await deleteSnapshot(bed.api, { volume: 'v1', snapshot: 's1' });
    await eventually('the snapshot is gone', () =>
      Promise.resolve(bed.server.list('/basalt/v1/snapshots/').length === 1),
    );
    await bed.until('c', 'redundant', (view) => view.health === 'redundant', patientMs);
    await bed.kill('d1');
    await bed.write(await active('c'), 'c', 5, 5);
    expect(await bed.read(await active('c'), 'c', 3)).toBe(1);
    expect(await bed.read(await active('c'), 'c', 4)).toBe(4);
  }, 120_000);
});
