// SPDX-License-Identifier: Apache-2.0
//
// KeyFile: a file of keys that only its user may read; the cluster's and the nodes' are such files.

import { createPrivateFile, PrivateFileError, readPrivateFile, replacePrivateFile } from '../env/private-file.js';
import type { Random } from '../env/random.js';
import { BasaltError } from '../model/errors.js';

/** What is in the file: `keys`, the newest last. */
interface Ring<Key> {
  readonly keys: readonly Key[];
  toText(): string;
}

export interface KeyFileKind<Key, R extends Ring<Key>> {
  readonly error: 'CLUSTER_KEY_FILE' | 'NODE_KEY_FILE';
  readonly keyBytes: number;
  readonly key: (bytes: Buffer) => Key;
  readonly ring: (keys: readonly Key[]) => R;
  readonly parse: (text: string, path: string) => R;
}

/** Every function throws the kind's error when the file cannot be used. */
export class KeyFile<Key, R extends Ring<Key>> {
  readonly path: string;
  readonly #random: Random;
  readonly #kind: KeyFileKind<Key, R>;

  constructor(path: string, random: Random, kind: KeyFileKind<Key, R>) {
    this.path = path;
    this.#random = random;
    this.#kind = kind;
  }

  async ring(): Promise<R> {
    return this.#kind.parse(await this.#attempt(() => readPrivateFile(this.path)), this.path);
  }

  /** Makes the file with one key. False: there is one already; it was checked and left alone. */
  async create(): Promise<boolean> {
    const text = this.#kind.ring([this.#draw()]).toText();
    if (await this.#attempt(() => createPrivateFile(this.path, text))) return true;
    await this.ring();
    return false;
  }

  /** A new key, which is the newest from now on. */
  async add(): Promise<Key> {
    const { keys } = await this.ring();
    const key = this.#draw();
    await this.replace([...keys, key]);
    return key;
  }

  protected replace(keys: readonly Key[]): Promise<void> {
    return this.#attempt(() => replacePrivateFile(this.path, this.#kind.ring(keys).toText()));
  }

  #draw(): Key {
    return this.#kind.key(this.#random.bytes(this.#kind.keyBytes));
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      const problem =
        cause instanceof PrivateFileError
          ? cause.problem
          : `cannot be written (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`;
      throw new BasaltError(this.#kind.error, { path: this.path, problem }, { cause });
    }
  }
}
