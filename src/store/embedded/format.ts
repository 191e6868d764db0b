// SPDX-License-Identifier: Apache-2.0
//
// The file `FORMAT` of a store directory: what wrote it, and whether this version may touch it.
//
//   {"magic":"basalt-store","version":1,"compatible":0,"incompatible":0,"storeId":"<uuid>","state":"ready"}
//
// A version or an incompatible bit that is not known refuses the directory; a compatible bit that is
// not known is kept and ignored. `state` is "creating" until the first commit is on stable media.
//
// Invariants:  - nothing in the directory but `LOCK` is created or changed before this file was accepted
//              - it is replaced as a whole: temporary file, sync, rename, sync of the directory

import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BasaltError } from '../../model/errors.js';

const magic = 'basalt-store';
const formatVersion = 1;
const incompatibleKnown = 0;
const formatBytesMax = 4096;

export const formatFile = 'FORMAT';
export const lockFile = 'LOCK';
const temporaryFile = 'FORMAT.new';

export interface StoreFormat {
  readonly storeId: string;
  readonly compatible: number;
  readonly state: 'creating' | 'ready';
}

/**
 * What the directory holds, or null when it is empty and may become a store.
 * @throws {BasaltError} STORE_FORMAT_UNKNOWN, with the directory untouched.
 */
export function readFormat(directory: string): StoreFormat | null {
  const names = readdirSync(directory).filter((name) => name !== lockFile && name !== temporaryFile);
  if (names.length === 0) return null;
  if (!names.includes(formatFile)) refuse(directory, `it holds ${names[0]} but no file ${formatFile}`);
  const text = readFileSync(join(directory, formatFile));
  if (text.length > formatBytesMax) refuse(directory, `${formatFile} has ${text.length} bytes`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text.toString('utf8'));
  } catch {
    refuse(directory, `${formatFile} is not JSON`);
  }
  return checkFormat(directory, parsed);
}

export function writeFormat(directory: string, format: StoreFormat): void {
  const { storeId, compatible, state } = format;
  const text = JSON.stringify({
    magic,
    version: formatVersion,
    compatible,
    incompatible: incompatibleKnown,
    storeId,
    state,
  });
  const temporary = join(directory, temporaryFile);
  const descriptor = openSync(temporary, 'w', 0o600);
  try {
    writeFileSync(descriptor, `${text}\n`);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, join(directory, formatFile));
  syncDirectory(directory);
}

export function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function checkFormat(directory: string, parsed: unknown): StoreFormat {
  if (typeof parsed !== 'object' || parsed === null) return refuse(directory, `${formatFile} is not an object`);
  const fields = parsed as Record<string, unknown>;
  if (fields['magic'] !== magic) refuse(directory, `magic ${JSON.stringify(fields['magic'])}`);
  if (fields['version'] !== formatVersion) refuse(directory, `version ${JSON.stringify(fields['version'])}`);
  const incompatible = featureBits(directory, fields, 'incompatible');
  if ((incompatible & ~incompatibleKnown) !== 0)
    refuse(directory, `incompatible features 0x${incompatible.toString(16)}`);
  const { storeId, state } = fields;
  if (typeof storeId !== 'string' || storeId === '') return refuse(directory, 'no storeId');
  if (state !== 'creating' && state !== 'ready') return refuse(directory, `state ${JSON.stringify(state)}`);
  return { storeId, state, compatible: featureBits(directory, fields, 'compatible') };
}

function featureBits(directory: string, fields: Record<string, unknown>, name: string): number {
  const bits = fields[name];
  if (typeof bits === 'number' && Number.isInteger(bits) && bits >= 0 && bits < 2 ** 31) return bits;
  return refuse(directory, `${name} features ${JSON.stringify(bits)}`);
}

function refuse(directory: string, detail: string): never {
  throw new BasaltError('STORE_FORMAT_UNKNOWN', { directory, detail });
}
