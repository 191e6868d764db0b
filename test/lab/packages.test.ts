// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { installCommand, isDebian12, parseOsRelease } from './packages.js';

test('the distribution is read with and without quotes', () => {
  expect(parseOsRelease('NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n')).toEqual({
    id: 'debian',
    versionId: '12',
  });
  expect(parseOsRelease('ID_LIKE=debian\n')).toEqual({ id: '', versionId: '' });
});

test('only Debian 12 is Debian 12', () => {
  expect(isDebian12({ id: 'debian', versionId: '12' })).toBe(true);
  expect(isDebian12({ id: 'debian', versionId: '13' })).toBe(false);
});

test('the command for missing packages can be pasted', () => {
  expect(installCommand(['fio', 'cpio'])).toBe('apt-get install -y --no-install-recommends fio cpio');
});
