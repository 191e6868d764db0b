// SPDX-License-Identifier: Apache-2.0
//
// A host with a verifying load on the volume of a RunningCluster: what most tests of a cluster of processes begin with.
// Owner: the test; close() on every path.

import { type RunningCluster, TestHost } from './running-cluster.js';
import { type BlockOracle, type LoadReport, VerifyingLoad } from './verifying-load.js';

const waitMsMax = 60_000;

export class LoadedHost {
  readonly host: TestHost;
  readonly load: VerifyingLoad;

  private constructor(host: TestHost, load: VerifyingLoad) {
    this.host = host;
    this.load = load;
  }

  /** Resolves when the volume is whole and the load under way. */
  static async start(running: RunningCluster, oracle: BlockOracle, depth = 16): Promise<LoadedHost> {
    const host = await TestHost.connect(await running.settled());
    const loaded = new LoadedHost(host, new VerifyingLoad(host.engine, host.bdev, oracle));
    loaded.load.start(depth);
    await loaded.progress(500);
    return loaded;
  }

  /** So many more requests complete. */
  progress(count: number): Promise<void> {
    return this.load.progress(count, waitMsMax);
  }

  /** Ends the load and reads every block. Rejects when a request failed; the report names what was read wrong. */
  async finish(): Promise<LoadReport> {
    await this.load.stop();
    await this.load.verifyAll();
    return this.load.report();
  }

  close(): Promise<void> {
    return this.host.close();
  }
}
