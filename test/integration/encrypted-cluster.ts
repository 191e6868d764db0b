// SPDX-License-Identifier: Apache-2.0
//
// A cluster of processes with a plain and an encrypted volume of one form, and the eyes of a thief: everything that was
// ever written to files, and what shows of its processes, is searched for the volumes' text and for every key.
// Owner: the test that started it; stop() on every path.

import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { commandPath } from '../../scripts/demo/command-path.js';
import { ClusterKeyFile } from '../../src/agents/cluster-key-file.js';
import { readState } from '../../src/api/read-state.js';
import { systemRandom } from '../../src/env/random.js';
import type { VolumeView } from '../../src/model/api.js';
import { unwrapDataKey } from '../../src/model/cluster-key.js';
import type { Redundancy } from '../../src/model/pools.js';
import { openEtcdStore } from '../../src/store/etcd/etcd-store.js';
import { type Found, findBytes, formsOf } from './find-bytes.js';
import { hostNqn, TestHost } from './running-cluster.js';

const MiB = 1024 * 1024;

export const controllers = ['controller-1', 'controller-2'];
export const names = ['plain', 'secret'] as const;
export const sizeBytes = 16 * MiB;
export const pageBytes = 64 * 1024;

const lineOf = (volume: string): Buffer => Buffer.from(`what the tenant of ${volume} wrote down. `);

/** A stripe's worth of text that no other volume holds. */
export function page(volume: string): Uint8Array {
  const line = lineOf(volume);
  return Uint8Array.from({ length: pageBytes }, (_, index) => line[index % line.length] ?? 0);
}

export interface EncryptedClusterOptions {
  /** Of both volumes. @default two copies */
  readonly redundancy?: Redundancy;
}

export class EncryptedCluster {
  readonly cluster: DemoCluster;
  readonly folder: string;
  /** Not below the folder that is searched. */
  readonly keyFolder: string;
  readonly keyPath: string;
  /** Every key that was ever in use. */
  readonly secrets = new Map<string, Buffer>();

  private constructor(cluster: DemoCluster, folders: { folder: string; keyFolder: string; keyPath: string }) {
    this.cluster = cluster;
    this.folder = folders.folder;
    this.keyFolder = folders.keyFolder;
    this.keyPath = folders.keyPath;
  }

  static async start({ redundancy }: EncryptedClusterOptions = {}): Promise<EncryptedCluster> {
    const folder = await mkdtemp('/var/tmp/basalt-crypt-');
    const keyFolder = await mkdtemp('/var/tmp/basalt-keys-');
    const keyPath = join(keyFolder, 'cluster.key');
    const made = spawnSync(process.execPath, [commandPath(), 'key', 'create', '--file', keyPath]);
    expect(made.status, String(made.stderr)).toBe(0);
    // Their environment is looked at in the end, which they refuse otherwise.
    const environment = { BASALT_CORE_DUMPS: '1' };
    const cluster = await DemoCluster.plan({ folder, keyFile: keyPath, diskBytes: 128 * MiB, environment });
    const started = new EncryptedCluster(cluster, { folder, keyFolder, keyPath });
    try {
      await started.#begin(redundancy);
      return started;
    } catch (error) {
      await started.stop();
      throw error;
    }
  }

  async #begin(redundancy: Redundancy | undefined): Promise<void> {
    const { api } = this.cluster;
    await this.cluster.start();
    if (redundancy !== undefined) await api.createPool({ name: 'pool1', redundancy });
    const kept = redundancy === undefined ? { copies: 2 } : { pool: 'pool1' };
    for (const name of names) {
      await api.createVolume({ name, sizeBytes, ...kept, legs: 2, controllers, encrypt: name === 'secret' });
      await api.attach(name, { host: hostNqn });
    }
    for (const name of names) await this.settled(name);
    await this.noteKeys();
  }

  settled(name: string): Promise<VolumeView> {
    return this.cluster.waitForVolume(name, 'redundant with both controllers up', 60_000, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && states.join(' ') === 'active standby' && volume.hosts.includes(hostNqn);
    });
  }

  async noteKeys(): Promise<void> {
    const ring = await new ClusterKeyFile(this.keyPath, systemRandom).ring();
    for (const key of ring.keys) this.secrets.set(`cluster key ${key.id}`, Buffer.from(key.toText(), 'base64'));
    const { endpoints } = (await this.cluster.api.status()).store;
    const store = openEtcdStore({ endpoints: [...endpoints] });
    try {
      const volume = (await readState(store)).state.volumeByName('secret');
      if (volume?.encryption === undefined) throw new Error('the volume is not encrypted');
      const dataKey = unwrapDataKey(ring, { ...volume, encryption: volume.encryption });
      this.secrets.set('data key, first half', dataKey.subarray(0, 32));
      this.secrets.set('data key, second half', dataKey.subarray(32));
    } finally {
      await store.close();
    }
  }

  async withHost<T>(name: string, use: (host: TestHost) => Promise<T>): Promise<T> {
    const host = await TestHost.connect(await this.cluster.api.volume(name));
    try {
      return await use(host);
    } finally {
      await host.close();
    }
  }

  /**
   * Ends every process and looks. Of the plain volume text must be on as many disks as it has members that hold it, so
   * that the search can fail; of the encrypted one nothing may be anywhere, nor of any key outside of the key file.
   */
  async expectNothingReadable({ disksWithText }: { readonly disksWithText: number }): Promise<void> {
    const processes = join(this.folder, 'processes');
    mkdirSync(processes);
    for (const { pid } of this.cluster.daemons) if (pid !== undefined) copyProcess(pid, processes);
    await this.cluster.killAll();
    const keys = [...this.secrets].flatMap(([name, secret]) => formsOf(name, secret));
    const texts = names.map((name): [string, Buffer] => [`text of ${name}`, lineOf(name)]);
    const found = await findBytes(this.folder, new Map([...texts, ...keys]));
    const disks = found.filter(({ name, file }) => name === 'text of plain' && file.endsWith('.disk'));
    expect(disks.length).toBeGreaterThanOrEqual(disksWithText);
    expect(found.filter(({ name }): boolean => name !== 'text of plain')).toEqual([]);
    // The search sees keys where they are.
    const inKeyFile: Found[] = await findBytes(this.keyFolder, new Map(keys));
    expect(inKeyFile.map(({ name }) => name)).toContainEqual(expect.stringMatching(/^cluster key .* base64/));
  }

  async stop(): Promise<void> {
    await this.cluster.killAll();
    await rm(this.folder, { recursive: true, force: true });
    await rm(this.keyFolder, { recursive: true, force: true });
  }
}

export async function readBack(host: TestHost, offsetBytes: number, bytes = pageBytes): Promise<Buffer> {
  const into = new Uint8Array(host.engine.allocate(bytes));
  await host.bdev.read(offsetBytes, into);
  return Buffer.from(into);
}

/** What anybody on the machine sees of a process, and what only its owner does. */
function copyProcess(pid: number, to: string): void {
  for (const what of ['cmdline', 'environ']) spawnSync('cp', [`/proc/${pid}/${what}`, join(to, `${pid}.${what}`)]);
}
