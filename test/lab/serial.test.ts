// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { diedOfEmulator, parseControlExit, parseDmesg, parseGuestExit, parseValues } from './serial.js';

test('the exit code is the last report, also behind a kernel message on the same line', () => {
  expect(parseGuestExit(['boot', 'GUEST-EXIT rc=0'])).toBe(0);
  expect(parseGuestExit(['GUEST-EXIT rc=1', 'GUEST-EXIT rc=23 '])).toBe(23);
  expect(parseGuestExit(['[    4.1] nvme nvme0: resetGUEST-EXIT rc=4'])).toBe(4);
});

test('a console without a whole report has no exit code', () => {
  expect(parseGuestExit([])).toBeNull();
  expect(parseGuestExit(['GUEST-EXIT rc='])).toBeNull();
  expect(parseGuestExit(['GUEST-EXIT rc=0x', 'GUEST-EXI'])).toBeNull();
  expect(parseControlExit(['MARK EXIT 3', 'EXIT'])).toBeNull();
  expect(parseControlExit(['MARK a', 'EXIT 3'])).toBe(3);
});

test('a kernel died of the emulator only when nothing of ours had begun', () => {
  const oops = '[    2.320845] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI';
  expect(diedOfEmulator(['[    0.0] Linux version', oops])).toBe(true);
  expect(diedOfEmulator(['GUEST-START kernel=6.12 uptime=3.1', oops])).toBe(false);
  expect(diedOfEmulator(['[    2.3] Oops: 0002 [#1] PREEMPT SMP NOPTI', 'Kernel panic'])).toBe(false);
});

test('values come back with spaces, as files, and the last of a key counts', () => {
  const file = Buffer.from('two\nlines\n').toString('base64');
  const values = parseValues([
    'VALUE a one two ',
    'MARK VALUE',
    `VALUE file base64:${file}`,
    'VALUE a three',
    'VALUE e ',
  ]);
  expect(Object.fromEntries(values)).toEqual({ a: 'three', file: 'two\nlines\n', e: '' });
});

test('kernel messages are what stands between the marks, cut short or not', () => {
  expect(parseDmesg(['x', 'GUEST-DMESG-BEGIN', 'm1', 'm2', 'GUEST-DMESG-END', 'y'])).toEqual(['m1', 'm2']);
  expect(parseDmesg(['GUEST-DMESG-BEGIN', 'm1'])).toEqual(['m1']);
  expect(parseDmesg(['x'])).toEqual([]);
});
