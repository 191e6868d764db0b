// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { debFileName, debianSources, mirrorsNamed, parseCandidate, parseInstalls } from './apt.js';

test('the candidate of a package is its version, and there may be none', () => {
  const policy = 'linux-image-6.1.0-56-amd64:\n  Installed: (none)\n  Candidate: 6.1.192-2\n';
  expect(parseCandidate('a', policy)).toEqual({ name: 'a', version: '6.1.192-2' });
  expect(parseCandidate('a', policy.replace('6.1.192-2', '(none)'))).toBeNull();
  expect(parseCandidate('a', '')).toBeNull();
});

test('a simulated installation names packages and versions', () => {
  const output = 'Inst libpq5 (15.20-0+deb12u1 Debian-Security:12 [amd64])\nConf libpq5 (15.20-0+deb12u1 x)\n';
  expect(parseInstalls(output)).toEqual([{ name: 'libpq5', version: '15.20-0+deb12u1' }]);
});

test('an epoch in a version is escaped in the file name as apt does', () => {
  expect(debFileName({ name: 'a', version: '1:6.1.2-1' })).toBe('a_1%3a6.1.2-1.deb');
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

test('lists of our own come from the given mirror, signed by Debian', () => {
  const sources = debianSources('http://mirror.example.org', 'bookworm');
  expect(sources).toContain('http://mirror.example.org/debian bookworm main');
  expect(sources.match(/signed-by=/g)).toHaveLength(2);
  expect(debianSources('http://mirror.example.org', 'bookworm-backports')).toContain('bookworm-backports main');
});
