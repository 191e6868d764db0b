// SPDX-License-Identifier: Apache-2.0
//
// Which of some byte strings lie in which files of a folder: what a thief of the disks would see.

import { type FileHandle, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

export interface Found {
  readonly name: string;
  readonly file: string;
}

const chunkBytes = 4 * 1024 * 1024;

/** Of `wanted`, by name; each file and name once. Sparse and empty stretches are passed over quickly. */
export async function findBytes(folder: string, wanted: ReadonlyMap<string, Buffer>): Promise<Found[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const found: Found[] = [];
  for (const entry of entries.filter((each) => each.isFile())) {
    const path = join(entry.parentPath, entry.name);
    const file = await open(path);
    try {
      for (const name of await searchFile(file, wanted)) found.push({ name, file: path });
    } finally {
      await file.close();
    }
  }
  return found;
}

async function searchFile(file: FileHandle, wanted: ReadonlyMap<string, Buffer>): Promise<Set<string>> {
  const overlap = Math.max(...[...wanted.values()].map((bytes) => bytes.length)) - 1;
  const buffer = Buffer.alloc(chunkBytes + overlap);
  const zeroes = Buffer.alloc(chunkBytes + overlap);
  const names = new Set<string>();
  let kept = 0;
  for (let at = 0; ; ) {
    const { bytesRead } = await file.read(buffer, kept, chunkBytes, at);
    if (bytesRead === 0) return names;
    at += bytesRead;
    const chunk = buffer.subarray(0, kept + bytesRead);
    if (!chunk.equals(zeroes.subarray(0, chunk.length))) {
      for (const [name, bytes] of wanted) if (!names.has(name) && chunk.includes(bytes)) names.add(name);
    }
    kept = Math.min(overlap, chunk.length);
    buffer.copyWithin(0, chunk.length - kept, chunk.length);
  }
}

/** A secret in the forms in which it may have been written down. */
export function formsOf(name: string, secret: Buffer): [string, Buffer][] {
  const texts = { hex: secret.toString('hex'), HEX: secret.toString('hex').toUpperCase() };
  const base64 = [secret, secret.subarray(1), secret.subarray(2)].map((part) => part.toString('base64').slice(0, 24));
  return [
    [`${name} as bytes`, secret],
    ...Object.entries(texts).map(([form, text]): [string, Buffer] => [`${name} in ${form}`, Buffer.from(text)]),
    // At each of the three places that it may have in a longer text.
    ...base64.map((text, shift): [string, Buffer] => [`${name} in base64, ${shift}`, Buffer.from(text)]),
  ];
}
