// SPDX-License-Identifier: Apache-2.0
//
// Goal: a daemon whose JavaScript is stuck goes on serving: keep-alives, leases and I/O live on native threads.
// Method: a hook in every daemon blocks its event loop for 10 s on SIGUSR2, under a verifying load.

import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/env/clock.js';
import { RunningCluster, TestHost } from './running-cluster.js';
import { BlockOracle, VerifyingLoad } from './verifying-load.js';

describe('a blocked event loop', { timeout: 120_000 }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: VerifyingLoad;

  beforeAll(async () => {
    const hook = fileURLToPath(new URL('./stall-hook.mjs', import.meta.url));
    running = await RunningCluster.start({ environment: { NODE_OPTIONS: `--import ${hook}` } });
    host = await TestHost.connect(await running.settled());
    load = new VerifyingLoad(host.engine, host.bdev, new BlockOracle(1024));
    load.start(8);
  }, 120_000);
  afterAll(async () => {
    await host?.close();
    await running?.stop();
  }, 60_000);

  async function blockFor10s(name: string): Promise<number> {
    const { pid } = running.cluster.daemon(name);
    if (pid === undefined) throw new Error(`${name} does not run`);
    const before = load.completed;
    process.kill(pid, 'SIGUSR2');
    await systemClock.sleep(10_000);
    return load.completed - before;
  }

  it('causes no failover and no error when it is the active controller', async () => {
    const before = await running.volume();
    if (before.controller === null) throw new Error('nobody drives the volume');
    load.resetGap();
    const completed = await blockFor10s(before.controller);
    expect(completed).toBeGreaterThan(100);
    expect(load.longestGapMs).toBeLessThan(5_000);
    const after = await running.settled();
    expect(after.controller).toBe(before.controller);
    expect(after.epoch).toBe(before.epoch);
  });

  it('costs no member when it is a disk node', async () => {
    const before = await running.volume();
    const completed = await blockFor10s('disk-1');
    expect(completed).toBeGreaterThan(100);
    const after = await running.settled();
    expect(after.health).toBe('redundant');
    expect(after.epoch).toBe(before.epoch);
    const report = await load.stop();
    await load.verifyAll();
    expect(report.violations.slice(0, 10)).toEqual([]);
  });
});
