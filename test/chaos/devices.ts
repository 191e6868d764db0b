// SPDX-License-Identifier: Apache-2.0
// The clients' ways to a volume: our NVMe/TCP initiator with a path to each controller, the volume driven by the client's
// own process, and NBD.

import { Cluster, type Volume } from '../../src/cluster.js';
import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import { systemClock } from '../../src/env/clock.js';
import type { BlockDevice } from './load.js';

export interface NvmeTarget {
  readonly nqn: string;
  readonly hostNqn: string;
  readonly paths: readonly { readonly traddr: string; readonly trsvcid: string }[];
}

export class NvmeDevice implements BlockDevice {
  private constructor(
    private readonly engine_: Engine,
    private readonly bdev_: BdevHandle,
  ) {}

  static async connect(target: NvmeTarget): Promise<NvmeDevice> {
    const engine = createNativeEngine();
    try {
      let names: string[] = [];
      for (const { traddr, trsvcid } of target.paths) {
        names = await engine.rpc('bdev_nvme_attach_controller', {
          name: 'chaos',
          trtype: 'TCP',
          traddr,
          trsvcid,
          subnqn: target.nqn,
          hostnqn: target.hostNqn,
          multipath: 'multipath',
          // Longer than any fault: what comes back in time must cost no error.
          ctrlr_loss_timeout_sec: 600,
          reconnect_delay_sec: 1,
          keep_alive_ms: 1000,
        });
      }
      return new NvmeDevice(engine, await engine.openBdev(names[0] ?? ''));
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  read(offsetBytes: number, into: Buffer): Promise<void> {
    return this.bdev_.read(offsetBytes, into);
  }
  write(offsetBytes: number, from: Buffer): Promise<void> {
    return this.bdev_.write(offsetBytes, from);
  }
  flush(): Promise<void> {
    return this.bdev_.flush();
  }
  allocate(bytes: number): Buffer {
    return Buffer.from(this.engine_.allocate(bytes));
  }
  async close(): Promise<void> {
    await this.bdev_.close();
    await this.engine_.close();
  }
}

const openMsMax = 120_000;
const retryMs = 200;

/** This process is the volume's controller. Opening takes the volume from an earlier one that died. */
export class EmbeddedDevice implements BlockDevice {
  private constructor(
    private readonly cluster_: Cluster,
    private readonly volume_: Volume,
  ) {}

  static async connect(target: { store: readonly string[]; volumeName: string }): Promise<EmbeddedDevice> {
    const end = systemClock.now() + openMsMax;
    for (;;) {
      try {
        const cluster = await Cluster.connect({ store: target.store });
        try {
          return new EmbeddedDevice(cluster, await cluster.open(target.volumeName, { takeover: true }));
        } catch (error) {
          await cluster.close();
          throw error;
        }
      } catch (error) {
        // The store or a disk may be under a fault just now.
        if (systemClock.now() > end) throw error;
        await systemClock.sleep(retryMs);
      }
    }
  }

  read(offsetBytes: number, into: Buffer): Promise<void> {
    return this.volume_.readInto(offsetBytes, into);
  }
  write(offsetBytes: number, from: Buffer): Promise<void> {
    return this.volume_.write(offsetBytes, from);
  }
  flush(): Promise<void> {
    return this.volume_.flush();
  }
  allocate(bytes: number): Buffer {
    return Buffer.from(this.cluster_.engine.allocate(bytes));
  }
  async close(): Promise<void> {
    await this.volume_.close();
    await this.cluster_.close();
  }
}
