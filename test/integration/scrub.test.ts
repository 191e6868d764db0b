// SPDX-License-Identifier: Apache-2.0
//
// Goal: with real processes, `basalt volume scrub` finds what was damaged on a disk behind everybody's back, in mirrors and
// in coded volumes, and makes it right from the other members while a host uses the volume.
// Method: a block of known bytes is written, found in a disk's file and changed there; job, counts and the host's reads say
// the rest.

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VolumeCreateRequest, VolumeView } from '../../src/model/api.js';
import type { JobView } from '../../src/model/jobs.js';
import { hostNqn, RunningCluster, TestHost } from './running-cluster.js';

const msMax = 120_000;
const blockBytes = 4096;
const sizeBytes = 16 * 1024 * 1024;
const blockCount = sizeBytes / blockBytes;
const diskFiles = ['disk-1.disk', 'disk-2.disk', 'disk-3.disk'];

/** A block like no other. */
function contents(salt: number, block: number): Buffer {
  const bytes = Buffer.alloc(blockBytes);
  for (let at = 0; at < blockBytes; at += 8) bytes.writeUInt32LE((block * 2_654_435_761 + at) >>> 0, at);
  for (let at = 4; at < blockBytes; at += 8) bytes.writeUInt32LE(salt, at);
  return bytes;
}

describe('scrubs of volumes', { timeout: 2 * msMax }, () => {
  let running: RunningCluster;

  beforeAll(async () => {
    running = await RunningCluster.start({ settledMsMax: msMax });
  }, msMax);
  afterAll(async () => {
    await running?.stop();
  }, msMax);

  async function volume(request: Omit<VolumeCreateRequest, 'sizeBytes'>): Promise<TestHost> {
    const { cluster } = running;
    const controllers = ['controller-1', 'controller-2'];
    await cluster.api.createVolume({ ...request, sizeBytes, legs: 2, controllers });
    await cluster.api.attach(request.name, { host: hostNqn });
    const isWhole = (view: VolumeView): boolean =>
      view.health === 'redundant' && view.paths.length === 2 && view.hosts.includes(hostNqn);
    return TestHost.connect(await cluster.waitForVolume(request.name, 'redundant', msMax, isWhole));
  }

  /** All blocks, so that no log holds the first ones any more. */
  async function fill(host: TestHost, salt: number): Promise<void> {
    const blocks = 16;
    const data = Buffer.from(host.engine.allocate(blocks * blockBytes));
    for (let first = 0; first < blockCount; first += blocks) {
      for (let i = 0; i < blocks; i++) contents(salt, first + i).copy(data, i * blockBytes);
      await host.bdev.write(first * blockBytes, data);
    }
    await host.bdev.flush();
  }

  async function expectAll(host: TestHost, salt: number, which: readonly number[]): Promise<void> {
    const data = Buffer.from(host.engine.allocate(blockBytes));
    for (const block of which) {
      await host.bdev.read(block * blockBytes, data);
      expect(data.equals(contents(salt, block)), `block ${block}`).toBe(true);
    }
  }

  /** Changes a byte of the block wherever a disk holds it, also where it was on its way: on `disksMax` of them. */
  async function damage(wanted: Buffer, disksMax: number): Promise<void> {
    let disks = 0;
    for (const name of diskFiles) if (disks < disksMax && (await damageFile(name, wanted))) disks += 1;
    if (disks === 0) throw new Error('no disk holds the block');
  }

  async function damageFile(name: string, wanted: Buffer): Promise<boolean> {
    const chunk = Buffer.alloc(1024 * 1024);
    const file = await open(join(running.folder, name), 'r+');
    let found = false;
    try {
      for (let at = 0; ; at += chunk.length) {
        const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
        if (bytesRead === 0) break;
        for (let offset = 0; offset < bytesRead; offset += blockBytes) {
          if (chunk.compare(wanted, 0, blockBytes, offset, offset + blockBytes) !== 0) continue;
          await file.write(Buffer.from([(wanted[100] ?? 0) ^ 4]), 0, 1, at + offset + 100);
          found = true;
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
    return found;
  }

  async function scrubbed(name: string, request: { repair?: boolean; bytesPerS?: number } = {}): Promise<JobView> {
    const { api } = running.cluster;
    const { id } = await api.scrubVolume(name, request);
    const job = await running.cluster.jobEnded(id, msMax);
    expect(job).toMatchObject({ state: 'done', progress: { done: 100 } });
    return job;
  }
  const sound = { differentBlocks: 0, unreadableBlocks: 0, repairedBlocks: 0 };

  it('find copies of a mirror that differ', async () => {
    const host = await volume({ name: 'plain', copies: 2 });
    await fill(host, 1);
    expect((await scrubbed('plain')).result).toMatchObject({ ...sound, comparedBlocks: blockCount });
    await damage(contents(1, 700), 1);
    expect((await scrubbed('plain', { repair: false })).result).toMatchObject({
      differentBlocks: 1,
      repairedBlocks: 0,
    });
    expect((await scrubbed('plain')).result?.['differentBlocks']).toBe(1);
    expect((await scrubbed('plain')).result).toMatchObject(sound);
    await host.close();
  });

  it('make right what a checksummed mirror holds damaged', async () => {
    const host = await volume({ name: 'sure', copies: 2, checksums: true });
    await fill(host, 2);
    await damage(contents(2, 1000), 1);
    const { result } = await scrubbed('sure');
    expect(result).toMatchObject({ differentBlocks: 0 });
    expect(result?.['unreadableBlocks']).toBeGreaterThan(0);
    expect((await scrubbed('sure')).result).toMatchObject(sound);
    await expectAll(host, 2, [999, 1000, 1001]);
    await host.close();
  });

  it('make right what a checksummed coded volume holds damaged, at a pace, while a host writes', async () => {
    const redundancy = { kind: 'erasure' as const, data: 2, parity: 1 };
    await running.cluster.api.createPool({ name: 'coded', redundancy });
    const host = await volume({ name: 'coded1', pool: 'coded', checksums: true });
    await fill(host, 3);
    // One member has it; of others it is in the log at most.
    for (const block of [100, 2000]) await damage(contents(3, block), diskFiles.length);
    const scrubbing = scrubbed('coded1', { bytesPerS: sizeBytes });
    const data = Buffer.from(host.engine.allocate(blockBytes));
    for (let block = 3000; block < 3050; block++) {
      contents(4, block).copy(data);
      await host.bdev.write(block * blockBytes, data);
    }
    expect((await scrubbing).result).toMatchObject({ differentBlocks: 0, unreadableBlocks: 2, repairedBlocks: 2 });
    expect((await scrubbed('coded1')).result).toMatchObject(sound);
    await expectAll(host, 3, [99, 100, 101, 2000, 2999]);
    await expectAll(host, 4, [3000, 3049]);
    await host.close();
  });
});
