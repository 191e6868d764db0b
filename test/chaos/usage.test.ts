// SPDX-License-Identifier: Apache-2.0

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { pollUntil } from '../../scripts/demo/poll.js';
import { type Sample, sampleProcess, slopeOf } from './usage.js';

const minuteMs = 60_000;
const whole = { warmUpMs: minuteMs, lateMs: 0 };

/** A life of ten minutes that begins at `fromMs`, with a steep warm-up and `perHour` MiB of growth after it. */
function life(pid: number, fromMs: number, baseMib: number, perHour: number): Sample[] {
  return Array.from({ length: 100 }, (_, at) => {
    const ageMs = at * 6_000;
    const warm = Math.min(1, ageMs / minuteMs) * 50;
    const rssKib = (baseMib + warm + (perHour * ageMs) / 3_600_000) * 1024;
    return { pid, role: '', atMs: fromMs + ageMs, rssKib, heap: null, descriptors: 20, threads: 11 };
  });
}

test('growth is found across restarts, whatever level each life has and however steep its warm-up was', () => {
  const slope = slopeOf('disk-1', [...life(1, 0, 80, 12), ...life(2, 700_000, 30, 12)], whole);
  expect(slope?.rssMib.perHour).toBeCloseTo(12, 6);
  expect(slope?.lives).toBe(2);
  expect(slope?.descriptors.perHour).toBe(0);
});

test('a step between two roles is no growth', () => {
  const roles = life(1, 0, 80, 0).map((sample, at) =>
    at < 50 ? sample : { ...sample, role: 'active', descriptors: 60, rssKib: sample.rssKib + 30_000 },
  );
  const slope = slopeOf('controller-1', roles, whole);
  expect(slope?.descriptors.perHour).toBe(0);
  expect(slope?.rssMib.perHour).toBeCloseTo(0, 6);
  expect(slope?.lives).toBe(1);
});

test('what was let go late in the run is told apart from what still grows, and JavaScript from the rest', () => {
  const samples = life(1, 0, 80, 12).map((sample, at) => {
    const liveKib = 10_000 + Math.min(at, 50) * 100;
    return at < 10 ? sample : { ...sample, rssKib: 90_000 + liveKib, heap: { liveKib, reservedKib: liveKib } };
  });
  const slope = slopeOf('embedded', samples, { warmUpMs: minuteMs, lateMs: 6_000 * 60 });
  expect(slope?.liveMib?.perHour).toBeGreaterThan(10);
  expect(slope?.liveMib?.latePerHour).toBe(0);
  expect(slope?.rssMib.latePerHour).toBeCloseTo(0, 6);
  expect(slope?.nativeMib?.perHour).toBeCloseTo(0, 6);
  expect(slope?.nativeMib?.last).toBeCloseTo(90_000 / 1024, 6);
});

test('the probe of heaps says what is in use, and what is let go is not', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'basalt-heaps-'));
  try {
    const probe = fileURLToPath(new URL('./heap-probe.mjs', import.meta.url));
    // It stays for as long as its input does.
    const script = `let kept = new Array(4e6).fill(0); kept = null; process.stdin.resume()`;
    const child = spawn(process.execPath, ['--import', probe, '-e', script], {
      env: { ...process.env, BASALT_CHAOS_HEAPS: folder, BASALT_CHAOS_PROBE_MS: '50' },
    });
    const sample = await pollUntil(
      'a sample with a heap',
      30_000,
      () => Promise.resolve(sampleProcess(child.pid ?? 0, '', 0, folder)),
      (seen) => seen?.heap !== null && seen?.heap !== undefined,
    );
    child.kill('SIGKILL');
    expect(sample?.heap?.liveKib).toBeGreaterThan(1024);
    expect(sample?.heap?.liveKib).toBeLessThan(20_000);
    expect(sample?.heap?.reservedKib).toBeGreaterThanOrEqual(sample?.heap?.liveKib ?? 0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('lives that ended in their warm-up say nothing', () => {
  expect(slopeOf('disk-1', life(1, 0, 80, 12).slice(0, 9), whole)).toBeNull();
});

test('a process is looked at from outside, and one that is gone is not there', () => {
  const own = sampleProcess(process.pid, '', 5);
  expect(own?.rssKib).toBeGreaterThan(1024);
  expect(own?.descriptors).toBeGreaterThan(2);
  expect(own?.threads).toBeGreaterThan(1);
  expect(sampleProcess(2 ** 22 + 1, '', 5)).toBeNull();
});
