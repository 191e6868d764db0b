// SPDX-License-Identifier: Apache-2.0

import type { KeyStore } from '../../api/wrapping-key.js';
import { systemRandom } from '../../env/random.js';
import { ClusterKey, clusterKeyBytes, KeyRing } from '../../model/cluster-key.js';

/** A key file without a file. */
export class MemoryKeys implements KeyStore {
  keys: ClusterKey[] = [new ClusterKey(systemRandom.bytes(clusterKeyBytes))];

  ring(): Promise<KeyRing> {
    return Promise.resolve(new KeyRing([...this.keys]));
  }

  add(): Promise<ClusterKey> {
    const key = new ClusterKey(systemRandom.bytes(clusterKeyBytes));
    this.keys.push(key);
    return Promise.resolve(key);
  }

  remove(ids: ReadonlySet<string>): Promise<void> {
    this.keys = this.keys.filter((key) => !ids.has(key.id));
    return Promise.resolve();
  }
}
