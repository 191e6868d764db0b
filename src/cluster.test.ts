// SPDX-License-Identifier: Apache-2.0
// Volumes in the calling process, on the fake engine and the memory store.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bedTiming, ClusterBed } from './agents/testing/cluster-bed.js';
import { MemoryKeys } from './agents/testing/memory-keys.js';
import { Cluster, Volume } from './cluster.js';
import type { BdevHandle } from './engine/engine.js';
import { EngineIoError } from './engine/errors.js';
import { FakeEngine } from './engine/fake/fake-engine.js';
import { systemClock } from './env/clock.js';
import type { KeySource } from './model/cluster-key.js';

let bed: ClusterBed;
let clusters: Cluster[];

beforeEach(async () => {
  bed = new ClusterBed();
  clusters = [];
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
});

afterEach(async () => {
  for (const cluster of clusters) await cluster.close().catch(() => {});
  await bed.close();
});

async function connect(name: string, clusterKey?: KeySource): Promise<Cluster> {
  const engine = new FakeEngine(name, bed.network);
  const key = clusterKey === undefined ? {} : { clusterKey };
  const cluster = await Cluster.connect({ store: bed.connect(), engine, timing: bedTiming, ...key });
  clusters.push(cluster);
  return cluster;
}

async function make(name: string, controllers: string[]): Promise<void> {
  await bed.create({ name, legs: 2, controllers });
  await bed.until(name, 'made', (view) => view.phase === 'live');
}

