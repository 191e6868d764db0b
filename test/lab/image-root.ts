// SPDX-License-Identifier: Apache-2.0
// The tree that becomes a guest's initramfs. Its links are written for the guest, so on this machine they point at this
// machine's own files.
// Invariant: nothing is ever written through a link: what stands at a place is removed before something else is put there,
// and a folder on the way that is a link is refused.

import { constants } from 'node:fs';
import { chmod, copyFile, lstat, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { LabError } from './errors.js';

export class ImageRoot {
  /** @param dir where the tree stands on this machine */
  constructor(readonly dir: string) {}

  async folder(place: string): Promise<void> {
    let path = this.dir;
    await mkdir(path, { recursive: true });
    for (const part of this.inside(place).split('/').filter(Boolean)) {
      path = join(path, part);
      const there = await lstat(path).catch(() => null);
      if (there === null) await mkdir(path);
      else if (!there.isDirectory()) {
        throw new LabError('LAB_IMAGE_BROKEN', `${place}: ${path} is in the way and is no folder`);
      }
    }
  }

  /** Copies `source`, or what it links to, to `place` (a path of the guest); the mode comes along. */
  async file(source: string, place: string): Promise<void> {
    await copyFile(source, await this.clear(place), constants.COPYFILE_EXCL);
  }

  async text(text: string | Uint8Array, place: string, mode = 0o644): Promise<void> {
    const path = await this.clear(place);
    await writeFile(path, text, { flag: 'wx' });
    await chmod(path, mode);
  }

  /** `target` as the guest will read it. */
  async link(target: string, place: string): Promise<void> {
    await symlink(target, await this.clear(place));
  }

  async has(place: string): Promise<boolean> {
    return (await lstat(join(this.dir, this.inside(place))).catch(() => null)) !== null;
  }

  private async clear(place: string): Promise<string> {
    await this.folder(dirname(this.inside(place)));
    const path = join(this.dir, this.inside(place));
    await rm(path, { force: true });
    return path;
  }

  /** `place` without any `..` that leads out of the tree. */
  private inside(place: string): string {
    return normalize(`/${place}`);
  }
}
