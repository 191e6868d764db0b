// SPDX-License-Identifier: Apache-2.0
// What can be said of SPDK's rows without an SPDK: where its program is looked for, how its answers are read, how turns
// become figures, and that each figure of ours has a peer or a reason why not.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../src/engine/native/addon.js';
import { bdevperfProgram, costUntil, parseResult } from './bdevperf.js';
import { type LayerLine, pairedFigures } from './layers.js';
import { peerStacks, whyNoPeer } from './layers-peer.js';

describe('bdevperf', () => {
  const only = (there: string) => (path: string) => path === there;

  it('is the program that is named, one on the PATH, or the one beside spdk_tgt', () => {
    const env = { PATH: '/a:/b' };
    expect(bdevperfProgram({ ...env, BASALT_SPDK_BDEVPERF: '/x' }, null, only('/x'))).toBe('/x');
    expect(bdevperfProgram(env, null, only('/b/bdevperf'))).toBe('/b/bdevperf');
    const beside = '/spdk/build/examples/bdevperf';
    expect(bdevperfProgram(env, '/spdk/build/bin/spdk_tgt', only(beside))).toBe(beside);
  });

  it('is named with every place it was looked for when it is missing', () => {
    const nowhere = () => false;
    expect(() => bdevperfProgram({ PATH: '/a' }, null, nowhere)).toThrow(
      /bdevperf is missing \(no BASALT_SPDK_BDEVPERF, none on the PATH, no BASALT_SPDK_TGT/,
    );
    expect(() => bdevperfProgram({ PATH: '/a' }, '/s/bin/spdk_tgt', nowhere)).toThrow(/nor as \/s\/examples\/bdevperf/);
    // One that was named is not silently replaced by another.
    expect(() => bdevperfProgram({ PATH: '/a', BASALT_SPDK_BDEVPERF: '/x' }, null, only('/a/bdevperf'))).toThrow(/\/x/);
  });

  const job = { job: 'r', status: 'finished', queue_depth: 32, iops: 2e6, runtime: 1.5, io_failed: 0, io_timeout: 0 };

  it('says how many requests it answered in how long', () => {
    expect(parseResult({ results: [job], core_count: 1 })).toEqual({ iops: 2e6, seconds: 1.5 });
  });

  it.each([
    ['no job', { results: [] }, /one job/],
    ['several jobs', { results: [job, job] }, /one job/],
    ['another answer', 'done', /one job/],
    ['a request that failed', { results: [{ ...job, io_failed: 1 }] }, /failed/],
    ['a request that came too late', { results: [{ ...job, io_timeout: 1 }] }, /failed/],
    ['a job that was ended', { results: [{ ...job, status: 'terminated' }] }, /failed/],
    ['nothing done', { results: [{ ...job, iops: 0 }] }, /did nothing/],
  ])('gives no figure of %s', (_what, answer, complaint) => {
    expect(() => parseResult(answer)).toThrow(complaint);
  });

  it('costs what the first requests cost, without those after them', () => {
    const at = (requests: number, cpuNs: number) => ({ requests, cpuNs });
    const samples = [at(10, 1000), at(40, 4000), at(110, 11_000), at(5000, 12_000)];
    expect(costUntil(samples, 110)).toBe(100);
    expect(costUntil(samples, 109)).toBe(100);
    expect(() => costUntil(samples, 39)).toThrow(/39 requests were over/);
    expect(() => costUntil([], 5)).toThrow(/over/);
  });
});

describe('rows with a peer', () => {
  const line = (value: number, total_ns: number): LayerLine => {
    const name = 'layers/raid1/2-copies/write/4k/qd32';
    return { name, value, unit: 'ns', total_ns, below_ns: 100, iops_per_core: 1, allocations_per_io: 0 };
  };

  it('are ours and then the other, as medians, with the ratio of neighbours', () => {
    // The machine became slower by ten in the third pair: the ratio does not.
    const ours = [line(400, 500), line(410, 510), line(4000, 5000)];
    const theirs = [
      { totalNs: 1000, belowNs: 200 },
      { totalNs: 1020, belowNs: 210 },
      { totalNs: 10_000, belowNs: 2000 },
    ];
    const [own, peer] = pairedFigures(ours, theirs);
    expect(own).toMatchObject({ value: 410, cpu_us_per_io: 0.51, ratio: null, iops_per_core: 1_960_784 });
    expect(peer).toMatchObject({
      name: 'layers/raid1/2-copies/write/4k/qd32/spdk',
      value: 810,
      ratio: 2,
      cpu_us_per_io: 1.02,
      below_ns: 210,
    });
  });

  it('are none when a turn is missing', () => {
    expect(() => pairedFigures([], [])).toThrow(/pairs/);
    expect(() => pairedFigures([line(1, 2)], [])).toThrow(/pairs/);
  });

  it('exist for each figure of basalt_layers, or a reason does', () => {
    const source = readFileSync(join(packageRoot(), 'native', 'bench', 'basalt_layers_main.cc'), 'utf8');
    const names = [...source.matchAll(/^ +\{"([a-z0-9+/-]+)",/gm)].map(([, name = '']) => name);
    expect(names.length).toBeGreaterThan(30);
    expect(names.filter((name) => name in peerStacks === (whyNoPeer(name) !== null))).toEqual([]);
    expect(Object.keys(peerStacks).filter((name) => !names.includes(name))).toEqual([]);
  });
});
