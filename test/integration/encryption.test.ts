// SPDX-License-Identifier: Apache-2.0
//
// Goal: of an encrypted volume nothing readable is on any disk, in the store, in a log or on a command line, before and
// after a failover and a change of the cluster key, and who lacks the key is refused with exactly that. Method: a cluster
// of processes with a plain and an encrypted volume; everything that was ever written to files is searched for the
// volumes' text and for every key, in several forms. The plain volume's text must be found, so that the search can fail.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterKeyFile } from '../../src/agents/cluster-key-file.js';
import { systemRandom } from '../../src/env/random.js';
import { Cluster } from '../../src/index.js';
import { controllers, EncryptedCluster, names, page, readBack } from './encrypted-cluster.js';

const MiB = 1024 * 1024;

describe('an encrypted volume of a cluster of processes', { timeout: 180_000 }, () => {
  let bed: EncryptedCluster;

  beforeAll(async () => {
    bed = await EncryptedCluster.start();
  }, 120_000);
  afterAll(() => bed?.stop(), 60_000);

  it('gives back what was written through the standby, after the active controller was killed and the key changed', async () => {
    for (const name of names) {
      await bed.withHost(name, async (host) => {
        await host.bdev.write(MiB, page(name));
        await host.bdev.flush();
        expect((await readBack(host, MiB)).equals(page(name))).toBe(true);
      });
    }
    await bed.withHost('secret', async (host) => {
      const before = await bed.cluster.api.volume('secret');
      const { keyId, rewrapped } = await bed.cluster.api.rotateClusterKey();
      expect(rewrapped).toBe(1);
      expect(keyId).not.toBe(before.encryptedBy);
      await bed.noteKeys();
      await host.bdev.write(5 * MiB, page('secret'));
      const active = before.controller ?? '';
      await bed.cluster.daemon(active).kill();
      expect((await readBack(host, MiB)).equals(page('secret'))).toBe(true);
      expect((await readBack(host, 5 * MiB)).equals(page('secret'))).toBe(true);
      expect((await readBack(host, 3 * MiB)).equals(Buffer.alloc(64 * 1024))).toBe(true);
      const after = await bed.cluster.api.volume('secret');
      expect(after).toMatchObject({ encryptedBy: keyId });
      expect(after.controller).not.toBe(active);
      await bed.cluster.daemon(active).start();
    });
    await bed.settled('secret');
    expect((await bed.cluster.api.pruneClusterKeys()).removed).toHaveLength(1);
  });

  it('is served over NBD', async () => {
    const path = join(bed.folder, 'nbd.sock');
    await bed.cluster.api.attach('secret', { nbd: { path } });
    const seen = await bed.cluster.waitForVolume('secret', 'exported over NBD', 20_000, (volume) =>
      volume.paths.some((at) => at.state === 'active' && at.nbd.length > 0),
    );
    const uri = seen.paths.flatMap((at) => at.nbd)[0]?.uri ?? '';
    const copy = join(bed.keyFolder, 'copy');
    const ran = spawnSync('nbdcopy', [uri, copy]);
    expect(ran.status, String(ran.stderr)).toBe(0);
    const bytes = readFileSync(copy);
    expect(bytes.length).toBe(16 * MiB);
    expect(bytes.subarray(MiB, MiB + 64 * 1024).equals(page('secret'))).toBe(true);
    expect(bytes.subarray(3 * MiB, 4 * MiB).equals(Buffer.alloc(MiB))).toBe(true);
    await bed.cluster.api.detach('secret', { nbd: { path } });
  });

  it('is opened by a program with the key file, and by no other', async () => {
    const api = bed.cluster.api.endpoint.replace('http://', '');
    const { encryptedBy } = await bed.cluster.api.volume('secret');
    const without = await Cluster.connect({ api });
    try {
      await expect(without.open('secret', { takeover: true })).rejects.toMatchObject({
        code: 'CLUSTER_KEY_MISSING',
        message: `volume secret needs cluster key ${encryptedBy}; held here: no cluster key`,
      });
    } finally {
      await without.close();
    }
    const withKey = await Cluster.connect({ api, clusterKey: bed.keyPath });
    try {
      const volume = await withKey.open('secret', { takeover: true });
      expect((await volume.read(MiB, 64 * 1024)).equals(page('secret'))).toBe(true);
      await volume.write(7 * MiB, page('secret'));
      await volume.close();
    } finally {
      await withKey.close();
    }
    await bed.settled('secret');
    await bed.withHost('secret', async (host) => {
      expect((await readBack(host, 7 * MiB)).equals(page('secret'))).toBe(true);
    });
  });

  it('is refused with exactly that by controllers with a wrong key, which serve the others', async () => {
    await Promise.all(controllers.map((name) => bed.cluster.daemon(name).kill()));
    const { encryptedBy } = await bed.cluster.api.volume('secret');
    renameSync(bed.keyPath, `${bed.keyPath}.right`);
    const wrong = new ClusterKeyFile(bed.keyPath, systemRandom);
    await wrong.create();
    const held = (await wrong.ring()).newest.id;
    await Promise.all(controllers.map((name) => bed.cluster.daemon(name).start()));
    await bed.settled('plain');
    const problem = `volume secret needs cluster key ${encryptedBy}; held here: ${held}`;
    await bed.cluster.waitForVolume('secret', 'refused', 30_000, ({ health, paths }) => {
      return health === 'unserved' && paths.length === 2 && paths.every((path) => path.problem === problem);
    });
    renameSync(`${bed.keyPath}.right`, bed.keyPath);
    await bed.settled('secret');
    await bed.withHost('secret', async (host) => {
      expect((await readBack(host, MiB)).equals(page('secret'))).toBe(true);
    });
  });

  it('left no readable byte of itself or of a key on a disk, in the store, in a log or on a command line', async () => {
    expect(bed.secrets.size, 'two cluster keys and the halves of the data key').toBe(4);
    // Two copies of it.
    await bed.expectNothingReadable({ disksWithText: 2 });
    const logs = readdirSync(bed.folder).filter((name) => name.endsWith('.log'));
    expect(logs).toHaveLength(7);
  });
});
