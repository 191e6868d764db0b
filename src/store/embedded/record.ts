// SPDX-License-Identifier: Apache-2.0
//
// The bytes of one stored event (format version 1). Numbers are big-endian.
//
//   table "kv", key:    0 u64 revision | 8 u32 index of the event within its revision
//   table "kv", value:  0 u32 CRC-32 of bytes 4.. | 4 u8 kind (1 put, 2 tombstone)
//                       5 u64 create revision | 13 u64 version | 21 u64 lease (0: none)
//                       29 u32 key length | 33 key | then the value to the end
//   table "lease", key: u64 lease;  value: 0 u32 CRC-32 of bytes 4.. | 4 u64 TTL in seconds
//   table "meta":       "compacted" → i64 revision | "identity" → see backend.ts
//
// Invariants:  - all events of one revision are written by one transaction of the file
//              - a record that fails its CRC is never used

import { crc32 } from 'node:zlib';
import type { Version } from './mvcc.js';

const headerBytes = 33;
const kindPut = 1;
const kindTombstone = 2;
const valueNone: Buffer = Buffer.alloc(0);

/** A stored record that does not decode: rot, or a file that is not ours. */
export class RecordDamaged extends Error {}

export function encodeRevisionKey(revision: number, index: number): Buffer {
  const bytes = Buffer.allocUnsafe(12);
  bytes.writeBigUInt64BE(BigInt(revision), 0);
  bytes.writeUInt32BE(index, 8);
  return bytes;
}

export function encodeVersion(event: Version): Buffer {
  const value = event.value ?? valueNone;
  const bytes = Buffer.allocUnsafe(headerBytes + event.key.length + value.length);
  bytes.writeUInt8(event.value === null ? kindTombstone : kindPut, 4);
  bytes.writeBigUInt64BE(BigInt(event.createRevision), 5);
  bytes.writeBigUInt64BE(BigInt(event.version), 13);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(event.lease)), 21);
  bytes.writeUInt32BE(event.key.length, 29);
  bytes.write(event.key, headerBytes, 'latin1');
  value.copy(bytes, headerBytes + event.key.length);
  return sealCrc(bytes);
}

export function decodeVersion(key: Buffer, bytes: Buffer): Version {
  if (key.length !== 12) throw new RecordDamaged(`kv key of ${key.length} bytes`);
  const name = `kv record ${key.toString('hex')}`;
  checkCrc(name, bytes, headerBytes);
  const kind = bytes.readUInt8(4);
  const keyLength = bytes.readUInt32BE(29);
  if (kind !== kindPut && kind !== kindTombstone) throw new RecordDamaged(`${name}: kind ${kind}`);
  if (keyLength > bytes.length - headerBytes) throw new RecordDamaged(`${name}: key length ${keyLength}`);
  return {
    key: bytes.toString('latin1', headerBytes, headerBytes + keyLength),
    modRevision: readNumber(name, key, 0),
    index: key.readUInt32BE(8),
    createRevision: readNumber(name, bytes, 5),
    version: readNumber(name, bytes, 13),
    lease: BigInt.asIntN(64, bytes.readBigUInt64BE(21)).toString(),
    value: kind === kindPut ? Buffer.from(bytes.subarray(headerBytes + keyLength)) : null,
  };
}

export function encodeLeaseKey(id: string): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(id)));
  return bytes;
}

export function decodeLeaseKey(key: Buffer): string {
  if (key.length !== 8) throw new RecordDamaged(`lease key of ${key.length} bytes`);
  return BigInt.asIntN(64, key.readBigUInt64BE()).toString();
}

export function encodeLease(ttlSeconds: number): Buffer {
  const bytes = Buffer.allocUnsafe(12);
  bytes.writeBigUInt64BE(BigInt(ttlSeconds), 4);
  return sealCrc(bytes);
}

export function decodeLease(bytes: Buffer): number {
  checkCrc('lease record', bytes, 12);
  return readNumber('lease record', bytes, 4);
}

export function sealCrc(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32(bytes.subarray(4)), 0);
  return bytes;
}

export function checkCrc(name: string, bytes: Buffer, lengthMin: number): void {
  if (bytes.length < lengthMin) throw new RecordDamaged(`${name}: ${bytes.length} bytes`);
  if (bytes.readUInt32BE(0) !== crc32(bytes.subarray(4))) throw new RecordDamaged(`${name}: wrong checksum`);
}

function readNumber(name: string, bytes: Buffer, offset: number): number {
  const value = bytes.readBigUInt64BE(offset);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RecordDamaged(`${name}: number ${value}`);
  return Number(value);
}
