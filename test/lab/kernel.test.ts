// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { debFileName, debianSources, kernelPayload, mirrorsNamed, parseKernelPackage } from './kernel.js';

const depends = 'linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n';
const policy = 'linux-image-6.1.0-56-amd64:\n  Installed: (none)\n  Candidate: 6.1.192-2\n';

test('the metapackage leads to one concrete 6.1 kernel', () => {
  expect(parseKernelPackage(depends, policy)).toEqual({ name: 'linux-image-6.1.0-56-amd64', version: '6.1.192-2' });
});

test('another series, or a package without a candidate, is not taken', () => {
  expect(parseKernelPackage(depends.replace('6.1.0-56', '6.12.3'), policy)).toBeNull();
  expect(parseKernelPackage(depends, policy.replace('6.1.192-2', '(none)'))).toBeNull();
  expect(parseKernelPackage('', '')).toBeNull();
});

test('an epoch in a version is escaped in the file name as apt does', () => {
  expect(debFileName({ name: 'linux-image-6.1.0-1-amd64', version: '1:6.1.2-1' })).toBe(
    'linux-image-6.1.0-1-amd64_1%3a6.1.2-1_amd64.deb',
  );
});

test('the error names each mirror that did not answer', () => {
  const output = [
    'Err:1 http://deb.example.org/debian bookworm InRelease',
    "  Could not resolve 'deb.example.org'",
    'E: Failed to fetch https://security.example.org/x.deb  404  Not Found',
  ].join('\n');
  expect(mirrorsNamed(output)).toBe('deb.example.org, security.example.org');
  expect(mirrorsNamed('E: something else')).toBe('the configured apt sources');
});

test('outside Debian the lists come from the given mirror, signed by Debian', () => {
  const sources = debianSources('http://mirror.example.org');
  expect(sources).toContain('http://mirror.example.org/debian bookworm main');
  expect(sources.match(/signed-by=/g)).toHaveLength(2);
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
