// SPDX-License-Identifier: Apache-2.0
//
// One process per store directory. The lock is an flock(2) on a file in it, taken through a
// short-lived helper on a descriptor that this process keeps: it belongs to the open file, so it falls
// with this process however that ends, holds across containers, and is never stale.

import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { BasaltError } from '../../model/errors.js';

const exitTaken = 75;

export class DirectoryLock {
  #descriptor: number | null;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** @throws {BasaltError} STORE_DIRECTORY_LOCKED while any process, this one included, holds it. */
  static take(directory: string, lockPath: string): DirectoryLock {
    const descriptor = openSync(lockPath, constants.O_RDWR | constants.O_CREAT, 0o600);
    const helper = spawnSync('flock', ['--exclusive', '--nonblock', '--conflict-exit-code', String(exitTaken), '3'], {
      stdio: ['ignore', 'ignore', 'pipe', descriptor],
    });
    if (helper.status === 0) return new DirectoryLock(descriptor);
    closeSync(descriptor);
    if (helper.status === exitTaken) throw new BasaltError('STORE_DIRECTORY_LOCKED', { directory });
    const problem = helper.error?.message ?? helper.stderr.toString().trim();
    throw new BasaltError('INTERNAL', { detail: `flock (package util-linux) on ${lockPath}: ${problem}` });
  }

  /** Lets go; a second call does nothing. */
  release(): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
  }
}
