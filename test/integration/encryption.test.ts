// SPDX-License-Identifier: Apache-2.0
//
// Goal: of an encrypted volume nothing readable is on any disk, in the store, in a log or on a command line, before and
// after a failover and a change of the cluster key, and who lacks the key is refused with exactly that. Method: a cluster
// of processes with a plain and an encrypted volume; everything that was ever written to files is searched for the
// volumes' text and for every key, in several forms. The plain volume's text must be found, so that the search can fail.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { commandPath } from '../../scripts/demo/command-path.js';
import { ClusterKeyFile } from '../../src/agents/cluster-key-file.js';
import { readState } from '../../src/api/read-state.js';
import { systemRandom } from '../../src/env/random.js';
import { Cluster } from '../../src/index.js';
import { unwrapDataKey } from '../../src/model/cluster-key.js';
import { openEtcdStore } from '../../src/store/etcd/etcd-store.js';
import { findBytes, formsOf } from './find-bytes.js';
import { hostNqn, TestHost } from './running-cluster.js';

const MiB = 1024 * 1024;
const basalt = commandPath();
const controllers = ['controller-1', 'controller-2'];
const text = (volume: string): Buffer => Buffer.from(`what the tenant of ${volume} wrote down. `);
const page = (volume: string): Uint8Array => {
  const line = text(volume);
  return Uint8Array.from({ length: 64 * 1024 }, (_, index) => line[index % line.length] ?? 0);
};

