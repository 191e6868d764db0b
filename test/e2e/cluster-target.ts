// SPDX-License-Identifier: Apache-2.0
// A cluster of real processes (store, API server, three disk nodes, two controller nodes) with one volume that a guest uses.
// Owner: the test that started it; stop() on every path, which keeps the logs in .cache/lab/logs. Daemons are killed by their
// own pid, also when this process exits.

import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import type { VolumeView } from '../../src/model/api.js';
import { checkoutDir, defaultCacheDir } from '../lab/image.js';
import { hostNqn } from '../lab/init.js';
import type { TwoPathTarget } from './two-path-target.js';

const MiB = 1024 * 1024;
const volumeName = 'vol1';
const settledMsMax = 90_000;

export const volumeBytes = 64 * MiB;

export class ClusterTarget {
  private killed_: string | null = null;

  private constructor(
    readonly cluster: DemoCluster,
    private readonly folder_: string,
    private readonly onExit_: () => void,
  ) {}

  /** Resolves when the volume is redundant, led, attached to the guest's host name, and the other controller stands by. */
  static async start(): Promise<ClusterTarget> {
    // Not /tmp, which may be a file system without O_DIRECT.
    const folder = await mkdtemp(join('/var/tmp', 'basalt-e2e-'));
    const basalt = join(checkoutDir(), 'dist', 'src', 'bin', 'basalt.js');
    const cluster = await DemoCluster.plan(folder, 256 * MiB, basalt);
    const onExit = (): void => cluster.killAllNow();
    process.once('exit', onExit);
    const target = new ClusterTarget(cluster, folder, onExit);
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
      await target.settled();
      return target;
    } catch (error) {
      await target.stop();
      throw error;
    }
  }

  settled(): Promise<VolumeView> {
    return this.cluster.waitForVolume(volumeName, 'redundant with both controllers up', settledMsMax, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && states.join(' ') === 'active standby' && volume.hosts.includes(hostNqn);
    });
  }

  volume(): Promise<VolumeView> {
    return this.cluster.api.volume(volumeName);
  }

  /** The two paths as a guest connects to them, the active controller's first. */
  async paths(): Promise<TwoPathTarget> {
    const volume = await this.settled();
    const port = (state: string): number => {
      const path = volume.paths.find((candidate) => candidate.state === state);
      if (path === undefined || path.address === null) throw new Error(`no ${state} path with an address`);
      return Number(path.address.trsvcid);
    };
    return { nqn: volume.nqn, ports: [port('active'), port('standby')], killActive: () => this.killActive() };
  }

  /** SIGKILL to the process that leads the volume. */
  async killActive(): Promise<void> {
    const { controller } = await this.volume();
    if (controller === null) throw new Error('nobody leads the volume');
    this.killed_ = controller;
    await this.cluster.daemon(controller).kill();
  }

  /** Starts what killActive() killed; resolves when the cluster is whole again. */
  async restartKilled(): Promise<VolumeView> {
    if (this.killed_ === null) throw new Error('nothing was killed');
    await this.cluster.daemon(this.killed_).start();
    this.killed_ = null;
    return this.settled();
  }

  async stop(): Promise<void> {
    process.off('exit', this.onExit_);
    await this.cluster.killAll();
    const logDir = join(defaultCacheDir(), 'logs');
    await mkdir(logDir, { recursive: true });
    for (const { name, logPath } of this.cluster.daemons) {
      // A daemon that was never started has none.
      if (existsSync(logPath)) await copyFile(logPath, join(logDir, `cluster-${name}.log`));
    }
    await rm(this.folder_, { recursive: true, force: true });
  }
}
