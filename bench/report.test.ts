// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { usableCores } from './programs.js';
import { type Figure, median, Reporter, rounded } from './report.js';

const figure: Figure = {
  name: 'target/malloc/randread/4k/qd1',
  value: 93000,
  unit: 'iops',
  floor: 109000,
  ratio: 0.853,
  p50_us: 10.5,
  cpu_us_per_io: null,
  p99_us: 14,
};

describe('the reporter', () => {
  it('prints every figure as one JSON object per line', () => {
    const lines: string[] = [];
    const reporter = new Reporter(true, (line) => lines.push(line));
    reporter.add(figure);
    reporter.add({ ...figure, name: 'other' });
    reporter.end();
    expect(lines.map((line) => JSON.parse(line) as Figure)).toEqual([figure, { ...figure, name: 'other' }]);
  });

  it('prints a table with a heading, and a dash for what does not apply', () => {
    const lines: string[] = [];
    new Reporter(false, (line) => lines.push(line)).add(figure);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^name +value +unit +floor +ratio +p50_us +cpu_us_per_io +wanted$/);
    expect(lines[1]).toMatch(/^target\/malloc\/randread\/4k\/qd1 +93000 +iops +109000 +0\.853 +10\.5 +- +-$/);
  });

  it('fails when nothing was measured', () => {
    expect(() => new Reporter(true, () => undefined).end()).toThrow(/nothing was measured/);
  });
});

describe('figures', () => {
  it('are medians, rounded to what they can say', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(rounded(123456)).toBe(123500);
    expect(rounded(0.85349, 3)).toBe(0.853);
  });

  it('come from processors that this process may use', () => {
    const cores = usableCores();
    expect(cores.length).toBeGreaterThan(0);
    expect(new Set(cores).size).toBe(cores.length);
  });
});
