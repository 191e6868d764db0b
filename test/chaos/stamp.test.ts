// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { blockBytes, crc32c, readStamp, valueText, writeStamp } from './stamp.js';

const stamp = { volume: 0x1234_5678_9abcn, block: 4097, writer: 3, sequence: 987_654 };

function stamped(): Buffer {
  const block = Buffer.alloc(blockBytes);
  writeStamp(block, stamp);
  return block;
}

test('the checksum is CRC32C', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
});

test('a stamp has the same bytes as the native one', () => {
  expect(createHash('sha256').update(stamped()).digest('hex')).toBe(
    '1ec1ff395255a5b18de77c7edbc68ca69734c2863663c00c8ed9ad10df45c307',
  );
});

test('what was written is read back, and named as the history format wants it', () => {
  const value = readStamp(stamped());
  expect(value).toEqual({ kind: 'stamp', stamp });
  expect(valueText(value, stamp.volume, 4097)).toBe('w3#987654');
  expect(valueText(value, stamp.volume, 5)).toBe('w3#987654@4097');
  expect(valueText(value, 2n, 4097)).toBe(`w3#987654@4097:${stamp.volume}`);
  expect(valueText(readStamp(Buffer.alloc(blockBytes)), 2n, 0)).toBe('zero');
});

test('a torn block and a changed byte are seen in every sector', () => {
  for (let sector = 0; sector < 8; sector++) {
    const torn = stamped();
    torn.fill(0, sector * 512, sector * 512 + 512);
    expect(readStamp(torn).kind).toBe('torn');
    const changed = stamped();
    changed.writeUInt8(changed.readUInt8(sector * 512 + 300) ^ 1, sector * 512 + 300);
    expect(readStamp(changed).kind).toBe('garbage');
  }
});
