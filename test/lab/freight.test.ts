// SPDX-License-Identifier: Apache-2.0

import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mustRun } from './command.js';
import { packFreight } from './freight.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-freight-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test('freight is a program in /usr/bin with its libraries where it looks for them, in whole sectors', async () => {
  const path = join(folder, 'freight.tar');
  await packFreight(path, ['/bin/bash']);
  const names = (await mustRun('tar', ['--list', '--file', path])).toString().split('\n');
  expect(names).toContain('./usr/bin/bash');
  expect(names.filter((name) => /\/ld-linux[^/]*$/.test(name))).toHaveLength(1);
  expect(names.filter((name) => /\/libc\.so\.6$/.test(name))).toHaveLength(1);
  expect((await stat(path)).size % 512).toBe(0);
  await expect(packFreight(path, [join(folder, 'missing')])).rejects.toThrow(/missing/);
});
