// SPDX-License-Identifier: Apache-2.0
// Stamps of docs/history-format.md in TypeScript: what each block that a client writes is filled with, so that every value
// is unique and tearing, misdirection and another volume's bytes show. Pure. `native/check/stamp.cc` makes the same bytes.

export const blockBytes = 4096;
const sectorBytes = 512;
const magic = Buffer.from('BSLSTAMP', 'latin1');
const golden = 0x9e3779b97f4a7c15n;
const mask = 0xffff_ffff_ffff_ffffn;

export interface Stamp {
  readonly volume: bigint;
  readonly block: number;
  readonly writer: number;
  readonly sequence: number;
}

/** What a block holds: the words of the history format, and the sequence where it is one whole stamp. */
export interface BlockValue {
  readonly kind: 'zero' | 'stamp' | 'torn' | 'garbage';
  /** Of the first sector that has one. */
  readonly stamp: Stamp | null;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffff_ffff) >>> 0;
}

function sector(stamp: Stamp): Buffer {
  const out = Buffer.alloc(sectorBytes);
  magic.copy(out);
  out.writeBigUInt64LE(stamp.volume, 8);
  out.writeBigUInt64LE(BigInt(stamp.block), 16);
  out.writeBigUInt64LE(BigInt(stamp.writer), 24);
  out.writeBigUInt64LE(BigInt(stamp.sequence), 32);
  const base = (BigInt(stamp.sequence) * golden + BigInt(stamp.block)) & mask;
  const low = Number(base & 0xffff_ffffn);
  const high = Number(base >> 32n);
  // The last word is cut short by the checksum.
  for (let word = 5; word < 64; word++) {
    out.writeUInt32LE((low ^ word) >>> 0, word * 8);
    if (word < 63) out.writeUInt32LE(high, word * 8 + 4);
  }
  out.writeUInt32LE(crc32c(out.subarray(0, sectorBytes - 4)), sectorBytes - 4);
  return out;
}

export function writeStamp(into: Buffer, stamp: Stamp): void {
  const one = sector(stamp);
  for (let at = 0; at < blockBytes; at += sectorBytes) one.copy(into, at);
}

export function readStamp(block: Buffer): BlockValue {
  const kinds = new Set<string>();
  let stamp: Stamp | null = null;
  for (let at = 0; at < blockBytes; at += sectorBytes) {
    const bytes = block.subarray(at, at + sectorBytes);
    if (at > 0 && bytes.equals(block.subarray(0, sectorBytes))) continue;
    if (isZero(bytes)) {
      kinds.add('zero');
      continue;
    }
    const found = stampOf(bytes);
    if (found === null) return { kind: 'garbage', stamp };
    stamp ??= found;
    kinds.add(`${found.volume} ${found.block} ${found.writer} ${found.sequence}`);
  }
  if (kinds.size > 1) return { kind: 'torn', stamp };
  return stamp === null ? { kind: 'zero', stamp } : { kind: 'stamp', stamp };
}

/** The word of the history format for what was read at `block` of `volume`. */
export function valueText(value: BlockValue, volume: bigint, block: number): string {
  const { kind, stamp } = value;
  if (kind !== 'stamp' || stamp === null) return kind;
  const short = `w${stamp.writer}#${stamp.sequence}`;
  if (stamp.volume !== volume) return `${short}@${stamp.block}:${stamp.volume}`;
  return stamp.block === block ? short : `${short}@${stamp.block}`;
}

function stampOf(bytes: Buffer): Stamp | null {
  if (!bytes.subarray(0, 8).equals(magic)) return null;
  const [block, writer, sequence] = [16, 24, 32].map((at) => Number(bytes.readBigUInt64LE(at))) as [
    number,
    number,
    number,
  ];
  const stamp = { volume: bytes.readBigUInt64LE(8), block, writer, sequence };
  const whole = [block, writer, sequence].every(Number.isSafeInteger) && sector(stamp).equals(bytes);
  return whole ? stamp : null;
}

const zeroes = Buffer.alloc(sectorBytes);
function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeroes);
}
