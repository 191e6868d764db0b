// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { type Sample, sampleProcess, slopeOf } from './usage.js';

const minuteMs = 60_000;

/** A life of ten minutes that begins at `fromMs`, with a steep warm-up and `perHour` MiB of growth after it. */
function life(pid: number, fromMs: number, baseMib: number, perHour: number): Sample[] {
  return Array.from({ length: 100 }, (_, at) => {
    const ageMs = at * 6_000;
    const warm = Math.min(1, ageMs / minuteMs) * 50;
    const rssKib = (baseMib + warm + (perHour * ageMs) / 3_600_000) * 1024;
    return { pid, role: '', atMs: fromMs + ageMs, rssKib, descriptors: 20, threads: 11 };
  });
}

test('growth is found across restarts, whatever level each life has and however steep its warm-up was', () => {
  const slope = slopeOf('disk-1', [...life(1, 0, 80, 12), ...life(2, 700_000, 30, 12)], minuteMs);
  expect(slope?.rssMibPerHour).toBeCloseTo(12, 6);
  expect(slope?.lives).toBe(2);
  expect(slope?.descriptorsPerHour).toBe(0);
});

test('a step between two roles is no growth', () => {
  const roles = life(1, 0, 80, 0).map((sample, at) =>
    at < 50 ? sample : { ...sample, role: 'active', descriptors: 60, rssKib: sample.rssKib + 30_000 },
  );
  const slope = slopeOf('controller-1', roles, minuteMs);
  expect(slope?.descriptorsPerHour).toBe(0);
  expect(slope?.rssMibPerHour).toBeCloseTo(0, 6);
  expect(slope?.lives).toBe(1);
});

test('lives that ended in their warm-up say nothing', () => {
  expect(slopeOf('disk-1', life(1, 0, 80, 12).slice(0, 9), minuteMs)).toBeNull();
});

test('a process is looked at from outside, and one that is gone is not there', () => {
  const own = sampleProcess(process.pid, '', 5);
  expect(own?.rssKib).toBeGreaterThan(1024);
  expect(own?.descriptors).toBeGreaterThan(2);
  expect(own?.threads).toBeGreaterThan(1);
  expect(sampleProcess(2 ** 22 + 1, '', 5)).toBeNull();
});
