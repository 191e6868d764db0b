// SPDX-License-Identifier: Apache-2.0
//
// Goal: of an encrypted volume of two data and one parity member nothing readable is on any disk - in data strips, parity,
// logs of writes, copies of snapshots, what was rebuilt and what was lost - nor in the store, a log or a process.
// Method: a plain and an encrypted volume of that form go through the same: snapshots, volumes made of them, growth, a
// killed controller, another cluster key, a disk that is lost for good and replaced. Only one strip of a stripe is ever
// written, so that parity is the same text (text XOR zeroes): the plain volume's must be found on every disk.

import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../scripts/demo/poll.js';
import { systemClock } from '../../src/env/clock.js';
import { EncryptedCluster, names, page, pageBytes, readBack, sizeBytes } from './encrypted-cluster.js';
import { hostNqn, type TestHost } from './running-cluster.js';

const MiB = 1024 * 1024;
const msMax = 60_000;
/** Stripes of both legs, whose parity is on different members; the rest of each stripe is never written. */
const places = Array.from({ length: 12 }, (_, index) => MiB * index + pageBytes * (index % 2));
const isZero = (bytes: Buffer): boolean => bytes.every((byte) => byte === 0);

describe('an encrypted volume with erasure coding of a cluster of processes', { timeout: 300_000 }, () => {
  let bed: EncryptedCluster;

  beforeAll(async () => {
    bed = await EncryptedCluster.start({ redundancy: { kind: 'erasure', data: 2, parity: 1 } });
  }, 120_000);
  afterAll(() => bed?.stop(), 60_000);

  async function writeAt(host: TestHost, name: string, offsets: readonly number[]): Promise<void> {
    for (const at of offsets) await host.bdev.write(at, page(name));
    await host.bdev.flush();
  }

  async function expectAt(host: TestHost, name: string, offsets: readonly number[]): Promise<void> {
    const text = page(name);
    for (const at of offsets) expect((await readBack(host, at)).equals(text), `${name} at ${at}`).toBe(true);
  }

  const withCopies = (volume: string, snapshot: string, copies: number) =>
    pollUntil(
      `snapshot ${snapshot} of ${volume} with ${copies} copies`,
      msMax,
      () => bed.cluster.api.snapshot(volume, snapshot),
      (seen) => seen.state === 'ready' && seen.copies === copies,
    );

  it('has snapshots that volumes begin as, under the same key, and another cluster key wraps both', async () => {
    const { api } = bed.cluster;
    for (const name of names) {
      await bed.withHost(name, async (host) => {
        await writeAt(host, name, places);
        await api.createSnapshot(name, 's');
        await withCopies(name, 's', 3);
        await writeAt(host, name, [15 * MiB]);
      });
      await api.cloneSnapshot(name, 's', { name: `${name}-clone` });
      await api.attach(`${name}-clone`, { host: hostNqn });
      await bed.settled(`${name}-clone`);
    }
    const { keyId, rewrapped } = await api.rotateClusterKey();
    expect(rewrapped).toBe(2);
    await bed.noteKeys();
    for (const name of names) {
      await bed.withHost(`${name}-clone`, async (host) => {
        await expectAt(host, name, places);
        expect(isZero(await readBack(host, 15 * MiB))).toBe(true);
        await writeAt(host, name, [13 * MiB]);
        await expectAt(host, name, [...places, 13 * MiB]);
      });
    }
    for (const name of ['secret', 'secret-clone']) expect(await api.volume(name)).toMatchObject({ encryptedBy: keyId });
    expect((await api.pruneClusterKeys()).removed).toHaveLength(1);
  });

  it('gives everything back through the standby, grown, after the active controller was killed', async () => {
    const grown = 2 * sizeBytes;
    for (const name of names) {
      await bed.withHost(name, async (host) => {
        await bed.cluster.api.resizeVolume(name, { sizeBytes: grown });
        const active = (await bed.cluster.api.volume(name)).controller ?? '';
        await bed.cluster.daemon(active).kill();
        await expectAt(host, name, [...places, 15 * MiB]);
        expect((await bed.cluster.api.volume(name)).controller).not.toBe(active);
        for (const endMs = systemClock.now() + msMax; host.bdev.info.sizeBytes !== grown; await systemClock.sleep(10))
          if (systemClock.now() > endMs) throw new Error('the host was not told of the new size');
        for (const at of [sizeBytes, sizeBytes + 3 * MiB, grown - pageBytes])
          expect(isZero(await readBack(host, at)), `zeroes at ${at}`).toBe(true);
        await writeAt(host, name, [sizeBytes + MiB]);
        await expectAt(host, name, [...places, 15 * MiB, sizeBytes + MiB]);
        await bed.cluster.daemon(active).start();
      });
      await bed.settled(name);
    }
  });

  it('is rebuilt on another disk when one is lost for good, its snapshot too, and read from that', async () => {
    const { cluster } = bed;
    const lost = (await cluster.api.volume('secret')).legs[0]?.find(({ node }) => node === 'disk-3')?.disk ?? '';
    await cluster.daemon('disk-3').kill();
    // Whoever finds it looks into it as well.
    renameSync(join(bed.folder, 'disk-3.disk'), join(bed.folder, 'lost.disk'));
    await cluster.daemon('disk-3').start();
    await cluster.api.drain('disk', lost);
    for (const name of names) {
      for (const volume of [name, `${name}-clone`])
        await cluster.waitForVolume(volume, 'redundant on other disks', 2 * msMax, ({ health, legs }) => {
          return health === 'redundant' && legs.flat().every(({ disk, state }) => disk !== lost && state === 'in_sync');
        });
      await pollUntil(
        `copies of ${name}@s on other disks`,
        msMax,
        () => cluster.api.snapshot(name, 's'),
        ({ legs }) => legs.every((leg) => leg.filter(({ disk }) => disk !== lost).length === 3),
      );
    }
    await cluster.daemon('disk-1').kill();
    for (const name of names) {
      await bed.withHost(name, (host) => expectAt(host, name, [...places, 15 * MiB, sizeBytes + MiB]));
      await bed.withHost(`${name}-clone`, (host) => expectAt(host, name, [...places, 13 * MiB]));
    }
    await cluster.daemon('disk-1').start();
    for (const name of names) await bed.settled(name);
  });

  it('left no readable byte of itself or of a key anywhere, where each disk has text of the plain one', async () => {
    expect(bed.secrets.size, 'two cluster keys and the halves of the data key').toBe(4);
    // The lost one too.
    await bed.expectNothingReadable({ disksWithText: 4 });
  });
});
