// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, snapshots are instants of the whole volume, made while a host writes, and stay what they are
// through whatever happens to controllers and disk nodes; clones begin as them.
// Method: a load that notes when each write was asked for and acknowledged; what a clone holds is compared with that: no
// block may lack a write that had been acknowledged before another block's contained write was asked for.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../scripts/demo/poll.js';
import { systemClock } from '../../src/env/clock.js';
import type { SnapshotView } from '../../src/model/api.js';
import { OrderedLoad } from './ordered-load.js';
import { RunningCluster, TestHost, volumeName } from './running-cluster.js';

describe('snapshots of a volume of a cluster of processes', { timeout: 180_000 }, () => {
  let running: RunningCluster;
  let host: TestHost;
  let load: OrderedLoad;

  beforeAll(async () => {
    running = await RunningCluster.start();
    host = await TestHost.connect(await running.settled());
    load = new OrderedLoad([host], { depth: 8, blockCount: 512 });
  }, 120_000);
  afterAll(async () => {
    await load?.stop().catch(() => {});
    await host?.close();
    await running?.stop();
  }, 60_000);

  const made = (name: string): Promise<SnapshotView> =>
    pollUntil(
      `snapshot ${name}`,
      60_000,
      () => running.cluster.api.snapshot(volumeName, name).catch(() => null),
      (snapshot): snapshot is SnapshotView => snapshot !== null && snapshot.state !== 'pending',
    );

  const asked = new Map<string, number>();
  const over = new Map<string, number>();

  async function snapshot(name: string): Promise<SnapshotView> {
    asked.set(name, load.order);
    await running.cluster.api.createSnapshot(volumeName, name);
    const view = await made(name);
    over.set(name, load.order);
    expect(view, JSON.stringify(view)).toMatchObject({ state: 'ready' });
    return view;
  }

  const contents = (volume: string): Promise<number[]> => load.contents(running.cluster.api.endpoint, volume);

  async function clone(name: string, from: string): Promise<void> {
    await running.cluster.api.cloneSnapshot(volumeName, from, { name, controllers: [] });
    await running.cluster.waitForVolume(name, 'made', 60_000, (volume) => volume.phase === 'live');
  }

  const expectInstant = (held: readonly number[], name: string): void =>
    load.expectInstant([held], asked.get(name) ?? 0, over.get(name) ?? Number.POSITIVE_INFINITY);

  it('are instants over all legs, while a host writes, with a short pause', async () => {
    await load.progress(2_000);
    load.takeGap();
    const held: number[] = [];
    for (let round = 0; round < 5; round++) {
      const view = await snapshot(`s${round}`);
      expect(view).toMatchObject({ copies: 2, copiesWanted: 2 });
      held.push((view.heldUs ?? 0) / 1000);
      await load.progress(300);
    }
    const gap = load.takeGap();
    const text = held.map((ms) => ms.toFixed(1)).join(', ');
    process.stderr.write(`snapshots held requests for ${text} ms; longest gap of the load ${gap.toFixed(1)} ms\n`);
    await clone('c0', 's0');
    await clone('c4', 's4');
    await load.progress(1_000);
    const [first, last] = [await contents('c0'), await contents('c4')];
    expectInstant(first, 's0');
    expectInstant(last, 's4');
    // The later one holds nothing older.
    first.forEach((sequence, block) => {
      expect(last[block]).toBeGreaterThanOrEqual(sequence);
    });
    expect(last).not.toEqual(first);
    await clone('c0-again', 's0');
    expect(await contents('c0-again')).toEqual(first);
  });

  it('are whole or not there when controllers are killed in the middle of them', async () => {
    const names: string[] = [];
    for (let round = 0; round < 3; round++) {
      const name = `k${round}`;
      const active = await running.activeController();
      await load.progress(50);
      asked.set(name, load.order);
      await running.cluster.api.createSnapshot(volumeName, name);
      await systemClock.sleep(round * 4);
      await running.cluster.daemon(active).kill();
      expect(await made(name)).toMatchObject({ state: 'ready' });
      names.push(name);
      await running.cluster.daemon(active).start();
      await running.settled();
    }
    for (const name of names) {
      await clone(`c-${name}`, name);
      expectInstant(await contents(`c-${name}`), name);
    }
  });

  it('stay what they are when everything is killed and started again', async () => {
    await clone('before', 's1');
    const held = await contents('before');
    await load.stop();
    await host.close();
    await running.cluster.killAll();
    await running.cluster.start();
    await running.settled();
    host = await TestHost.connect(await running.settled());
    load = new OrderedLoad([host], { depth: 8, blockCount: 512 });
    await load.progress(500);
    await clone('after', 's1');
    expect(await contents('after')).toEqual(held);
    expect(await running.cluster.api.snapshot(volumeName, 's1')).toMatchObject({ copies: 2 });
    await running.cluster.api.deleteSnapshot(volumeName, 's1');
    expect(await contents('before')).toEqual(held);
  });
});
