// SPDX-License-Identifier: Apache-2.0
//
// Goal: a TypeScript program is a volume's controller: it takes the right, talks straight to the disk nodes, and gives
// it back. Method: this process against a cluster of processes.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../../src/index.js';
import { RunningCluster, TestHost, volumeName } from './running-cluster.js';

describe('a volume in this process', { timeout: 120_000 }, () => {
  let running: RunningCluster;
  let cluster: Cluster;

  beforeAll(async () => {
    running = await RunningCluster.start();
    cluster = await Cluster.connect({ api: running.cluster.api.endpoint.replace('http://', '') });
  }, 120_000);
  afterAll(async () => {
    await cluster?.close();
    await running?.stop();
  }, 60_000);

  it('cannot be opened while a controller lives, unless takeover is asked for', async () => {
    await expect(cluster.open(volumeName)).rejects.toMatchObject({ code: 'VOLUME_LED' });
    const before = await running.volume();
    const volume = await cluster.open(volumeName, { takeover: true });
    expect((await running.volume()).epoch).toBeGreaterThan(before.epoch);
    await volume.close();
    await running.settled();
  });

  it('reaches all replicas of a disk node by one link', async () => {
    const volume = await cluster.open(volumeName, { takeover: true });
    const { legs } = await running.volume();
    const count = new Map<string, number>();
    for (const { node } of legs.flat()) count.set(node, (count.get(node) ?? 0) + 1);
    const links = await cluster.engine.rpc('basalt_link_get', {});
    expect(links.map(({ members }) => members).sort()).toEqual([...count.values()].sort());
    for (const link of links) expect(link).toMatchObject({ state: 'live', connections: 5 });
    await volume.close();
    expect(await cluster.engine.rpc('basalt_link_get', {})).toEqual([]);
    await running.settled();
  });

  it('writes from memory of the engine, and a host reads the same afterwards', async () => {
    const volume = await cluster.open(volumeName, { takeover: true });
    const written = Buffer.from(cluster.engine.allocate(256 * 1024));
    for (let at = 0; at < written.length; at += 4) written.writeUInt32LE((at * 2654435761) % 0x1_0000_0000, at);
    await volume.write(65536, written);
    await volume.flush();
    expect(Buffer.compare(Buffer.from(await volume.read(65536, written.length)), written)).toBe(0);
    await expect(volume.read(100, 4096)).rejects.toThrow();
    await expect(volume.write(volume.sizeBytes, written)).rejects.toThrow();
    await volume.close();
    const host = await TestHost.connect(await running.settled());
    try {
      const read = new Uint8Array(host.engine.allocate(written.length));
      await host.bdev.read(65536, read);
      expect(Buffer.compare(Buffer.from(read), written)).toBe(0);
    } finally {
      await host.close();
    }
  });
});
