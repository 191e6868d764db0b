// SPDX-License-Identifier: Apache-2.0
//
// Goal: what operators do to a cluster of processes is not felt by its hosts but as a pause: hand-overs by name, rolling
// restarts, drains of disks and nodes.
// Method: a verifying load over two paths meanwhile; afterwards every block is checked. Pauses are printed, not asserted.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { JobView } from '../../src/model/jobs.js';
import { LoadedHost } from './loaded-host.js';
import { RunningCluster, volumeBytes, volumeName } from './running-cluster.js';
import { BlockOracle } from './verifying-load.js';

describe('an operator of a cluster of processes', { timeout: 180_000 }, () => {
  let running: RunningCluster;
  let loaded: LoadedHost;
  const oracle = new BlockOracle(volumeBytes / 4096 / 8);

  beforeAll(async () => {
    running = await RunningCluster.start();
  }, 120_000);
  afterAll(() => running?.stop(), 60_000);

  beforeEach(async () => {
    loaded = await LoadedHost.start(running, oracle);
  }, 90_000);
  afterEach(() => loaded?.close(), 30_000);

  const ended = (job: JobView): Promise<JobView> => running.cluster.jobEnded(job.id, 120_000);

  function tell(what: string, pausesMs: readonly number[]): void {
    const sorted = [...pausesMs].sort((a, b) => a - b).map((pauseMs) => Math.round(pauseMs));
    process.stderr.write(`${what}: longest pause of each, ms: ${sorted.join(' ')}\n`);
  }

  it('hands a volume over to and fro under load, without an error', async () => {
    const pausesMs: number[] = [];
    for (let round = 0; round < 8; round++) {
      const from = await running.activeController();
      const to = from === 'controller-1' ? 'controller-2' : 'controller-1';
      await running.settled();
      await loaded.progress(200);
      loaded.load.resetGap();
      const job = await ended(await running.cluster.api.moveController(volumeName, to));
      expect(job).toMatchObject({ state: 'done', error: null });
      expect(await running.activeController()).toBe(to);
      await loaded.progress(200);
      pausesMs.push(loaded.load.longestGapMs);
    }
    tell('planned hand-over', pausesMs);
    expect((await loaded.finish()).violations.slice(0, 10)).toEqual([]);
  });

  it('restarts every daemon, one after the other, without an error', async () => {
    const pausesMs: number[] = [];
    for (const { name } of running.cluster.daemons) {
      loaded.load.resetGap();
      expect(await running.cluster.daemon(name).terminate(), name).toBe(0);
      await running.cluster.daemon(name).start();
      await running.settled();
      await loaded.progress(200);
      pausesMs.push(loaded.load.longestGapMs);
    }
    tell('rolling restart', pausesMs);
    expect((await loaded.finish()).violations.slice(0, 10)).toEqual([]);
  });

  it('drains a disk, takes it out, and takes it back', async () => {
    const { api } = running.cluster;
    const disk = (await api.disks()).find((each) => each.node === 'disk-2');
    if (disk === undefined) throw new Error('disk-2 has no disk');
    const plan = await api.drainPlan('disk', disk.id);
    expect(plan.replicas).toBeGreaterThan(0);
    loaded.load.resetGap();
    const job = await ended(await api.drain('disk', disk.id));
    expect(job).toMatchObject({ state: 'done', progress: { done: plan.replicas } });
    tell('drain of a disk', [loaded.load.longestGapMs]);
    const { legs } = await running.settled();
    expect(legs.flat().map((entry) => entry.node)).not.toContain('disk-2');
    await api.removeDisk(disk.id);
    await running.cluster.daemon('disk-2').terminate();
    await running.cluster.daemon('disk-2').start();
    expect((await api.disks()).map((each) => each.node).sort()).toEqual(['disk-1', 'disk-3']);
    await api.uncordon('disk', disk.id);
    await running.cluster.waitForVolume(volumeName, 'on disk-2 again', 60_000, (volume) =>
      volume.legs.flat().some((entry) => entry.node === 'disk-2' && entry.state === 'in_sync'),
    );
    await loaded.progress(500);
    expect((await loaded.finish()).violations.slice(0, 10)).toEqual([]);
  });

  it('moves a replica to a disk by name, and back', async () => {
    const { api } = running.cluster;
    const disks = await api.disks();
    const [old] = (await running.settled()).legs[0] ?? [];
    const present = (await running.volume()).legs[0]?.map((entry) => entry.node) ?? [];
    const spare = disks.find((disk) => !present.includes(disk.node));
    if (old === undefined || spare === undefined) throw new Error('leg 0 is on every disk');
    const pausesMs: number[] = [];
    for (const [from, to] of [
      [old.disk, spare.id],
      [spare.id, old.disk],
    ] as const) {
      loaded.load.resetGap();
      const job = await ended(await api.moveReplica(volumeName, { leg: 0, from, to }));
      expect(job).toMatchObject({ state: 'done', error: null });
      await loaded.progress(200);
      pausesMs.push(loaded.load.longestGapMs);
      const { legs } = await running.settled();
      expect(legs[0]?.map((entry) => entry.disk)).toContain(to);
      expect(legs[0]?.map((entry) => entry.disk)).not.toContain(from);
    }
    tell('move of a replica', pausesMs);
    expect((await loaded.finish()).violations.slice(0, 10)).toEqual([]);
  });

  it('drains a controller node, whose volume goes on without it', async () => {
    const { api } = running.cluster;
    const active = await running.activeController();
    const other = active === 'controller-1' ? 'controller-2' : 'controller-1';
    loaded.load.resetGap();
    expect(await ended(await api.drain('node', active))).toMatchObject({ state: 'done' });
    await loaded.progress(500);
    tell('drain of the active controller', [loaded.load.longestGapMs]);
    expect(await running.volume()).toMatchObject({ controller: other, controllers: [other] });
    expect((await loaded.finish()).violations.slice(0, 10)).toEqual([]);
    await api.uncordon('node', active);
    // Back among the controllers, for whoever comes after.
    await ended(await api.moveController(volumeName, active));
  });
});
