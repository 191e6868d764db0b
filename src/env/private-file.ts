// SPDX-License-Identifier: Apache-2.0
//
// Files with secrets: readable by their owner only, replaced as a whole or not at all.

import { constants, existsSync } from 'node:fs';
import { type FileHandle, link, mkdir, mkdtemp, open, rename, rm, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const bytesMax = 1024 * 1024;

/** `problem` says what is wrong with the file, without its path. */
export class PrivateFileError extends Error {
  constructor(
    readonly path: string,
    readonly problem: string,
    /** There is no such file. */
    readonly missing: boolean,
    options: { cause?: unknown } = {},
  ) {
    super(`${path}: ${problem}`, options);
    this.name = 'PrivateFileError';
  }
}

/** @throws PrivateFileError unless it is a regular file that is this user's (or root's) and nobody else may open it */
export async function readPrivateFile(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK).catch((cause) => {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new PrivateFileError(path, 'does not exist', true, { cause });
    throw new PrivateFileError(path, `cannot be opened (${code ?? String(cause)})`, false, { cause });
  });
  try {
    // Of what was opened: the name may lead elsewhere by now.
    const { mode, uid, size } = await file.stat().then((stat) => {
      if (!stat.isFile()) throw new PrivateFileError(path, 'is no regular file', false);
      return stat;
    });
    const access = mode & 0o777;
    if ((access & 0o077) !== 0)
      throw new PrivateFileError(path, `may be opened by others (mode ${octal(access)}); it must be 0600`, false);
    const me = process.getuid?.();
    if (me !== undefined && uid !== me && uid !== 0)
      throw new PrivateFileError(path, `belongs to user ${uid}, not to ${me} or root`, false);
    if (size > bytesMax) throw new PrivateFileError(path, `is larger than ${bytesMax} bytes`, false);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** Makes the file, durably, with the folders above it. False: there is one already, which was left alone. */
export async function createPrivateFile(path: string, text: string): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = await writeBeside(path, text);
  try {
    await link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await unlink(temporary);
  }
  await syncDirectory(path);
  return true;
}

/** As above, with what `make` gives. It is not asked when there is a file already, and no file stays when it fails. */
export async function fillPrivateFile(path: string, make: () => Promise<string>): Promise<boolean> {
  if (!(await createPrivateFile(path, ''))) return false;
  try {
    await replacePrivateFile(path, await make());
    return true;
  } catch (error) {
    await unlink(path).catch(() => {});
    throw error;
  }
}

/** Replaces the file, durably. */
export async function replacePrivateFile(path: string, text: string): Promise<void> {
  const temporary = await writeBeside(path, text);
  try {
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw error;
  }
  await syncDirectory(path);
}

/** Whether the path leads to anything at all. */
export function isThere(path: string): boolean {
  return existsSync(path);
}

/** A file for another process of this user, for a moment. */
export async function lendPrivateFile(text: string): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'basalt-'));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const path = join(folder, 'secret');
  try {
    await written(await open(path, 'wx', 0o600), text);
  } catch (error) {
    await remove();
    throw error;
  }
  return { path, remove };
}

async function writeBeside(path: string, text: string): Promise<string> {
  const temporary = `${path}.${process.pid}.new`;
  // What a process of this number left behind when it was killed.
  await unlink(temporary).catch(() => {});
  const file = await open(temporary, 'wx', 0o600);
  await written(file, text).catch(async (error: unknown) => {
    await unlink(temporary).catch(() => {});
    throw error;
  });
  return temporary;
}

async function written(file: FileHandle, text: string): Promise<void> {
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function octal(mode: number): string {
  return `0${mode.toString(8).padStart(3, '0')}`;
}
