// SPDX-License-Identifier: Apache-2.0
//
// The bytes that simulated clients write: every 512-byte sector names its volume, block, writer and sequence
// (docs/history-format.md, Stamps).

export const blockBytes = 4096;
const sectorBytes = 512;
const magic = 0x504d4154534c5342n;
const mask = (1n << 64n) - 1n;

export interface Stamp {
  readonly volume: number;
  readonly lba: number;
  readonly writer: number;
  readonly sequence: number;
}

export function writeStamp(block: Buffer, stamp: Stamp): void {
  const head = [magic, BigInt(stamp.volume), BigInt(stamp.lba), BigInt(stamp.writer), BigInt(stamp.sequence)];
  for (const [index, word] of head.entries()) block.writeBigUInt64LE(word, index * 8);
  const pattern = (BigInt(stamp.sequence) * 0x9e3779b97f4a7c15n + BigInt(stamp.lba)) & mask;
  for (let word = head.length; word < sectorBytes / 8; word++) {
    block.writeBigUInt64LE(pattern ^ BigInt(word), word * 8);
  }
  block.writeUInt32LE(crc32c(block.subarray(0, sectorBytes - 4)), sectorBytes - 4);
  for (let at = sectorBytes; at < blockBytes; at += sectorBytes) block.copy(block, at, 0, sectorBytes);
}

/** What a stamp of that volume begins with: 16 bytes, of which the first 8 are every stamp's. */
export function stampHead(volume: number): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64LE(magic);
  head.writeBigUInt64LE(BigInt(volume), 8);
  return head;
}

export type BlockValue = Stamp | 'zero' | 'torn' | 'garbage';

export function readStamp(block: Buffer): BlockValue {
  const first = readSector(block.subarray(0, sectorBytes));
  let same = true;
  for (let at = sectorBytes; at < blockBytes; at += sectorBytes) {
    if (block.compare(block, at, at + sectorBytes, 0, sectorBytes) === 0) continue;
    same = false;
    if (readSector(block.subarray(at, at + sectorBytes)) === 'garbage') return 'garbage';
  }
  if (same || first === 'garbage') return first;
  return 'torn';
}

function readSector(sector: Buffer): Stamp | 'zero' | 'garbage' {
  if (sector.every((byte) => byte === 0)) return 'zero';
  if (sector.readBigUInt64LE(0) !== magic) return 'garbage';
  if (sector.readUInt32LE(sectorBytes - 4) !== crc32c(sector.subarray(0, sectorBytes - 4))) return 'garbage';
  const word = (index: number): number => Number(sector.readBigUInt64LE(index * 8));
  return { volume: word(1), lba: word(2), writer: word(3), sequence: word(4) };
}

/** As histories write it. */
export function valueText(value: BlockValue, at: { volume: number; lba: number }): string {
  if (typeof value === 'string') return value;
  const place = value.lba === at.lba && value.volume === at.volume ? '' : `@${value.lba}`;
  return `w${value.writer}#${value.sequence}${place}${value.volume === at.volume ? '' : `:${value.volume}`}`;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}