describe('an embedded volume', () => {
  it('keeps what is written, flushes, and is left clean', async () => {
    await make('v1', []);
    const cluster = await connect('app');
    const volume = await cluster.open('v1');
    const memory = new Uint8Array(cluster.engine.allocate(8192)).fill(9);
    await volume.write(4096, memory);
    await volume.flush();
    expect(await volume.read(4096, 8192)).toEqual(Buffer.alloc(8192, 9));
    expect(await volume.read(0, 4096)).toEqual(Buffer.alloc(4096));
    await volume.close();
    await volume.close();
    await expect(volume.read(0, 4096)).rejects.toMatchObject({ code: 'CLOSED' });
    const again = await cluster.open('v1');
    expect(await again.read(4096, 4096)).toEqual(Buffer.alloc(4096, 9));
    expect((await bed.view('v1')).epoch).toBe(2);
  });

  it('that is encrypted is opened with the cluster key, and by nobody else', async () => {
    await bed.create({ name: 'v1', legs: 2, controllers: [], encrypt: true });
    await bed.until('v1', 'made', (view) => view.phase === 'live');
    const { encryptedBy } = await bed.view('v1');
    const without = await connect('a');
    const message = `volume v1 needs cluster key ${encryptedBy}; held here: no cluster key`;
    await expect(without.open('v1')).rejects.toMatchObject({ code: 'CLUSTER_KEY_MISSING', message });
    const wrong = new MemoryKeys();
    const other = `volume v1 needs cluster key ${encryptedBy}; held here: ${wrong.keys[0]?.id}`;
    const withWrong = await connect('b', wrong);
    await expect(withWrong.open('v1')).rejects.toMatchObject({ code: 'CLUSTER_KEY_MISSING', message: other });
    expect((await bed.view('v1')).epoch, 'a refusal takes nothing from anybody').toBe(0);
    const volume = await (await connect('c', bed.keys)).open('v1');
    await volume.write(4096, Buffer.alloc(4096, 9));
    await volume.close();
    const again = await (await connect('d', bed.keys)).open('v1');
    expect(await again.read(0, 8192)).toEqual(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(4096, 9)]));
  });

  it('is not opened while a controller lives, unless a takeover is asked for', async () => {
    await make('v1', []);
    const first = await (await connect('a')).open('v1');
    const other = await connect('b');
    await expect(other.open('v1')).rejects.toMatchObject({ code: 'VOLUME_LED' });
    const second = await other.open('v1', { takeover: true });
    await second.write(0, Buffer.alloc(4096, 2));
    await expect(first.write(0, Buffer.alloc(4096, 1))).rejects.toThrow();
    expect(await second.read(0, 4096)).toEqual(Buffer.alloc(4096, 2));
  });

  it('is taken from a daemon, and goes back to it when it is closed', async () => {
    await bed.startController('c1');
    await make('v1', ['c1']);
    await bed.redundant('v1');
    await bed.write('c1', 'v1', 0, 3);
    const cluster = await connect('app');
    await expect(cluster.open('v1')).rejects.toMatchObject({ code: 'VOLUME_LED' });
    const volume = await cluster.open('v1', { takeover: true });
    expect(await volume.read(0, 4096)).toEqual(Buffer.alloc(4096, 3));
    await volume.write(0, Buffer.alloc(4096, 4));
    await volume.close();
    await bed.served('v1', 'c1');
    expect(await bed.read('c1', 'v1', 0)).toBe(4);
  });

  it('is looked after by a daemon when the process that had it open dies', async () => {
    await bed.startController('c1');
    await make('v1', ['c1']);
    await bed.redundant('v1');
    const engine = new FakeEngine('app', bed.network);
    const store = bed.connect();
    const cluster = await Cluster.connect({ store, engine, timing: bedTiming });
    const volume = await cluster.open('v1', { takeover: true });
    await volume.write(0, Buffer.alloc(4096, 8));
    engine.kill();
    await store.close();
    await bed.served('v1', 'c1');
    expect(await bed.read('c1', 'v1', 0)).toBe(8);
  });

  it('that does not exist, or is open here already, is refused with its code', async () => {
    await make('v1', []);
    const cluster = await connect('app');
    await expect(cluster.open('nope')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const volume = await cluster.open('v1');
    await expect(cluster.open('v1')).rejects.toMatchObject({ code: 'BUSY' });
    await expect(volume.write(1, Buffer.alloc(4096))).rejects.toThrow(RangeError);
    await expect(volume.read(0, 2 ** 40)).rejects.toThrow(RangeError);
    await cluster.close();
    await expect(cluster.open('v1')).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('while the replicas of a leg are out of reach', () => {
  const inaccessible = 0x302;
  const mediaError = 0x281;
  let answers: number[];
  let calls: number;
  let lost: boolean;

  beforeEach(() => {
    answers = [];
    calls = 0;
    lost = false;
  });

  function volume(timeoutMs: number): Volume {
    const run = async (): Promise<void> => {
      calls += 1;
      const status = answers.length > 1 ? answers.shift() : answers[0];
      if (status !== undefined && status !== 0) throw new EngineIoError('slot', 'write', status, 'refused');
    };
    const handle = {
      info: { sizeBytes: 1 << 20 },
      read: run,
      write: run,
      flush: run,
      close: async () => {},
    } as unknown as BdevHandle;
    const patience = { clock: systemClock, timeoutMs, isLost: () => lost };
    return new Volume({ name: 'v', blockSizeBytes: 4096 }, handle, patience, async () => {});
  }

  it('a write waits until the volume is served again', async () => {
    answers = [inaccessible, inaccessible, 0];
    await volume(30_000).write(0, Buffer.alloc(4096));
    expect(calls).toBe(3);
  });

  it('reads and flushes wait, too', async () => {
    answers = [inaccessible, 0];
    await volume(30_000).flush();
    answers = [inaccessible, 0];
    expect(await volume(30_000).read(0, 4096)).toHaveLength(4096);
    expect(calls).toBe(4);
  });

  it('the error comes when the time given for it is over', async () => {
    answers = [inaccessible];
    await expect(volume(60).write(0, Buffer.alloc(4096))).rejects.toMatchObject({ status: inaccessible });
    expect(calls).toBeGreaterThan(1);
  });

  it('the error comes at once when somebody else drives the volume', async () => {
    answers = [inaccessible];
    lost = true;
    await expect(volume(30_000).write(0, Buffer.alloc(4096))).rejects.toMatchObject({ status: inaccessible });
    expect(calls).toBe(1);
  });

  it('an error of the medium is not tried again', async () => {
    answers = [mediaError];
    await expect(volume(30_000).read(0, 4096)).rejects.toMatchObject({ status: mediaError });
    expect(calls).toBe(1);
  });
});
