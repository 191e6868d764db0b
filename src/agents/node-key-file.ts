// SPDX-License-Identifier: Apache-2.0
//
// The node key file of a machine. It is read once, when a daemon starts.

import { createPrivateFile, PrivateFileError, readPrivateFile, replacePrivateFile } from '../env/private-file.js';
import type { Random } from '../env/random.js';
import { BasaltError } from '../model/errors.js';
import { NodeKey, NodeKeyRing, nodeKeyBytes } from '../model/node-key.js';

export class NodeKeyFile {
  readonly path: string;
  readonly #random: Random;

  constructor(path: string, random: Random) {
    this.path = path;
    this.#random = random;
  }

  /** @throws NODE_KEY_FILE */
  async ring(): Promise<NodeKeyRing> {
    return NodeKeyRing.parse(await this.#attempt(() => readPrivateFile(this.path)), this.path);
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

  /** Makes the file with one key. False: there is one already; it was checked and left alone. */
  async create(): Promise<boolean> {
    const text = new NodeKeyRing([this.#draw()]).toText();
    if (await this.#attempt(() => createPrivateFile(this.path, text))) return true;
    await this.ring();
    return false;
  }

  /** A new key, which daemons that start from now on use. */
  async add(): Promise<NodeKey> {
    const { keys } = await this.ring();
    const key = this.#draw();
    await this.#attempt(() => replacePrivateFile(this.path, new NodeKeyRing([...keys, key]).toText()));
    return key;
  }

  #draw(): NodeKey {
    return new NodeKey(this.#random.bytes(nodeKeyBytes));
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      const problem =
        cause instanceof PrivateFileError
          ? cause.problem
          : `cannot be written (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`;
      throw new BasaltError('NODE_KEY_FILE', { path: this.path, problem }, { cause });
    }
  }
}
