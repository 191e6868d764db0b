// SPDX-License-Identifier: Apache-2.0
//
// What a disk of a simulated cluster holds of what hosts wrote, wherever that has it: in replicas, logs, copies of snapshots,
// or where nothing refers to it any more. In clear, or as the ciphertext of an encrypted volume, whose key the reader has.

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { type BlockValue, blockBytes, readStamp, stampHead } from './stamp.js';

const cipher = 'aes-256-xts';
const unitBytes = 16;
const chunkBytes = 1024 * 1024;

export interface ReadableDisk {
  readonly sizeBytes: number;
  /** Fills `bytes`. */
  readonly read: (offsetBytes: number, bytes: Buffer) => void;
}

/** Of one volume. `dataKey` null: it is not encrypted. */
export interface Wanted {
  readonly volume: number;
  readonly countBlocks: number;
  readonly dataKey: Buffer | null;
}

/** By block of the volume: the disk's places that hold something that was written there. */
export function placesOnDisk(disk: ReadableDisk, wanted: Wanted): Map<number, number[]> {
  const { dataKey } = wanted;
  const read = dataKey === null ? readStamp : decryptingReader(wanted, dataKey);
  const places = new Map<number, number[]>();
  for (const { at, bytes } of chunksOf(disk)) {
    for (let block = 0; block < bytes.length; block += blockBytes) {
      const stamp = read(bytes.subarray(block, block + blockBytes));
      if (typeof stamp !== 'string' && stamp.volume === wanted.volume)
        places.set(stamp.lba, [...(places.get(stamp.lba) ?? []), at + block]);
    }
  }
  return places;
}

/** Where something that a host wrote can be read in clear by whoever has the disk, of any volume; null: nowhere. */
export function firstReadable(disk: ReadableDisk): number | null {
  const mark = stampHead(0).subarray(0, 8);
  for (const { at, bytes } of chunksOf(disk)) {
    // Stamps are in whole sectors, and so is everything that keeps blocks.
    const found = bytes.indexOf(mark);
    if (found !== -1) return at + found;
  }
  return null;
}

function* chunksOf(disk: ReadableDisk): Generator<{ at: number; bytes: Buffer }> {
  const bytes = Buffer.alloc(chunkBytes);
  for (let at = 0; at < disk.sizeBytes; at += bytes.length) {
    disk.read(at, bytes);
    yield { at, bytes };
  }
}

/** Data unit is the block, its number the tweak (docs/decisions/009-a-block-of-zeroes-was-never-written.md). */
function decryptingReader({ volume, countBlocks }: Wanted, dataKey: Buffer): (block: Buffer) => BlockValue {
  const numbers = new Map<string, Buffer>();
  const head = stampHead(volume);
  for (let lba = 0; lba < countBlocks; lba++) {
    const tweak = Buffer.alloc(unitBytes);
    tweak.writeBigUInt64LE(BigInt(lba));
    numbers.set(createCipheriv(cipher, dataKey, tweak).update(head).toString('base64'), tweak);
  }
  return (block) => {
    const tweak = numbers.get(block.toString('base64', 0, unitBytes));
    return tweak === undefined ? 'garbage' : readStamp(createDecipheriv(cipher, dataKey, tweak).update(block));
  };
}
