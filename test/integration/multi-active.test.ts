// SPDX-License-Identifier: Apache-2.0
//
// Goal: a volume with two active controllers serves each of two hosts by its own one, and kills and stops of controllers
// leave both with correct data and no error; it grows under load, and a volume that is made of its snapshot holds what it
// held. Method: a verifying load by one host while daemons are signalled; afterwards the other host, by its own front, reads
// every block.

import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import type { VolumeView } from '../../src/model/api.js';
import { RunningCluster, TestHost } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

const MiB = 1024 * 1024;
const name = 'wide';
const sizeBytes = 16 * MiB;
const hosts = ['a', 'b'].map((each) => `nqn.2026-01.io.basalt:host:${each}`);
const controllers = ['controller-1', 'controller-2'];

const kinds = [
  { kind: 'a volume', encrypt: false },
  { kind: 'an encrypted volume', encrypt: true },
];

describe.each(kinds)('$kind with two active controllers, of processes', { timeout: 180_000 }, ({ encrypt }) => {
  let keyFolder: string;
  let running: RunningCluster;
  const connected: TestHost[] = [];
  const oracle = new BlockOracle(sizeBytes / 4096 / 4);

  beforeAll(async () => {
    keyFolder = await mkdtemp('/var/tmp/basalt-keys-');
    const keyFile = join(keyFolder, 'cluster.key');
    const made = spawnSync(process.execPath, [commandPath(), 'key', 'create', '--file', keyFile]);
    expect(made.status, String(made.stderr)).toBe(0);
    running = await RunningCluster.start({ keyFile });
    const shape = { name, sizeBytes, copies: 2, legs: 4, active: 2, controllers, encrypt };
    await running.cluster.api.createVolume(shape);
    for (const host of hosts) await running.cluster.api.attach(name, { host });
    const volume = await settled();
    for (const [index, host] of hosts.entries()) connected.push(await TestHost.connect(frontOf(volume, index), host));
  }, 180_000);
  afterAll(async () => {
    for (const host of connected) await host.close();
    await running?.stop();
    await rm(keyFolder, { recursive: true, force: true });
  }, 60_000);

  /** As a host of that front sees it. */
  function frontOf(volume: VolumeView, index: number): VolumeView {
    const front = volume.fronts?.[index];
    if (front === undefined) throw new Error(`no front ${index}`);
    return { ...volume, nqn: front.nqn, paths: front.paths };
  }

  /** Every part has all its replicas, and every front a controller that serves it and one that would. */
  function settled(): Promise<VolumeView> {
    return running.cluster.waitForVolume(name, 'whole', 90_000, ({ health, fronts = [] }) => {
      const states = fronts.map(({ paths }) => paths.map(({ state }) => state).sort());
      return health === 'redundant' && states.every((each) => each.join(' ') === 'active standby');
    });
  }

  async function controllerOf(front: number): Promise<string> {
    const controller = (await running.cluster.api.volume(name)).fronts?.[front]?.controller ?? null;
    if (controller === null) throw new Error(`nobody serves front ${front}`);
    return controller;
  }

  /** While the host loads the volume; then the other one reads it. */
  async function loaded(front: number, during: (load: VerifyingLoad) => Promise<void>): Promise<void> {
    const [host, other] = [connected[front], connected[1 - front]];
    if (host === undefined || other === undefined) throw new Error('not connected');
    const load = new VerifyingLoad(host.engine, host.bdev, oracle);
    load.start(16);
    await load.progress(500);
    await during(load);
    await load.stop();
    await load.verifyAll(other);
    expect(load.report().violations.slice(0, 10)).toEqual([]);
  }

  it('has a front and a part on each of them', async () => {
    const { fronts = [], parts = [] } = await settled();
    expect(fronts.map(({ controller }) => controller)).toEqual(controllers);
    expect(parts.map(({ controller }) => controller)).toEqual(controllers);
    expect(fronts.map((front) => front.hosts)).toEqual(hosts.map((host) => [host]));
    await loaded(0, async (load) => load.progress(500));
    await loaded(1, async (load) => load.progress(500));
  });

  it('goes on when the controller of a host is killed, and when the one of another is', async () => {
    for (const front of [0, 1]) {
      const killed = await controllerOf(front);
      await loaded(0, async (load) => {
        await running.cluster.daemon(killed).kill();
        await load.progress(1000);
        expect(await controllerOf(front)).not.toBe(killed);
        await running.cluster.daemon(killed).start();
        await settled();
      });
    }
  });

  it('goes on when the controller of a host is stopped, and what it sends when it wakes harms nothing', async () => {
    const stopped = await controllerOf(1);
    await loaded(1, async (load) => {
      const { pid } = running.cluster.daemon(stopped);
      if (pid === undefined) throw new Error('no process');
      process.kill(pid, 'SIGSTOP');
      await load.progress(1000);
      process.kill(pid, 'SIGCONT');
      await load.progress(1000);
      expect(await controllerOf(1)).not.toBe(stopped);
    });
    await settled();
  });

  it('grows while a host loads it, and both hosts see its new size', async () => {
    const { api } = running.cluster;
    await loaded(0, async (load) => {
      await api.resizeVolume(name, { sizeBytes: 2 * sizeBytes });
      const grown = await running.cluster.waitForVolume(name, 'larger', 60_000, ({ growth }) => growth === null);
      expect(grown.sizeBytes).toBe(2 * sizeBytes);
      await load.progress(500);
    });
    const sizes = (): (number | undefined)[] => connected.map((host) => host.bdev.info.sizeBytes);
    await expect.poll(sizes, { timeout: 20_000 }).toEqual([2 * sizeBytes, 2 * sizeBytes]);
  });

  it('is as its snapshot says in a volume that is made of it, whatever is written afterwards', async () => {
    const { api } = running.cluster;
    const [host] = connected;
    const [nqn = ''] = hosts;
    if (host === undefined) throw new Error('not connected');
    await api.createSnapshot(name, 's1');
    await expect
      .poll(() => api.snapshot(name, 's1'), { timeout: 30_000 })
      .toMatchObject({
        state: 'ready',
        sizeBytes: 2 * sizeBytes,
      });
    const before = new VerifyingLoad(host.engine, host.bdev, oracle.copy());
    await loaded(1, async (load) => load.progress(500));
    await api.cloneSnapshot(name, 's1', { name: 'copy', controllers });
    await api.attach('copy', { host: nqn });
    const isServed = ({ health, fronts = [] }: VolumeView): boolean =>
      health === 'redundant' && fronts.every(({ paths }) => paths.length === controllers.length);
    const copy = await running.cluster.waitForVolume('copy', 'whole', 60_000, isServed);
    const reader = await TestHost.connect(frontOf(copy, 0), nqn);
    try {
      expect((await before.verifyAll(reader)).slice(0, 10)).toEqual([]);
    } finally {
      await reader.close();
    }
    await api.detach('copy', {});
    await api.deleteVolume('copy');
    await api.deleteSnapshot(name, 's1');
  });
});
