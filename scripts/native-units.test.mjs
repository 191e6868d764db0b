// SPDX-License-Identifier: Apache-2.0
// Goal: files of native/ become the right build targets, linked with what they need and nothing else.
// Method: small trees in a temporary folder.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { addon_amalgams, cmake_lists, scan_native, test_amalgams, test_targets } from './native-units.mjs';

let folder;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-units-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function scan(files) {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return scan_native(folder);
}

const tree = {
  'base/crc.h': '',
  'base/crc.cc': '#include "base/crc.h"\n',
  'bdev/bdev.h': '#include "base/crc.h"\n',
  'bdev/file/file.h': '#include "bdev/bdev.h"\n',
  'bdev/file/file.cc': '#include "bdev/file/file.h"\n',
  'bdev/file/file_test.cc': '#include "bdev/file/file.h"\n',
  'bdev/lvol/lvol.cc': '#include "bdev/bdev.h"\n',
  'bdev/lvol/journal_fuzz.cc': '#include "bdev/bdev.h"\n',
  'napi/addon.cc': '',
  'engined/main.cc': '#include "bdev/file/file.h"\n',
  'sim/world.cc': '',
};

function listed(text, name) {
  const body = new RegExp(`^set\\(${name}((?:\\n {2}"[^"]*")*)\\)`, 'm').exec(text)?.[1];
  return body === undefined ? undefined : [...body.matchAll(/"([^"]*)"/g)].map((match) => match[1]);
}

it('a test links the units that its includes reach, directly and through other units, and no others', () => {
  expect(listed(cmake_lists(scan(tree)), 'test_bdev_file_UNITS')).toEqual(['unit_base', 'unit_bdev_file']);
});

it('a unit reached only through a header of another unit is linked too', () => {
  expect(listed(cmake_lists(scan(tree)), 'fuzz_journal_UNITS')).toEqual(['unit_base']);
});

it('the addon compiles engine and binding files, never tests, fuzzers, programs or the simulator', () => {
  const text = [...addon_amalgams(scan(tree)).values()].join('');
  const paths = [...text.matchAll(/^#include "([^"]+)"$/gm)].map((match) => match[1]);
  expect(paths).toEqual(['base/crc.cc', 'bdev/file/file.cc', 'bdev/lvol/lvol.cc', 'napi/addon.cc']);
});

it('engined is a program and each folder with tests or fuzz targets is one test program', () => {
  const files = scan(tree);
  expect(listed(cmake_lists(files), 'BASALT_PROGRAM_TARGETS')).toEqual(['engined']);
  expect(test_targets(files)).toEqual(['test_bdev_file', 'test_bdev_lvol']);
});

it('a fuzz target is a program of its own, and replays its corpus in the test program of its folder', () => {
  const text = cmake_lists(scan(tree));
  expect(listed(text, 'BASALT_FUZZ_TARGETS')).toEqual(['fuzz_journal']);
  expect(listed(text, 'test_bdev_lvol_SOURCES')).toEqual([`\${BASALT_NATIVE_DIR}/bdev/lvol/journal_fuzz.cc`]);
});

it('files that include each other in a circle end the search', () => {
  const circle = { 'a/a.cc': '#include "b/b.h"\n', 'a/a.h': '', 'b/b.h': '', 'b/b.cc': '#include "a/a.h"\n' };
  const text = cmake_lists(scan({ ...circle, 'a/a_test.cc': '#include "a/a.h"\n' }));
  expect(listed(text, 'test_a_UNITS')).toEqual(['unit_a', 'unit_b']);
});

it('an empty tree gives empty lists', () => {
  expect(listed(cmake_lists(scan({})), 'BASALT_UNITS')).toEqual([]);
});

it('test files of an amalgam may use the same words, name what they include from the top, and keep their lines', () => {
  const unnamed = (text) => `namespace basalt {\nnamespace {\n${text}\n}  // namespace\n}  // namespace basalt\n`;
  const files = scan({
    'b/disk.h': '',
    'b/disk.cc': '',
    'b/one_test.cc': `#include "disk.h"\nnamespace {\nint count;\n}  // namespace\n\n${unnamed('int limit;')}`,
    'b/two_test.cc': `#include <vector>\n#include "b/disk.h"\n${unnamed('char limit;')}`,
  });
  const [[name, text], ...others] = test_amalgams(files, folder);
  expect(others).toEqual([]);
  expect(name).toBe('test_b_0.cc');
  expect(listed(cmake_lists(files), 'test_b_AMALGAMS')).toEqual([`\${BASALT_AMALGAMS_DIR}/test_b_0.cc`]);
  const [, one, two] = text.split(/^#line 1 /m);
  expect(one.split('\n').slice(0, 8)).toEqual([
    `"${join(folder, 'b/one_test.cc')}"`,
    '#include "b/disk.h"',
    'namespace {',
    'int count;',
    '}  // namespace',
    '',
    'namespace basalt {',
    'namespace in_one_test {',
  ]);
  expect(two).toContain('namespace basalt {\nnamespace in_two_test {\nchar limit;');
});

it('a program of many test files has several amalgams, which hold each file once', () => {
  const names = Array.from({ length: 30 }, (_, number) => `b/t${number}_test.cc`);
  const amalgams = test_amalgams(scan(Object.fromEntries(names.map((name) => [name, '']))), folder);
  expect([...amalgams.keys()]).toEqual(['test_b_0.cc', 'test_b_1.cc', 'test_b_2.cc']);
  const held = [...amalgams.values()].join('').match(/b\/t\d+_test\.cc/g);
  expect(held.sort()).toEqual(names.sort());
});
