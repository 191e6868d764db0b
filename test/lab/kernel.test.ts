// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { isOfSeries, kernelPayload } from './kernel.js';

test('only the stock kernels of a series are taken', () => {
  expect(isOfSeries('6.1', 'linux-image-6.1.0-56-amd64')).toBe(true);
  expect(isOfSeries('6.12', 'linux-image-6.12.95+deb12-amd64')).toBe(true);
  expect(isOfSeries('6.1', 'linux-image-6.12.95+deb12-amd64')).toBe(false);
  expect(isOfSeries('6.12', 'linux-image-6.1.0-56-amd64')).toBe(false);
  expect(isOfSeries('6.1', 'linux-image-6.1.0-56-rt-amd64')).toBe(false);
});

function bzImage(magic: string): Buffer {
  const image = Buffer.alloc(4096);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt8(1, 0x1f1); // one setup sector beside the boot sector: the payload counts from 1024
  image.writeUInt32LE(100, 0x248);
  image.writeUInt32LE(54, 0x24c); // 50 bytes and the size that follows them
  Buffer.from(magic, 'hex').copy(image, 1124);
  return image;
}

test('the compressed kernel is found by the boot header, without the size that follows it', () => {
  const xz = kernelPayload(bzImage('fd377a585a00'));
  expect(xz?.program).toBe('xz');
  expect(xz?.compressed.length).toBe(50);
  expect(kernelPayload(bzImage('28b52ffd'))?.program).toBe('zstd');
});

test('what is not a kernel image has no payload', () => {
  expect(kernelPayload(Buffer.alloc(64))).toBeNull();
  expect(kernelPayload(Buffer.alloc(4096))).toBeNull();
  expect(kernelPayload(bzImage('00000000'))).toBeNull();
  expect(kernelPayload(bzImage('fd377a585a00').subarray(0, 1150))).toBeNull();
});
