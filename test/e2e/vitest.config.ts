// SPDX-License-Identifier: Apache-2.0
// The guest suites, one file at a time: a guest under software emulation wants both cores to itself.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  cacheDir: '../../.cache/vitest-e2e',
  test: {
    root: import.meta.dirname,
    include: ['boot.e2e.ts', 'selftest.e2e.ts', 'malloc.e2e.ts', 'failover.e2e.ts'],
    globalSetup: ['./global-setup.ts'],
    pool: 'forks',
    fileParallelism: false,
    sequence: { concurrent: false },
    testTimeout: 300_000,
    hookTimeout: 180_000,
    teardownTimeout: 20_000,
  },
});
