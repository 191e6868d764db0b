// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, a volume of two data and one parity member keeps every byte through the death of its
// controller, of any of its disk nodes, and of one of each at once; and its snapshots are what it held.
// Method: a verifying load over two paths while daemons are killed; afterwards every block is checked.

import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../scripts/demo/poll.js';
import { systemClock } from '../../src/env/clock.js';
import type { SnapshotView, VolumeView } from '../../src/model/api.js';
import { hostNqn, RunningCluster, TestHost, volumeBytes, volumeName } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

const msMax = 120_000;

describe('a volume with erasure coding', { timeout: 4 * msMax }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: VerifyingLoad;
  const oracle = new BlockOracle(volumeBytes / 4096 / 8);

  beforeAll(async () => {
    const redundancy = { kind: 'erasure' as const, data: 2, parity: 1 };
    running = await RunningCluster.start({ redundancy, settledMsMax: msMax });
    host = await TestHost.connect(await running.settled());
    load = new VerifyingLoad(host.engine, host.bdev, oracle);
    load.start(16);
    await load.progress(500, msMax);
  }, 2 * msMax);
  afterAll(async () => {
    await host?.close();
    await running?.stop();
  }, msMax);

  async function everyBlockIsRight(): Promise<void> {
    const report = await load.stop();
    await load.verifyAll();
    expect(report.violations.slice(0, 10)).toEqual([]);
    load.start(16);
    await load.progress(100, msMax);
  }

  /** A block of each step of a volume, as a host reads it. */
  async function contents(of: TestHost): Promise<string[]> {
    const block = Buffer.from(of.engine.allocate(4096));
    const found: string[] = [];
    for (let at = 0; at < volumeBytes; at += volumeBytes / 1024) {
      await of.bdev.read(at, block);
      found.push(block.toString('base64'));
    }
    return found;
  }

  const snapshotWith = (volume: string, name: string, copies: number): Promise<SnapshotView> =>
    pollUntil(
      `snapshot ${name} with ${copies} copies`,
      msMax,
      () => running.cluster.api.snapshot(volume, name),
      (snapshot) => snapshot.state === 'ready' && snapshot.copies === copies,
    );

  /** Who was attached a moment ago may be refused until the controllers have seen it. */
  async function admitted(volume: VolumeView): Promise<TestHost> {
    for (const endMs = systemClock.now() + msMax; ; await systemClock.sleep(20)) {
      try {
        return await TestHost.connect(volume);
      } catch (error) {
        if (!String(error).includes('Connect Invalid Host') || systemClock.now() > endMs) throw error;
      }
    }
  }

  /** As a host sees it, which is let go before this ends. */
  async function used<T>(volume: string, use: (host: TestHost) => Promise<T>): Promise<T> {
    const { api } = running.cluster;
    await api.attach(volume, { host: hostNqn });
    const isServed = (view: VolumeView): boolean => view.paths.some(({ state }) => state === 'active');
    const served = await running.cluster.waitForVolume(volume, 'served', msMax, isServed);
    const guest = await admitted(served);
    try {
      return await use(guest);
    } finally {
      await guest.close();
      await api.detach(volume, { host: hostNqn });
    }
  }

  it('has snapshots that volumes begin as, without one of its disk nodes too, and go back to', async () => {
    const { api } = running.cluster;
    expect((await running.volume()).erasure).toEqual({ data: 2, parity: 1 });
    await everyBlockIsRight();
    await load.stop();
    const then = await contents(host);
    await api.createSnapshot(volumeName, 's');
    expect(await snapshotWith(volumeName, 's', 3)).toMatchObject({ copiesWanted: 3 });
    load.start(16);
    await load.progress(1000, msMax);
    await api.cloneSnapshot(volumeName, 's', { name: 'whole' });
    expect(await used('whole', contents)).toEqual(then);
    await running.cluster.daemon('disk-3').kill();
    await load.progress(500, msMax);
    await snapshotWith(volumeName, 's', 2);
    await api.cloneSnapshot(volumeName, 's', { name: 'fewer' });
    expect(await used('fewer', contents)).toEqual(then);
    await running.cluster.daemon('disk-3').start();
    await running.settled();
    await api.createSnapshot('whole', 'inner');
    await snapshotWith('whole', 'inner', 3);
    await used('whole', async (guest) => {
      const block = Buffer.from(guest.engine.allocate(4096)).fill(0x7e);
      for (let at = 0; at < volumeBytes; at += volumeBytes / 64) await guest.bdev.write(at, block);
      expect(await contents(guest)).not.toEqual(then);
    });
    const { id } = await api.rollBack('whole', 'inner');
    const job = await running.cluster.jobEnded(id, msMax);
    expect(job, JSON.stringify(job)).toMatchObject({ state: 'done' });
    expect(await used('whole', contents)).toEqual(then);
    await api.createSnapshotGroup('both', [volumeName, 'whole']);
    await snapshotWith('whole', 'both', 3);
    await api.cloneSnapshot('whole', 'both', { name: 'of-a-group' });
    expect(await used('of-a-group', contents)).toEqual(then);
    await api.deleteSnapshot(volumeName, 's');
    expect(await used('fewer', contents)).toEqual(then);
    await everyBlockIsRight();
  });

  it('grows while a host writes, and the new blocks are zeroes', async () => {
    const sizeBytes = 2 * volumeBytes;
    await running.cluster.api.resizeVolume(volumeName, { sizeBytes });
    await running.cluster.waitForVolume(volumeName, 'its new size', msMax, (volume) => volume.sizeBytes === sizeBytes);
    for (const endMs = systemClock.now() + msMax; host.bdev.info.sizeBytes !== sizeBytes; await systemClock.sleep(10))
      if (systemClock.now() > endMs) throw new Error('the host was not told of the new size');
    const block = Buffer.from(host.engine.allocate(4096));
    for (const at of [volumeBytes, volumeBytes + 61 * 4096, sizeBytes - 4096]) {
      await host.bdev.read(at, block.fill(1));
      expect(block.every((byte) => byte === 0)).toBe(true);
      await host.bdev.write(at, block.fill(0x5a));
      await host.bdev.read(at, block.fill(1));
      expect(block.every((byte) => byte === 0x5a)).toBe(true);
    }
    await everyBlockIsRight();
  });

  it('goes on through the standby when the active controller is killed, and without a disk node then', async () => {
    const active = await running.activeController();
    await running.cluster.daemon(active).kill();
    await load.progress(1000, msMax);
    await running.cluster.daemon('disk-1').kill();
    await load.progress(1000, msMax);
    const { controller, health } = await running.volume();
    expect(controller).not.toBe(active);
    expect(health).toBe('degraded');
    await everyBlockIsRight();
    await running.cluster.daemon(active).start();
    await running.cluster.daemon('disk-1').start();
    await running.settled();
  });

  it('reads what was rebuilt when another disk node dies, together with the controller', async () => {
    await load.progress(500, msMax);
    const active = await running.activeController();
    await Promise.all([running.cluster.daemon('disk-2').kill(), running.cluster.daemon(active).kill()]);
    await load.progress(1000, msMax);
    await everyBlockIsRight();
    await running.cluster.daemon(active).start();
    await running.cluster.daemon('disk-2').start();
    await running.settled();
  });

  it('serves the same bytes after everything was killed and started in any order', async () => {
    const report = await load.stop();
    expect(report.violations.slice(0, 10)).toEqual([]);
    await host.close();
    await running.cluster.killAll();
    const order = ['controller-2', 'disk-3', 'api', 'disk-1', 'controller-1', 'disk-2', 'store'];
    await Promise.all(order.map((name) => running.cluster.daemon(name).start()));
    host = await TestHost.connect(await running.settled());
    expect(await load.verifyAll(host)).toEqual([]);
  });

  it('is found on disks that were carried to other nodes, with its snapshots, and goes back to one there', async () => {
    const { api } = running.cluster;
    const then = await used('of-a-group', contents);
    await host.close();
    await running.cluster.killAll();
    const file = (name: string): string => join(running.folder, `${name}.disk`);
    renameSync(file('disk-1'), file('between'));
    renameSync(file('disk-2'), file('disk-1'));
    renameSync(file('between'), file('disk-2'));
    const names = ['store', 'disk-1', 'disk-2', 'disk-3', 'controller-1', 'controller-2', 'api'];
    await Promise.all(names.map((name) => running.cluster.daemon(name).start()));
    host = await TestHost.connect(await running.settled());
    expect(await load.verifyAll(host)).toEqual([]);
    await snapshotWith('whole', 'both', 3);
    const { id } = await api.rollBack('whole', 'both');
    const job = await running.cluster.jobEnded(id, msMax);
    expect(job, JSON.stringify(job)).toMatchObject({ state: 'done' });
    await running.cluster.daemon('disk-1').kill();
    expect(await used('whole', contents)).toEqual(then);
    expect(await load.verifyAll(host)).toEqual([]);
  });
});
