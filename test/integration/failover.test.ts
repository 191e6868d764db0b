// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, kills, stops and restarts of every part leave a host with correct data and no error.
// Method: a verifying load over two paths while daemons are signalled; afterwards every block is checked.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RunningCluster, TestHost, volumeBytes } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

describe('a cluster of processes', { timeout: 120_000 }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: VerifyingLoad;
  const oracle = new BlockOracle(volumeBytes / 4096 / 8);

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

  async function finish(): Promise<void> {
    const report = await load.stop();
    await load.verifyAll();
    expect(report.violations.slice(0, 10)).toEqual([]);
  }

  it('goes on through the standby when the active controller is killed', async () => {
    const active = await running.activeController();
    const { epoch } = await running.volume();
    await running.cluster.daemon(active).kill();
    await load.progress(1000);
    const after = await running.volume();
    await running.cluster.daemon(active).start();
    expect(after.controller).not.toBe(active);
    expect(after.epoch).toBeGreaterThan(epoch);
    await finish();
  });

  it('goes on when the active controller is stopped, and the woken one harms nothing', async () => {
    const active = await running.activeController();
    const { pid } = running.cluster.daemon(active);
    if (pid === undefined) throw new Error('no process');
    process.kill(pid, 'SIGSTOP');
    await load.progress(1000);
    process.kill(pid, 'SIGCONT');
    await load.progress(1000);
    expect((await running.volume()).controller).not.toBe(active);
    await finish();
  });

  it('hands over on SIGTERM without an error', async () => {
    const active = await running.activeController();
    const daemon = running.cluster.daemon(active);
    const ended = daemon.terminate();
    await load.progress(1000);
    const code = await ended;
    await daemon.start();
    expect(code).toBe(0);
    await finish();
  });

  it('goes on when a disk node is killed, and becomes redundant again when it is back', async () => {
    await running.cluster.daemon('disk-1').kill();
    await load.progress(1000);
    expect((await running.volume()).health).toBe('degraded');
    await running.cluster.daemon('disk-1').start();
    await running.settled();
    await finish();
  });

  it('goes on when a disk node is stopped, and takes it back when it is woken', async () => {
    const { pid } = running.cluster.daemon('disk-2');
    if (pid === undefined) throw new Error('no process');
    process.kill(pid, 'SIGSTOP');
    await load.progress(1000);
    process.kill(pid, 'SIGCONT');
    await running.settled();
    await finish();
  });

  it('needs neither store nor API for I/O, and finds them again', async () => {
    await running.cluster.daemon('store').kill();
    await running.cluster.daemon('api').kill();
    await load.progress(2000);
    await running.cluster.daemon('store').start();
    await running.cluster.daemon('api').start();
    await running.settled();
    await load.progress(500);
    await finish();
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
});
