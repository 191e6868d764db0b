// SPDX-License-Identifier: Apache-2.0
// Forks: one JavaScript thread per process. What uses the addon has a process for each file, so that a native crash ends one
// file only; what is TypeScript alone shares processes, where half of its time would be importing the same modules again.
// Twice as many processes as there are cores: the suites with real processes mostly wait for leases and time-outs.

import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const plain = [
  'src/{agents,api,cli,client,env,model,placement,reconcile,store}/**/*.test.ts',
  'bench/**/*.test.ts',
  'test/{chaos,e2e,lab,tidy}/**/*.test.ts',
];

/** What takes longest begins first, so that nothing runs alone at the end. */
const slowest = ['src/sim/planted-bugs', 'test/integration/', 'src/sim/', 'src/store/', 'test/'];

class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const found = slowest.findIndex((part) => moduleId.includes(`/${part}`));
      return found === -1 ? slowest.length : found;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  cacheDir: '.cache/vitest',
  test: {
    projects: [
      { extends: true, test: { name: 'plain', include: plain, isolate: false } },
      {
        extends: true,
        test: {
          name: 'engine',
          include: ['src/**/*.test.ts', 'test/**/*.test.ts', 'bench/**/*.test.ts', 'scripts/**/*.test.{ts,mjs}'],
          exclude: plain,
        },
      },
    ],
    sequence: { sequencer: SlowestFirst },
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
