// SPDX-License-Identifier: Apache-2.0

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bootTag } from './boot.js';

it('names the boot in eight digits, and says when the kernel does not tell', () => {
  const folder = mkdtempSync(join(tmpdir(), 'basalt-boot-'));
  try {
    const path = join(folder, 'boot_id');
    expect(bootTag(path)).toBeNull();
    writeFileSync(path, 'c0ffee00-0000-4000-8000-000000000001\n');
    const first = bootTag(path);
    expect(first).toMatch(/^[0-9a-f]{8}$/);
    expect(bootTag(path)).toBe(first);
    writeFileSync(path, 'c0ffee00-0000-4000-8000-000000000002\n');
    expect(bootTag(path)).not.toBe(first);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
