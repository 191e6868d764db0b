// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { isUnpacked } from './equipment.js';
import { imageKey, parseLdd, parseShowDepends } from './image.js';

test('the cache key changes with the kernel, with any package version and with the equipment', () => {
  const kernel = { name: 'linux-image-6.1.0-56-amd64', version: '6.1.192-2' };
  const key = imageKey(kernel, 'fio 3.33-3\n', []);
  expect(imageKey({ ...kernel }, 'fio 3.33-3\n', [])).toBe(key);
  expect(imageKey({ ...kernel, version: '6.1.192-3' }, 'fio 3.33-3\n', [])).not.toBe(key);
  expect(imageKey(kernel, 'fio 3.33-4\n', [])).not.toBe(key);
  expect(imageKey(kernel, 'fio 3.33-3\n', ['xfs'])).not.toBe(key);
  expect(imageKey(kernel, 'fio 3.33-3\n', ['btrfs', 'xfs'])).toBe(imageKey(kernel, 'fio 3.33-3\n', ['xfs', 'btrfs']));
});

test("ldd's answer gives the libraries and the loader, not the virtual one", () => {
  const output = [
    '\tlinux-vdso.so.1 (0x00007ffd)',
    '\tlibnvme.so.1 => /lib/x86_64-linux-gnu/libnvme.so.1 (0x00007f00)',
    '\t/lib64/ld-linux-x86-64.so.2 (0x00007f01)',
  ].join('\n');
  expect(parseLdd(output, 'nvme')).toEqual(['/lib/x86_64-linux-gnu/libnvme.so.1', '/lib64/ld-linux-x86-64.so.2']);
  expect(parseLdd('\tnot a dynamic executable\n', 'busybox')).toEqual([]);
});

test('a library that the machine lacks is an error that names program and library', () => {
  expect(() => parseLdd('\tlibgone.so.1 => not found\n', 'nvme')).toThrow(/nvme: libgone\.so\.1/);
});

test("modprobe's answer gives the files of modules and leaves out what is built in", () => {
  expect(parseShowDepends('builtin virtio\ninsmod /r/lib/modules/6/a.ko\ninsmod /r/b.ko.xz opt=1\n')).toEqual([
    '/r/lib/modules/6/a.ko',
    '/r/b.ko.xz',
  ]);
});

test('libraries come along with a package, but not the base system, interpreters and compilers', () => {
  const asked = ['postgresql-15'];
  expect(['postgresql-15', 'libpq5', 'libicu72', 'libedit2'].every((name) => isUnpacked(name, asked))).toBe(true);
  const left = ['libc6', 'libgcc-s1', 'libstdc++6', 'libllvm14', 'libperl5.36', 'libjson-perl', 'perl', 'dpkg'];
  expect(left.filter((name) => isUnpacked(name, asked))).toEqual([]);
});
