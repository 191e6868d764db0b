// SPDX-License-Identifier: Apache-2.0
//
// Goal: of two requests for jobs on one volume at the same moment, one starts a job and the other one sees it.
// Method: both are held until both have read the store and planned; no node gets to take a job on.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { faultyStore, type TxnFault } from '../agents/testing/faulty-store.js';
import { systemClock } from '../env/clock.js';
import type { JobView } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import type { Txn } from '../store/store.js';
import { type JobDeps, moveController, moveReplica, rollBack } from './jobs.js';
import { readState } from './read-state.js';
import { createSnapshot } from './snapshots.js';

const patientMs = 60_000;
const isOfJob = (txn: Txn): boolean => txn.changes.some(({ key }) => key.startsWith(keys.jobs));

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 50 };
  bed.wrapStore = (store) => faultyStore(store, (txn) => (isOfJob(txn) ? 'lost-before' : 'pass'));
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2', 'c3'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1', legs: 1, controllers: ['c1', 'c2'] });
  await bed.redundant('v1');
});

afterEach(() => bed.close());

/** What becomes of two requests of which neither could see the other's job when it planned. */
async function atOnce(...asks: ((deps: JobDeps) => Promise<JobView>)[]): Promise<PromiseSettledResult<JobView>[]> {
  let waiting = 0;
  let open = (): void => {};
  const all = new Promise<void>((resolve) => {
    open = resolve;
  });
  const store = faultyStore(bed.connect(), async (txn): Promise<TxnFault> => {
    if (isOfJob(txn) && ++waiting === asks.length) open();
    await all;
    return 'pass';
  });
  return Promise.allSettled(asks.map((ask) => ask({ ...bed.api, store })));
}

/** A disk that holds some of the volume, and one that could. */
async function disks(): Promise<{ from: string; to: string }> {
  const { state } = await readState(bed.server.connect());
  const [volume] = state.all('volumes');
  const used = volume?.legs[0]?.replicas.map(({ disk }) => disk) ?? [];
  const free = state.all('disks').find(({ id }) => !used.includes(id));
  return { from: used[1] ?? '', to: free?.id ?? '' };
}

const jobCount = (): number => bed.server.list(keys.jobs).length;
const busy = { status: 'rejected', reason: expect.objectContaining({ code: 'BUSY' }) };
const started = { status: 'fulfilled' };

function expectOneOf(results: PromiseSettledResult<JobView>[]): void {
  expect(results).toEqual(expect.arrayContaining([expect.objectContaining(started), expect.objectContaining(busy)]));
  expect(jobCount()).toBe(1);
}

describe('two requests for jobs on one volume at once', { timeout: 2 * patientMs }, () => {
  it('start one job when they are the same', async () => {
    const { from, to } = await disks();
    const move = (deps: JobDeps): Promise<JobView> => moveReplica(deps, 'v1', { leg: 0, from, to });
    const results = await atOnce(move, move);
    const ids = results.map((result) => (result.status === 'fulfilled' ? result.value.id : String(result.reason)));
    expect(ids[0]).toBe(ids[1]);
    expect(jobCount()).toBe(1);
  });

  it('start one job when both would move replicas, and the other one is told of it', async () => {
    const { from, to } = await disks();
    expectOneOf(
      await atOnce(
        (deps) => moveReplica(deps, 'v1', { leg: 0, from, to }),
        (deps) => moveReplica(deps, 'v1', { from, to }),
      ),
    );
  });

  it('start one job when they hand the volume over to different nodes', async () => {
    expectOneOf(
      await atOnce(
        (deps) => moveController(deps, 'v1', 'c2'),
        (deps) => moveController(deps, 'v1', 'c3'),
      ),
    );
  });

  it('start one job when one moves replicas and the other one goes back to a snapshot', async () => {
    await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's1' } });
    for (const endMs = systemClock.now() + patientMs; ; await systemClock.sleep(5)) {
      const { state } = await readState(bed.server.connect());
      if (state.all('snapshots')[0]?.phase === 'ready') break;
      if (systemClock.now() > endMs) throw new Error('the snapshot is not made');
    }
    const { from, to } = await disks();
    expectOneOf(
      await atOnce(
        (deps) => moveReplica(deps, 'v1', { leg: 0, from, to }),
        (deps) => rollBack(deps, { volume: 'v1', snapshot: 's1' }),
      ),
    );
  });
});
