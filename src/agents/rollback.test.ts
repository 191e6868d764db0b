// SPDX-License-Identifier: Apache-2.0
// Going back to a snapshot in place: the volume holds what the snapshot does or what it held, never anything between,
// whoever dies on the way.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cancelJob, rollBack } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot, requireSnapshot } from '../api/snapshots.js';
import { attachVolume, detachVolume, requireVolume, resizeVolume } from '../api/volumes.js';
import { systemClock } from '../env/clock.js';
import type { JobView } from '../model/jobs.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore } from './testing/faulty-store.js';
import { eventually, patientMs } from './testing/waiting.js';

const host = 'nqn.2026-01.io.basalt:host:test';

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 50 };
});

afterEach(() => bed.close());

const active = async (volume = 'v1'): Promise<string> => (await bed.view(volume)).controller ?? '';

/** Whoever serves it may have died a moment ago. */
async function holds(volume: string, block: number, fill: number): Promise<void> {
  let found = -1;
  await eventually(`${volume} is read`, async () => {
    const node = await active(volume);
    try {
      found = await bed.read(node, volume, block);
      return true;
    } catch {
      return false;
    }
  });
  expect(found).toBe(fill);
}

async function snapshot(name: string): Promise<void> {
  await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name } });
  await eventually(`${name} is ready`, async () => {
    const { state } = await readState(bed.server.connect());
    return requireSnapshot(state, requireVolume(state, 'v1').value, name).value.phase === 'ready';
  });
}

/** Block 3 holds 1 in s1, 2 in s2, and 9 now. */
async function begin(): Promise<void> {
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1' });
  await bed.redundant('v1');
  for (const round of [1, 2]) {
    await bed.write(await active(), 'v1', 3, round);
    await snapshot(`s${round}`);
  }
  await bed.write(await active(), 'v1', 3, 9);
}

const back = (name = 's1'): Promise<JobView> => rollBack(bed.api, { volume: 'v1', snapshot: name });
const suspended = async (): Promise<boolean> => {
  const { state } = await readState(bed.server.connect());
  return requireVolume(state, 'v1').value.suspended !== undefined;
};

async function settled(): Promise<void> {
  await bed.until('v1', 'redundant, with two replicas a leg', (view) => {
    return view.health === 'redundant' && view.legs.every((leg) => leg.length === 2);
  });
  await eventually('its old replicas are gone', () =>
    Promise.resolve(bed.server.list('/basalt/v1/tombstones/').length === 0),
  );
  const { state } = await readState(bed.server.connect());
  const replicas = state.all('volumes').flatMap((volume) => volume.legs.flatMap((leg) => leg.replicas));
  for (const node of ['d1', 'd2']) {
    const lvols = await bed.lvols(node);
    const strays = lvols.filter(({ name }) => !name.includes('.') && !replicas.some(({ replica }) => replica === name));
    expect(strays).toEqual([]);
  }
}

describe('a volume that goes back to a snapshot', () => {
  it('holds what that does, in place, and its other snapshots stay what they are', async () => {
    await begin();
    const job = await bed.ended(await back());
    expect(job).toMatchObject({ state: 'done', progress: { done: 2, total: 2 } });
    await holds('v1', 3, 1);
    await settled();
    expect(await suspended()).toBe(false);
    await bed.write(await active(), 'v1', 3, 7);
    await cloneSnapshot(bed.api, { volume: 'v1', snapshot: 's2', request: { name: 'c' } });
    await holds('c', 3, 2);
    await bed.ended(await back('s2'));
    await holds('v1', 3, 2);
    await settled();
    for (const name of ['s1', 's2']) await deleteSnapshot(bed.api, { volume: 'v1', snapshot: name });
    await holds('v1', 3, 2);
  }, 120_000);

  it('is refused with what stands in the way, and nothing has changed then', async () => {
    await begin();
    await attachVolume(bed.api, 'v1', { host });
    await expect(back()).rejects.toMatchObject({ code: 'BUSY', message: expect.stringContaining('detach it first') });
    await detachVolume(bed.api, 'v1', { host });
    await expect(back('s3')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await resizeVolume(bed.api, 'v1', { sizeBytes: 8 * 2 ** 20 });
    await bed.until('v1', 'larger', (view) => view.sizeBytes === 8 * 2 ** 20, patientMs);
    await expect(back()).rejects.toMatchObject({ code: 'BUSY', message: expect.stringContaining('make a clone') });
    await holds('v1', 3, 9);
    expect(bed.server.list('/basalt/v1/jobs/')).toEqual([]);
  }, 120_000);

  it('stays what it is when somebody attaches it in between, or cancels', async () => {
    let fault: () => Promise<void> = async () => {};
    bed.wrapStore = (store) =>
      faultyStore(store, async (txn) => {
        // The next step of the job after it was suspended.
        const about = txn.changes.some((change) => change.kind === 'put' && change.key.includes('/jobs/'));
        if (about && (await suspended())) await fault();
        return 'pass' as const;
      });
    await begin();
    let attached = false;
    fault = async () => {
      if (attached) return;
      attached = true;
      await attachVolume(bed.api, 'v1', { host });
    };
    const job = await bed.ended(await back());
    expect(job).toMatchObject({ state: 'failed', error: { message: expect.stringContaining('detach it first') } });
    expect(await suspended()).toBe(false);
    await holds('v1', 3, 9);
    await detachVolume(bed.api, 'v1', { host });
    let cancelled = false;
    const asked = await back();
    fault = async () => {
      if (cancelled) return;
      cancelled = true;
      await cancelJob(bed.api, asked.id);
    };
    const second = await bed.ended(asked);
    expect(await suspended()).toBe(false);
    await holds('v1', 3, second.state === 'cancelled' ? 9 : 1);
  }, 120_000);

  /** Whoever runs the job dies right before or after each of its transactions; the controller as soon as it is asked. */
  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'is one or the other when the runner dies at step %i',
    async (step) => {
      let steps = 0;
      let dead = '';
      const reached = (): boolean => dead === '' && ++steps === step;
      const die = (node: string): Promise<never> => {
        dead = node;
        void bed.kill(node);
        return new Promise(() => {});
      };
      bed.wrapStore = (store, node) =>
        faultyStore(store, async (txn) => {
          const about = txn.changes.some((change) => change.kind === 'put' && change.key.includes('/jobs/'));
          if (!about || dead !== '') return 'pass' as const;
          if (reached()) return die(node);
          if (!reached()) return 'pass' as const;
          await store.txn(txn);
          return die(node);
        });
      await begin();
      const job = await bed.ended(await back());
      expect(job.state).toBe('done');
      await holds('v1', 3, 1);
      expect(await suspended()).toBe(false);
      if (dead.startsWith('d')) await bed.startDiskNode(dead);
      else if (dead !== '') await bed.startController(dead);
      await settled();
      await holds('v1', 3, 1);
    },
    120_000,
  );

  it('ends though its controller dies when it is asked to let go', async () => {
    await begin();
    const at = await active();
    const { engine } = bed.node(at);
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: (...args: Parameters<typeof rpc>) => {
        if (args[0] !== 'basalt_slot_quiesce') return rpc(...args);
        void bed.kill(at);
        return new Promise(() => {});
      },
    });
    const job = await bed.ended(await back());
    expect(job.state).toBe('done');
    await holds('v1', 3, 1);
    await settled();
  }, 120_000);
});
