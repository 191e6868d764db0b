// SPDX-License-Identifier: Apache-2.0
//
// A cluster of real processes for one test file: three disk nodes, two controller nodes, an API server and the store,
// with one volume that a host uses over a path to each controller.
// Owner: the test that started it; stop() on every path. Daemons die with this process, however it ends.

import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type ClusterOptions, DemoCluster } from '../../scripts/demo/cluster.js';
import type { KeyNames } from '../../src/engine/descriptions.js';
import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import type { VolumeView } from '../../src/model/api.js';
import type { Redundancy } from '../../src/model/pools.js';

export const volumeName = 'vol1';
export const hostNqn = 'nqn.2026-01.io.basalt:host:test';
export const volumeBytes = 32 * 1024 * 1024;
const MiB = 1024 * 1024;

export interface RunningClusterOptions
  extends Pick<ClusterOptions, 'environment' | 'store' | 'place' | 'keyFile' | 'nodeArguments'> {
  /** Who may connect. @default hostNqn */
  readonly host?: string;
  /** @default volumeBytes */
  readonly sizeBytes?: number;
  /** Of the volume's pool. @default two copies */
  readonly redundancy?: Redundancy;
  /** How long it may take to be whole. @default 60_000 */
  readonly settledMsMax?: number;
  /** Where the daemons' logs are kept, as `cluster-<name>.log`. @default nowhere */
  readonly logFolder?: string;
}

export class RunningCluster {
  readonly cluster: DemoCluster;
  readonly folder: string;
  readonly #options: RunningClusterOptions;
  readonly #host: string;

  private constructor(cluster: DemoCluster, folder: string, options: RunningClusterOptions) {
    this.cluster = cluster;
    this.folder = folder;
    this.#options = options;
    this.#host = options.host ?? hostNqn;
  }

  static async start(options: RunningClusterOptions = {}): Promise<RunningCluster> {
    // Not /tmp, which may be a file system without O_DIRECT.
    const folder = await mkdtemp(join('/var/tmp', 'basalt-cluster-'));
    const sizeBytes = options.sizeBytes ?? volumeBytes;
    const diskBytes = Math.max(256 * MiB, 2 * sizeBytes);
    const cluster = await DemoCluster.plan({ ...options, folder, diskBytes });
    const running = new RunningCluster(cluster, folder, options);
    try {
      await cluster.start();
      const controllers = ['controller-1', 'controller-2'];
      const { redundancy } = options;
      if (redundancy !== undefined) await cluster.api.createPool({ name: 'pool1', redundancy });
      const kept = redundancy === undefined ? { copies: 2 } : { pool: 'pool1' };
      await cluster.api.createVolume({ name: volumeName, sizeBytes, ...kept, legs: 4, controllers });
      await cluster.api.attach(volumeName, { host: running.#host });
      await running.settled();
      return running;
    } catch (error) {
      await running.stop();
      throw error;
    }
  }

  /** Redundant, with one controller active and the other on standby. */
  settled(): Promise<VolumeView> {
    const msMax = this.#options.settledMsMax ?? 60_000;
    return this.cluster.waitForVolume(volumeName, 'redundant with both controllers up', msMax, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return (
        volume.health === 'redundant' && states.join(' ') === 'active standby' && volume.hosts.includes(this.#host)
      );
    });
  }

  volume(): Promise<VolumeView> {
    return this.cluster.api.volume(volumeName);
  }

  /** Who drives the volume. */
  async activeController(): Promise<string> {
    const { controller } = await this.volume();
    if (controller === null) throw new Error('nobody drives the volume');
    return controller;
  }

  async stop(): Promise<void> {
    await this.cluster.killAll();
    const { logFolder } = this.#options;
    if (logFolder !== undefined) await this.#keepLogs(logFolder);
    await rm(this.folder, { recursive: true, force: true });
  }

  async #keepLogs(logFolder: string): Promise<void> {
    await mkdir(logFolder, { recursive: true });
    for (const { name, logPath } of this.cluster.daemons) {
      // A daemon that was never started has none.
      if (existsSync(logPath)) await copyFile(logPath, join(logFolder, `cluster-${name}.log`));
    }
  }
}

/** The volume as a host sees it. */
export class TestHost {
  readonly engine: Engine;
  readonly bdev: BdevHandle;

  private constructor(engine: Engine, bdev: BdevHandle) {
    this.engine = engine;
    this.bdev = bdev;
  }

  /** `keys`: names of files, by what the host proves itself with; with a `psk` it comes by TLS. */
  static async connect(volume: VolumeView, host = hostNqn, keys: Readonly<KeyNames> = {}): Promise<TestHost> {
    const engine = createNativeEngine();
    try {
      for (const path of new Set(Object.values(keys))) await engine.rpc('keyring_file_add_key', { name: path, path });
      let names: string[] = [];
      for (const { node, address, tlsAddress } of volume.paths) {
        const path = { node, address: keys.psk === undefined ? address : tlsAddress };
        if (path.address === null) throw new Error(`${path.node} has no address for hosts`);
        names = await engine.rpc('bdev_nvme_attach_controller', {
          name: 'host',
          trtype: 'TCP',
          traddr: path.address.traddr,
          trsvcid: `${path.address.trsvcid}`,
          subnqn: volume.nqn,
          hostnqn: host,
          multipath: 'multipath',
          ctrlr_loss_timeout_sec: 120,
          reconnect_delay_sec: 1,
          keep_alive_ms: 1000,
          ...keys,
        });
      }
      return new TestHost(engine, await engine.openBdev(names[0] ?? 'hostn1'));
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.bdev.close();
    await this.engine.close();
  }
}
