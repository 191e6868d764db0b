// SPDX-License-Identifier: Apache-2.0
// What requests cost the store: a volume's creation is one transaction of at most five keys, however large the volume is.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { faultyStore } from '../agents/testing/faulty-store.js';
import type { Txn } from '../store/store.js';
import { attachVolume, createVolume, type VolumeDeps } from './volumes.js';

const writesMax = 5;
const MiB = 2 ** 20;

let bed: ClusterBed;
let txns: Txn[];
let deps: VolumeDeps;

beforeEach(async () => {
  bed = new ClusterBed();
  txns = [];
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await bed.startController('c1');
  const store = faultyStore(bed.connect(), (txn) => {
    txns.push(txn);
    return 'pass';
  });
  for (const method of ['put', 'delete'] as const)
    Object.assign(store, { [method]: () => Promise.reject(new Error(`${method} outside a transaction`)) });
  deps = { ...bed.api, store };
  // The pool that volumes go to is made with the first one.
  await createVolume(deps, { name: 'first', sizeBytes: MiB, legs: 1 });
  txns = [];
});

afterEach(() => bed.close());

describe('the creation of a volume', () => {
  it.each([
    [1, 1 * MiB],
    [64, 64 * MiB],
  ])('of %i legs writes at most five keys, in one transaction', async (legs, sizeBytes) => {
    await createVolume(deps, { name: 'v', sizeBytes, legs });
    expect(txns).toHaveLength(1);
    expect(txns[0]?.changes.length).toBeLessThanOrEqual(writesMax);
    expect(bed.server.list('/basalt/v1/volumes/')).toHaveLength(2);
  });

  it('that is encrypted writes no more, and one that is there already nothing', async () => {
    const request = { name: 'v', sizeBytes: MiB, legs: 1, encrypt: true };
    await createVolume(deps, { ...request, name: 'earlier' });
    txns = [];
    await createVolume(deps, request);
    expect(txns).toHaveLength(1);
    expect(txns[0]?.changes.length).toBeLessThanOrEqual(writesMax);
    await createVolume(deps, request);
    expect(txns).toHaveLength(1);
  });
});

describe('an attachment', () => {
  it('writes one key, and nothing when it is there', async () => {
    const host = 'nqn.2026-01.io.basalt:host:test';
    await attachVolume(deps, 'first', { host });
    await attachVolume(deps, 'first', { host });
    const about = txns.filter((txn) => txn.changes.some((change) => change.key.includes('/volumes/')));
    expect(about.map((txn) => txn.changes.length)).toEqual([1]);
  });
});
