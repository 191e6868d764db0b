// SPDX-License-Identifier: Apache-2.0
//
// Goal: what a host reserves on a volume holds on every path of real processes, through the death of the controller that
// took it and of everything. Method: two of our own hosts with a path to each controller, and kills.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Cluster } from '../../src/cluster.js';
import type { HostReservationParams, HostReservationResult } from '../../src/engine/engine.js';
import { RunningCluster, TestHost, volumeName } from './running-cluster.js';

const writeExclusive = 1;
const conflict = 0x083;
const code = (result: HostReservationResult): number => result.status & 0x7ff;

function run(host: TestHost, params: Omit<HostReservationParams, 'name'>): Promise<HostReservationResult> {
  const { name } = host.bdev.info;
  return host.engine.rpc('basalt_nvme_reservation', { name, timeout_ms: 60_000, ...params }, { timeoutMs: 90_000 });
}

async function done(host: TestHost, params: Omit<HostReservationParams, 'name'>): Promise<void> {
  const result = await run(host, params);
  expect(code(result), `${params.action}: ${result.text}`).toBe(0);
}

const write = (host: TestHost): Promise<void> => host.bdev.write(0, new Uint8Array(4096).fill(1));

describe('reservations on a cluster of processes', { timeout: 180_000 }, () => {
  let running: RunningCluster;
  let hosts: TestHost[] = [];

  beforeAll(async () => {
    running = await RunningCluster.start();
  }, 120_000);
  afterAll(() => running?.stop(), 60_000);
  beforeEach(async () => {
    const volume = await running.settled();
    hosts = [await TestHost.connect(volume), await TestHost.connect(volume)];
  }, 90_000);
  afterEach(async () => {
    for (const host of hosts) await host.close();
  }, 30_000);

  it('hold through the other controller when the one that took them is killed, and through the end of everything', async () => {
    const [first, second] = hosts as [TestHost, TestHost];
    await done(first, { action: 'register', new_key: 10 });
    await done(second, { action: 'register', new_key: 20 });
    await done(first, { action: 'acquire', key: 10, rtype: writeExclusive });
    await expect(write(second)).rejects.toMatchObject({ isReservationConflict: true });
    const active = await running.activeController();
    await running.cluster.daemon(active).kill();
    // Waits for a path, and finds the reservation there.
    await expect(write(second)).rejects.toMatchObject({ isReservationConflict: true });
    await write(first);
    expect((await running.volume()).controller).not.toBe(active);
    const { report } = await run(second, { action: 'report' });
    expect(report).toMatchObject({ generation: 2, rtype: writeExclusive, persistent: true });
    expect(report?.registrants.map(({ key, holds }) => `${key} ${holds}`)).toEqual(['10 true', '20 false']);

    await running.cluster.killAll();
    await Promise.all(running.cluster.daemons.map((daemon) => daemon.start()));
    await running.settled();
    await expect(write(second)).rejects.toMatchObject({ isReservationConflict: true });
    const cluster = await Cluster.connect({ api: running.cluster.api.endpoint });
    try {
      await expect(cluster.open(volumeName, { takeover: true })).rejects.toMatchObject({ code: 'VOLUME_RESERVED' });
    } finally {
      await cluster.close();
    }
    const preempt = { action: 'preempt_and_abort', key: 20, preempt_key: 10, rtype: writeExclusive } as const;
    await done(second, preempt);
    await write(second);
    await expect(write(first)).rejects.toMatchObject({ isReservationConflict: true });
    expect(code(await run(first, { action: 'acquire', key: 10, rtype: writeExclusive }))).toBe(conflict);
    await done(second, { action: 'clear', key: 20 });
    await write(first);
  });

  it('wait for the store, while I/O does not', async () => {
    const [first, second] = hosts as [TestHost, TestHost];
    await done(first, { action: 'register', new_key: 10 });
    await running.cluster.daemon('store').kill();
    const acquiring = done(first, { action: 'acquire', key: 10, rtype: writeExclusive });
    await write(second);
    await running.cluster.daemon('store').start();
    await acquiring;
    await expect(write(second)).rejects.toMatchObject({ isReservationConflict: true });
    await done(first, { action: 'clear', key: 10 });
    await write(second);
  });
});
