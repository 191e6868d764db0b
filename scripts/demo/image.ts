// SPDX-License-Identifier: Apache-2.0
//
// The input: the user's own image, or an ext4 image that holds this project's files.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';

const MiB = 1024 * 1024;
const ownImageBytes = 512 * MiB;
const notInImage = new Set(['.git', '.cache', 'build']);

export interface Image {
  readonly path: string;
  readonly bytes: number;
  readonly isExt: boolean;
}

export function useImage(path: string): Image {
  if (!existsSync(path)) throw new Error(`${path}: no such file`);
  const info = statSync(path);
  if (!info.isFile() || info.size === 0) throw new Error(`${path}: must be a regular file that is not empty`);
  return { path, bytes: info.size, isExt: hasExtMagic(path) };
}

/** mke2fs fills the image from a folder; no mounting, no root. */
export function makeImage(root: string, folder: string): Image {
  const staging = join(folder, 'files');
  mkdirSync(staging, { recursive: true });
  const entries = readdirSync(root).filter((entry) => !notInImage.has(entry));
  // Hard links: nothing is copied before mke2fs does.
  execFileSync('cp', ['-al', ...entries.map((entry) => join(root, entry)), staging]);
  const path = join(folder, 'image.ext4');
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-E', 'root_owner=0:0', '-d', staging, path, `${ownImageBytes / 1024}k`]);
  rmSync(staging, { recursive: true });
  return { path, bytes: ownImageBytes, isExt: true };
}

/** `e2fsck -fn`: checks all, changes nothing. Returns its complaint, or null. */
export function checkFileSystem(path: string): string | null {
  try {
    execFileSync('e2fsck', ['-fn', path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    return null;
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    return `${stdout ?? ''}${stderr ?? ''}`.trim() || String(error);
  }
}

export function sha256OfFile(path: string): string {
  const hash = createHash('sha256');
  const chunk = Buffer.alloc(4 * MiB);
  const file = openSync(path, 'r');
  try {
    for (;;) {
      const got = readSync(file, chunk, 0, chunk.length, null);
      if (got === 0) return hash.digest('hex');
      hash.update(chunk.subarray(0, got));
    }
  } finally {
    closeSync(file);
  }
}

function hasExtMagic(path: string): boolean {
  const bytes = Buffer.alloc(2);
  const file = openSync(path, 'r');
  try {
    return readSync(file, bytes, 0, 2, 1024 + 56) === 2 && bytes.readUInt16LE(0) === 0xef53;
  } finally {
    closeSync(file);
  }
}
