// SPDX-License-Identifier: Apache-2.0
//
// Goal: what random runs once found stays fixed. Method: every plan of suite cluster-ts under test/sim is run; the native
// suites run those of the other suites.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parsePlan } from './plan.js';
import { run } from './run.js';

const folder = fileURLToPath(new URL('../../test/sim/', import.meta.url));
const plans = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }))
  .filter(({ text }) => (JSON.parse(text) as { suite?: unknown }).suite === 'cluster-ts');

describe('a run that failed once', () => {
  it('is kept under test/sim', () => {
    expect(plans.length).toBeGreaterThan(0);
  });
  for (const { name, text } of plans) {
    it(`${name} passes`, { timeout: 120_000 }, async () => {
      const result = await run(parsePlan(text));
      expect(result, result.explanation).toMatchObject({ failure: 'none' });
    });
  }
});
