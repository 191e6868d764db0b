// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes a volume grows while a host writes: the host sees the new size without a reconnect, nothing
// that it wrote is lost or moves, whoever is killed in the middle.
// Method: a verifying load over two paths while the volume is resized; afterwards every block is checked, the old ones
// and the new ones, which read as zeroes until they are written.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/env/clock.js';
import { Cluster } from '../../src/index.js';
import type { VolumeView } from '../../src/model/api.js';
import { RunningCluster, TestHost, volumeBytes, volumeName } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

const MiB = 2 ** 20;
const blockBytes = 4096;

describe('a volume of a cluster of processes grows', { timeout: 120_000 }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: VerifyingLoad;
  /** Spread over the volume as it is at first, its last blocks included. */
  const oracle = new BlockOracle(volumeBytes / blockBytes);
  let sizeBytes = volumeBytes;

  beforeAll(async () => {
    running = await RunningCluster.start();
  }, 120_000);
  afterAll(() => running?.stop(), 60_000);

  beforeEach(async () => {
    host = await TestHost.connect(await running.settled());
    load = new VerifyingLoad(host.engine, host.bdev, oracle);
    load.start(16);
    await load.progress(500);
  }, 90_000);
  afterEach(() => host?.close(), 30_000);

  async function until(what: string, met: () => boolean): Promise<void> {
    const end = systemClock.now() + 60_000;
    while (!met()) {
      if (systemClock.now() > end) throw new Error(`no ${what}: ${JSON.stringify(load.report())}`);
      await systemClock.sleep(10);
    }
  }

  const resize = (bytes: number): Promise<VolumeView> =>
    running.cluster.api.resizeVolume(volumeName, { sizeBytes: bytes });
  const grown = (bytes: number): Promise<VolumeView> =>
    running.cluster.waitForVolume(
      volumeName,
      `${bytes} bytes`,
      60_000,
      (volume) => volume.growth === null && volume.sizeBytes === bytes,
    );

  /** The host has the new size; what is new is zero, can be written, and is not mixed up with what is old. */
  async function expectGrown(bytes: number): Promise<void> {
    await grown(bytes);
    await until('new size at the host', () => host.bdev.info.sizeBytes === bytes);
    await load.progress(500);
    const { longestGapMs } = load.report();
    process.stderr.write(`growth to ${bytes} bytes: longest gap of the load ${Math.round(longestGapMs)} ms\n`);
    const block = Buffer.from(host.engine.allocate(blockBytes));
    for (let at = sizeBytes; at < bytes; at += 61 * blockBytes) {
      await host.bdev.read(at, block);
      expect(
        block.every((byte) => byte === 0),
        `zeroes at ${at}`,
      ).toBe(true);
      block.fill(0x5a).writeDoubleLE(at, 0);
      await host.bdev.write(at, block);
    }
    const report = await load.stop();
    await load.verifyAll();
    expect(report.violations.slice(0, 10)).toEqual([]);
    for (let at = sizeBytes; at < bytes; at += 61 * blockBytes) {
      await host.bdev.read(at, block);
      expect([block.readDoubleLE(0), block[100]]).toEqual([at, 0x5a]);
    }
    sizeBytes = bytes;
  }

  it('under writes, and the host sees it without a reconnect', async () => {
    load.resetGap();
    await resize(48 * MiB);
    await expectGrown(48 * MiB);
  });

  it('and never becomes smaller', async () => {
    await expect(resize(32 * MiB)).rejects.toMatchObject({ code: 'VOLUME_SHRINK' });
    await expect(resize(2 ** 44)).rejects.toMatchObject({ code: 'PLACEMENT_IMPOSSIBLE' });
    await load.stop();
    expect(await running.volume()).toMatchObject({ sizeBytes: 48 * MiB, growth: null });
  });

  it('also when the active controller is killed in the middle', async () => {
    const active = await running.activeController();
    await resize(64 * MiB);
    await running.cluster.daemon(active).kill();
    await expectGrown(64 * MiB);
    expect(await running.activeController()).not.toBe(active);
    await running.cluster.daemon(active).start();
  });

  it('while a disk node is away, which is made as large before it is redundant again', async () => {
    await running.cluster.daemon('disk-1').kill();
    await load.progress(500);
    await resize(80 * MiB);
    await expectGrown(80 * MiB);
    await running.cluster.daemon('disk-1').start();
    await running.settled();
    await running.cluster.daemon('disk-2').kill();
    expect(await load.verifyAll()).toEqual([]);
    await running.cluster.daemon('disk-2').start();
  });

  it('when a program drives it, whose volume says its size as it is', async () => {
    await load.stop();
    const cluster = await Cluster.connect({ api: running.cluster.api.endpoint.replace('http://', '') });
    try {
      const volume = await cluster.open(volumeName, { takeover: true });
      expect(volume.sizeBytes).toBe(sizeBytes);
      await resize(96 * MiB);
      await expect.poll(() => volume.sizeBytes, { timeout: 30_000 }).toBe(96 * MiB);
      expect((await volume.read(96 * MiB - blockBytes, blockBytes)).every((byte) => byte === 0)).toBe(true);
      await volume.write(96 * MiB - blockBytes, Buffer.alloc(blockBytes, 7));
      await volume.close();
    } finally {
      await cluster.close();
    }
    sizeBytes = 96 * MiB;
    await running.settled();
    await until('new size at the host', () => host.bdev.info.sizeBytes === sizeBytes);
    expect(await load.verifyAll()).toEqual([]);
  });
});
