// SPDX-License-Identifier: Apache-2.0
//
// The node key file of a machine. It is read once, when a daemon starts.

import { PrivateFileError } from '../env/private-file.js';
import type { Random } from '../env/random.js';
import { BasaltError } from '../model/errors.js';
import { NodeKey, NodeKeyRing, nodeKeyBytes } from '../model/node-key.js';
import { KeyFile, type KeyFileKind } from './key-file.js';

const kind: KeyFileKind<NodeKey, NodeKeyRing> = {
  error: 'NODE_KEY_FILE',
  keyBytes: nodeKeyBytes,
  key: (bytes) => new NodeKey(bytes),
  ring: (keys) => new NodeKeyRing(keys),
  parse: (text, path) => NodeKeyRing.parse(text, path),
};

export class NodeKeyFile extends KeyFile<NodeKey, NodeKeyRing> {
  constructor(path: string, random: Random) {
    super(path, random, kind);
  }

  /** null: there is no such file. @throws NODE_KEY_FILE when there is one that cannot be used */
  async ringIfAny(): Promise<NodeKeyRing | null> {
    try {
      return await this.ring();
    } catch (error) {
      if (error instanceof BasaltError && error.cause instanceof PrivateFileError && error.cause.missing) return null;
      throw error;
    }
  }
}
