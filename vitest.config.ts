// SPDX-License-Identifier: Apache-2.0
// Forks: one JavaScript thread per process, so that a native crash ends one test file only. Twice as many as there are
// cores: the suites with real processes mostly wait for leases and time-outs.

import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  cacheDir: '.cache/vitest',
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts', 'bench/**/*.test.ts', 'scripts/**/*.test.{ts,mjs}'],
    pool: 'forks',
    maxWorkers: 2 * availableParallelism(),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    // A test that hangs the whole worker fails; nothing is retried.
    retry: 0,
    passWithNoTests: false,
  },
});
