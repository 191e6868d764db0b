// SPDX-License-Identifier: Apache-2.0
// The guest suites, one file at a time: a guest under software emulation wants both cores to itself.

import { defineConfig } from 'vitest/config';
import { chosenScenarios } from './scenarios.js';

export default defineConfig({
  cacheDir: '../../.cache/vitest-e2e',
  test: {
    root: import.meta.dirname,
    include: chosenScenarios(process.env['BASALT_LAB'] ?? 'ci').map(({ name }) => `${name}.e2e.ts`),
    pool: 'forks',
    fileParallelism: false,
    sequence: { concurrent: false },
    testTimeout: 600_000,
    hookTimeout: 180_000,
    teardownTimeout: 20_000,
  },
});
