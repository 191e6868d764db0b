// SPDX-License-Identifier: Apache-2.0
//
// Goal: a disk node that never comes back is replaced, with real processes and under load, and cleans up if it does come back.
// Method: a verifying load over both paths while a disk node is killed for longer than the grace time.

import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import type { VolumeView } from '../../src/model/api.js';
import { hostNqn, TestHost } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

const MiB = 1024 * 1024;
const sizeBytes = 32 * MiB;
const name = 'vol1';

const nodesOf = (volume: VolumeView): Set<string> => new Set(volume.legs.flat().map((entry) => entry.node));

describe('a disk node that stays away', { timeout: 180_000 }, () => {
  let folder: string;
  let cluster: DemoCluster;

  beforeAll(async () => {
    // Not /tmp, which may be a file system without O_DIRECT.
    folder = await mkdtemp(join('/var/tmp', 'basalt-rebuild-'));
    cluster = await DemoCluster.plan({ folder, diskBytes: 256 * MiB, nodeArguments: ['--grace', '2'] });
    await cluster.start();
  }, 120_000);

  afterAll(async () => {
    await cluster?.killAll();
    await rm(folder, { recursive: true, force: true });
  }, 60_000);

  it('is replaced under load, without an error at the host, and deletes what it held when it is back', async () => {
    const controllers = ['controller-1', 'controller-2'];
    await cluster.api.createVolume({ name, sizeBytes, copies: 2, legs: 4, controllers });
    await cluster.api.attach(name, { host: hostNqn });
    const isWhole = (volume: VolumeView): boolean =>
      volume.health === 'redundant' && volume.paths.length === 2 && volume.hosts.includes(hostNqn);
    const before = await cluster.waitForVolume(name, 'redundant', 60_000, isWhole);
    expect(nodesOf(before)).toContain('disk-2');
    const host = await TestHost.connect(before);
    try {
      const load = new VerifyingLoad(host.engine, host.bdev, new BlockOracle(sizeBytes / 4096 / 8));
      load.start(8);
      await cluster.daemon('disk-2').kill();
      const isRebuilt = (volume: VolumeView): boolean =>
        isWhole(volume) && !nodesOf(volume).has('disk-2') && volume.legs.every((leg) => leg.length === 2);
      await cluster.waitForVolume(name, 'redundant without disk-2', 90_000, isRebuilt);
      const report = await load.stop();
      expect(report.violations.slice(0, 10)).toEqual([]);
      await load.verifyAll();
    } finally {
      await host.close();
    }
    await cluster.daemon('disk-2').start();
    // Whatever it is given now is new; of what it held nothing is promised or kept.
    const old = new Set(before.legs.flat().map((entry) => entry.replica));
    await cluster.waitForVolume(name, 'redundant again', 60_000, (volume) => {
      const kept = volume.legs.flat().filter((entry) => entry.node === 'disk-2' && old.has(entry.replica));
      return volume.health === 'redundant' && kept.length === 0;
    });
  });
});
