// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { installCommand, isDebian12, labPackages, parseOsRelease } from './packages.js';

test('the distribution is read with and without quotes', () => {
  expect(parseOsRelease('NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n')).toEqual({
    id: 'debian',
    versionId: '12',
  });
  expect(parseOsRelease('ID_LIKE=debian\n')).toEqual({ id: '', versionId: '' });
});

test('outside Debian 12 its archive keys are needed to verify the kernel', () => {
  const names = (id: string, versionId: string) => labPackages({ id, versionId }).map((entry) => entry.name);
  expect(names('debian', '12')).not.toContain('debian-archive-keyring');
  expect(names('ubuntu', '24.04')).toContain('debian-archive-keyring');
  expect(isDebian12({ id: 'debian', versionId: '13' })).toBe(false);
});

test('the command for missing packages can be pasted', () => {
  expect(installCommand(['fio', 'cpio'])).toBe('apt-get install -y --no-install-recommends fio cpio');
});
