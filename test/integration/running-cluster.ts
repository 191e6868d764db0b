// SPDX-License-Identifier: Apache-2.0
//
// A cluster of real processes for one test file: three disk nodes, two controller nodes, an API server and the store,
// with one volume that this process uses as a host with two paths.

import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { packageRoot } from '../../src/engine/native/addon.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import type { VolumeView } from '../../src/model/api.js';

export const volumeName = 'vol1';
export const hostNqn = 'nqn.2026-01.io.basalt:host:test';
export const volumeBytes = 32 * 1024 * 1024;
const MiB = 1024 * 1024;

export class RunningCluster {
  readonly cluster: DemoCluster;
  readonly folder: string;

  private constructor(cluster: DemoCluster, folder: string) {
    this.cluster = cluster;
    this.folder = folder;
  }

  /** `environment` is added to every daemon's. */
  static async start(environment: Readonly<Record<string, string>> = {}): Promise<RunningCluster> {
    const root = packageRoot();
    // Not /tmp, which may be a file system without O_DIRECT.
    const folder = mkdtempSync(join('/var/tmp', 'basalt-cluster-'));
    const cluster = await DemoCluster.plan(
      folder,
      256 * MiB,
      join(root, 'dist', 'src', 'bin', 'basalt.js'),
      environment,
    );
    const running = new RunningCluster(cluster, folder);
    try {
      await cluster.start();
      await cluster.api.createVolume({
        name: volumeName,
        sizeBytes: volumeBytes,
        copies: 2,
        legs: 4,
        controllers: ['controller-1', 'controller-2'],
      });
      await cluster.api.attach(volumeName, { host: hostNqn });
      await running.settled();
      return running;
    } catch (error) {
      await cluster.killAll();
      throw error;
    }
  }

  /** Redundant, with one controller active and the other on standby. */
  settled(): Promise<VolumeView> {
    return this.cluster.waitForVolume(volumeName, 'redundant with both controllers up', 60_000, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && states.join(' ') === 'active standby' && volume.hosts.includes(hostNqn);
    });
  }

  volume(): Promise<VolumeView> {
    return this.cluster.api.volume(volumeName);
  }

  async stop(): Promise<void> {
    await this.cluster.killAll();
    rmSync(this.folder, { recursive: true, force: true });
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

  static async connect(volume: VolumeView): Promise<TestHost> {
    const engine = createNativeEngine();
    let names: string[] = [];
    for (const path of volume.paths) {
      if (path.address === null) throw new Error(`${path.node} has no address for hosts`);
      names = await engine.rpc('bdev_nvme_attach_controller', {
        name: 'host',
        trtype: 'TCP',
        traddr: path.address.traddr,
        trsvcid: `${path.address.trsvcid}`,
        subnqn: volume.nqn,
        hostnqn: hostNqn,
        multipath: 'multipath',
        ctrlr_loss_timeout_sec: 60,
        reconnect_delay_sec: 1,
        keep_alive_ms: 1000,
      });
    }
    return new TestHost(engine, await engine.openBdev(names[0] ?? 'hostn1'));
  }

  async close(): Promise<void> {
    await this.bdev.close();
    await this.engine.close();
  }
}
