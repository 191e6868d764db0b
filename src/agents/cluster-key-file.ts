// SPDX-License-Identifier: Apache-2.0
//
// The key file of a machine. It is read anew for every use: keys that were added by somebody else count at once, and no
// key stays in memory longer than it is needed.

import { createPrivateFile, PrivateFileError, readPrivateFile, replacePrivateFile } from '../env/private-file.js';
import type { Random } from '../env/random.js';
import { ClusterKey, clusterKeyBytes, KeyRing, type KeySource } from '../model/cluster-key.js';
import { BasaltError } from '../model/errors.js';

export class ClusterKeyFile implements KeySource {
  readonly path: string;
  readonly #random: Random;

  constructor(path: string, random: Random) {
    this.path = path;
    this.#random = random;
  }

  async ring(): Promise<KeyRing> {
    return KeyRing.parse(await this.#attempt(() => readPrivateFile(this.path)), this.path);
  }

  /** Makes the file with one key. False: there is one already; it was checked and left alone. */
  async create(): Promise<boolean> {
    const text = new KeyRing([this.#draw()]).toText();
    if (await this.#attempt(() => createPrivateFile(this.path, text))) return true;
    await this.ring();
    return false;
  }

  /** A new key, which is the newest from now on. */
  async add(): Promise<ClusterKey> {
    const { keys } = await this.ring();
    const key = this.#draw();
    await this.#attempt(() => replacePrivateFile(this.path, new KeyRing([...keys, key]).toText()));
    return key;
  }

  /** Takes keys out of the file; one always stays. */
  async remove(ids: ReadonlySet<string>): Promise<void> {
    const { keys, newest } = await this.ring();
    const stay = keys.filter((key) => key === newest || !ids.has(key.id));
    if (stay.length === keys.length) return;
    await this.#attempt(() => replacePrivateFile(this.path, new KeyRing(stay).toText()));
  }

  #draw(): ClusterKey {
    return new ClusterKey(this.#random.bytes(clusterKeyBytes));
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      const problem =
        cause instanceof PrivateFileError
          ? cause.problem
          : `cannot be written (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`;
      throw new BasaltError('CLUSTER_KEY_FILE', { path: this.path, problem }, { cause });
    }
  }
}
