// SPDX-License-Identifier: Apache-2.0
// The cluster of processes (test/integration/running-cluster.ts) as a guest uses it: its two paths, and kills of whoever
// is active. The daemons' logs end up in .cache/lab/logs.

import { join } from 'node:path';
import type { VolumeView } from '../../src/model/api.js';
import { RunningCluster, volumeName } from '../integration/running-cluster.js';
import { defaultCacheDir } from '../lab/image.js';
import { hostNqn } from '../lab/init.js';
import type { TwoPathTarget } from './two-path-target.js';

const MiB = 1024 * 1024;

export const volumeBytes = 64 * MiB;

export class ClusterTarget {
  private killed_: string | null = null;

  private constructor(private readonly running_: RunningCluster) {}

  /** Resolves when the volume is redundant, led, attached to the guest's host name, and the other controller stands by. */
  static async start(sizeBytes = volumeBytes): Promise<ClusterTarget> {
    const logFolder = join(defaultCacheDir(), 'logs');
    return new ClusterTarget(await RunningCluster.start({ host: hostNqn, sizeBytes, settledMsMax: 90_000, logFolder }));
  }

  settled(): Promise<VolumeView> {
    return this.running_.settled();
  }

  volume(): Promise<VolumeView> {
    return this.running_.volume();
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
    this.killed_ = await this.running_.activeController();
    await this.running_.cluster.daemon(this.killed_).kill();
  }

  /** Starts what killActive() killed; resolves when the cluster is whole again. */
  async restartKilled(): Promise<VolumeView> {
    if (this.killed_ === null) throw new Error('nothing was killed');
    await this.running_.cluster.daemon(this.killed_).start();
    this.killed_ = null;
    return this.settled();
  }

  /** Resolves when hosts may use the new size. */
  async grow(sizeBytes: number): Promise<VolumeView> {
    await this.running_.cluster.api.resizeVolume(volumeName, { sizeBytes });
    return this.running_.cluster.waitForVolume(
      volumeName,
      `${sizeBytes} bytes`,
      60_000,
      (volume) => volume.sizeBytes === sizeBytes,
    );
  }

  async stop(): Promise<void> {
    await this.running_.stop();
  }
}