describe('an encrypted volume of a cluster of processes', { timeout: 180_000 }, () => {
  let folder: string;
  let keyFolder: string;
  let keyPath: string;
  let cluster: DemoCluster;
  /** Every key that was ever in use. */
  const secrets = new Map<string, Buffer>();

  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/basalt-crypt-');
    // Not below the folder that is searched.
    keyFolder = await mkdtemp('/var/tmp/basalt-keys-');
    keyPath = join(keyFolder, 'cluster.key');
    const made = spawnSync(process.execPath, [basalt, 'key', 'create', '--file', keyPath]);
    expect(made.status, String(made.stderr)).toBe(0);
    // Their environment is looked at in the end, which they refuse otherwise.
    const environment = { BASALT_CORE_DUMPS: '1' };
    cluster = await DemoCluster.plan({ folder, keyFile: keyPath, diskBytes: 128 * MiB, environment });
    await cluster.start();
    for (const name of ['plain', 'secret']) {
      const shape = { sizeBytes: 16 * MiB, copies: 2, legs: 2, controllers };
      await cluster.api.createVolume({ name, ...shape, encrypt: name === 'secret' });
      await cluster.api.attach(name, { host: hostNqn });
    }
    await settled('plain');
    await settled('secret');
    await noteKeys();
  }, 120_000);

  afterAll(async () => {
    await cluster?.killAll();
    await rm(folder, { recursive: true, force: true });
    await rm(keyFolder, { recursive: true, force: true });
  }, 60_000);

  function settled(name: string) {
    return cluster.waitForVolume(name, 'redundant with both controllers up', 60_000, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && states.join(' ') === 'active standby' && volume.hosts.includes(hostNqn);
    });
  }

  async function noteKeys(): Promise<void> {
    const ring = await new ClusterKeyFile(keyPath, systemRandom).ring();
    for (const key of ring.keys) secrets.set(`cluster key ${key.id}`, Buffer.from(key.toText(), 'base64'));
    const { endpoints } = (await cluster.api.status()).store;
    const store = openEtcdStore({ endpoints: [...endpoints] });
    try {
      const volume = (await readState(store)).state.volumeByName('secret');
      if (volume?.encryption === undefined) throw new Error('the volume is not encrypted');
      const dataKey = unwrapDataKey(ring, { ...volume, encryption: volume.encryption });
      secrets.set('data key, first half', dataKey.subarray(0, 32));
      secrets.set('data key, second half', dataKey.subarray(32));
    } finally {
      await store.close();
    }
  }

  async function withHost<T>(name: string, use: (host: TestHost) => Promise<T>): Promise<T> {
    const host = await TestHost.connect(await cluster.api.volume(name));
    try {
      return await use(host);
    } finally {
      await host.close();
    }
  }

  async function readBack(host: TestHost, offsetBytes: number, bytes = 64 * 1024): Promise<Buffer> {
    const into = new Uint8Array(host.engine.allocate(bytes));
    await host.bdev.read(offsetBytes, into);
    return Buffer.from(into);
  }

  it('gives back what was written through the standby, after the active controller was killed and the key changed', async () => {
    for (const name of ['plain', 'secret']) {
      await withHost(name, async (host) => {
        await host.bdev.write(MiB, page(name));
        await host.bdev.flush();
        expect((await readBack(host, MiB)).equals(page(name))).toBe(true);
      });
    }
    await withHost('secret', async (host) => {
      const before = await cluster.api.volume('secret');
      const { keyId, rewrapped } = await cluster.api.rotateClusterKey();
      expect(rewrapped).toBe(1);
      expect(keyId).not.toBe(before.encryptedBy);
      await noteKeys();
      await host.bdev.write(5 * MiB, page('secret'));
      const active = before.controller ?? '';
      await cluster.daemon(active).kill();
      expect((await readBack(host, MiB)).equals(page('secret'))).toBe(true);
      expect((await readBack(host, 5 * MiB)).equals(page('secret'))).toBe(true);
      expect((await readBack(host, 3 * MiB)).equals(Buffer.alloc(64 * 1024))).toBe(true);
      const after = await cluster.api.volume('secret');
      expect(after).toMatchObject({ encryptedBy: keyId });
      expect(after.controller).not.toBe(active);
      await cluster.daemon(active).start();
    });
    await settled('secret');
    expect((await cluster.api.pruneClusterKeys()).removed).toHaveLength(1);
  });

  it('is served over NBD', async () => {
    const path = join(folder, 'nbd.sock');
    await cluster.api.attach('secret', { nbd: { path } });
    const seen = await cluster.waitForVolume('secret', 'exported over NBD', 20_000, (volume) =>
      volume.paths.some((at) => at.state === 'active' && at.nbd.length > 0),
    );
    const uri = seen.paths.flatMap((at) => at.nbd)[0]?.uri ?? '';
    const copy = join(keyFolder, 'copy');
    const ran = spawnSync('nbdcopy', [uri, copy]);
    expect(ran.status, String(ran.stderr)).toBe(0);
    const bytes = readFileSync(copy);
    expect(bytes.length).toBe(16 * MiB);
    expect(bytes.subarray(MiB, MiB + 64 * 1024).equals(page('secret'))).toBe(true);
    expect(bytes.subarray(3 * MiB, 4 * MiB).equals(Buffer.alloc(MiB))).toBe(true);
    await cluster.api.detach('secret', { nbd: { path } });
  });

  it('is opened by a program with the key file, and by no other', async () => {
    const api = cluster.api.endpoint.replace('http://', '');
    const { encryptedBy } = await cluster.api.volume('secret');
    const without = await Cluster.connect({ api });
    try {
      await expect(without.open('secret', { takeover: true })).rejects.toMatchObject({
        code: 'CLUSTER_KEY_MISSING',
        message: `volume secret needs cluster key ${encryptedBy}; held here: no cluster key`,
      });
    } finally {
      await without.close();
    }
    const withKey = await Cluster.connect({ api, clusterKey: keyPath });
    try {
      const volume = await withKey.open('secret', { takeover: true });
      expect((await volume.read(MiB, 64 * 1024)).equals(page('secret'))).toBe(true);
      await volume.write(7 * MiB, page('secret'));
      await volume.close();
    } finally {
      await withKey.close();
    }
    await settled('secret');
    await withHost('secret', async (host) => {
      expect((await readBack(host, 7 * MiB)).equals(page('secret'))).toBe(true);
    });
  });

  it('is refused with exactly that by controllers with a wrong key, which serve the others', async () => {
    await Promise.all(controllers.map((name) => cluster.daemon(name).kill()));
    const { encryptedBy } = await cluster.api.volume('secret');
    renameSync(keyPath, `${keyPath}.right`);
    const wrong = new ClusterKeyFile(keyPath, systemRandom);
    await wrong.create();
    const held = (await wrong.ring()).newest.id;
    await Promise.all(controllers.map((name) => cluster.daemon(name).start()));
    await settled('plain');
    const problem = `volume secret needs cluster key ${encryptedBy}; held here: ${held}`;
    await cluster.waitForVolume('secret', 'refused', 30_000, ({ health, paths }) => {
      return health === 'unserved' && paths.length === 2 && paths.every((path) => path.problem === problem);
    });
    renameSync(`${keyPath}.right`, keyPath);
    await settled('secret');
    await withHost('secret', async (host) => {
      expect((await readBack(host, MiB)).equals(page('secret'))).toBe(true);
    });
  });

  it('left no readable byte of itself or of a key on a disk, in the store, in a log or on a command line', async () => {
    const processes = join(folder, 'processes');
    mkdirSync(processes);
    for (const { pid } of cluster.daemons) if (pid !== undefined) copyProcess(pid, processes);
    await cluster.killAll();
    const keys = [...secrets].flatMap(([name, secret]) => formsOf(name, secret));
    expect(secrets.size, 'two cluster keys and the halves of the data key').toBe(4);
    const texts = ['plain', 'secret'].map((name): [string, Buffer] => [`text of ${name}`, text(name)]);
    const found = await findBytes(folder, new Map([...texts, ...keys]));
    // Two copies of it.
    const disks = found.filter(({ name, file }) => name === 'text of plain' && file.endsWith('.disk'));
    expect(disks.length).toBeGreaterThanOrEqual(2);
    expect(found.filter(({ name }) => name !== 'text of plain')).toEqual([]);
    // The search sees keys where they are.
    const inKeyFile = await findBytes(keyFolder, new Map(keys));
    expect(inKeyFile.map(({ name }) => name)).toContainEqual(expect.stringMatching(/^cluster key .* base64/));
    const logs = readdirSync(folder).filter((name) => name.endsWith('.log'));
    expect(logs).toHaveLength(7);
  });
});

/** What anybody on the machine sees of a process, and what only its owner does. */
function copyProcess(pid: number, to: string): void {
  for (const what of ['cmdline', 'environ']) spawnSync('cp', [`/proc/${pid}/${what}`, join(to, `${pid}.${what}`)]);
}
