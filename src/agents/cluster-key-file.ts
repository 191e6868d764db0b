// SPDX-License-Identifier: Apache-2.0
//
// The key file of a machine. It is read anew for every use: keys that were added by somebody else count at once, and no
// key stays in memory longer than it is needed.

import type { Random } from '../env/random.js';
import { ClusterKey, clusterKeyBytes, KeyRing, type KeySource } from '../model/cluster-key.js';
import { KeyFile, type KeyFileKind } from './key-file.js';

const kind: KeyFileKind<ClusterKey, KeyRing> = {
  error: 'CLUSTER_KEY_FILE',
  keyBytes: clusterKeyBytes,
  key: (bytes) => new ClusterKey(bytes),
  ring: (keys) => new KeyRing(keys),
  parse: (text, path) => KeyRing.parse(text, path),
};

export class ClusterKeyFile extends KeyFile<ClusterKey, KeyRing> implements KeySource {
  constructor(path: string, random: Random) {
    super(path, random, kind);
  }

  /** Takes keys out of the file; one always stays. */
  async remove(ids: ReadonlySet<string>): Promise<void> {
    const { keys, newest } = await this.ring();
    const stay = keys.filter((key) => key === newest || !ids.has(key.id));
    if (stay.length < keys.length) await this.replace(stay);
  }
}
