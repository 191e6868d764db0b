// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { type SnapshotObject, snapshotLvol } from '../model/snapshots.js';
import {
  copiesUp,
  type DiskLvols,
  holdFor,
  holdMs,
  leftoversOn,
  longHoldMs,
  planCut,
  planDeletion,
  planKept,
  planReady,
  planTryFailed,
  snapshotTriesMax,
} from './snapshots.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const replica = (n: number): string => `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
const mib = 2 ** 20;

const volume: VolumeObject = {
  format: 1,
  id: uuid(1),
  name: 'v',
  sizeBytes: 4 * mib,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 2,
  legSizeBytes: 3 * mib,
  legs: [0, 1].map((leg) => ({
    replicas: [0, 1].map((at) => ({ replica: replica(leg * 2 + at), disk: uuid(100 + at), node: `d${at}` })),
  })),
  controllers: [],
  hosts: [],
  nbd: [],
  phase: 'live',
};
const leadership: Leadership = {
  format: 1,
  volumeId: volume.id,
  epoch: 7,
  controller: 'c1',
  instance: uuid(2),
  clean: false,
  leaseMs: 300,
  legs: [[0, 1], [2]].map((members) => ({ inSync: members.map((n) => ({ replica: replica(n), incarnation: 'i' })) })),
};
const wanted: SnapshotObject = {
  format: 1,
  id: uuid(9),
  name: 's',
  volumeId: volume.id,
  phase: 'wanted',
  createdAtMs: 1,
  failedCount: 0,
  leftovers: [],
  problem: 'earlier',
};
const attempt = 'abcdef01';
const at = { leadership, attempt };
const cutting = planCut(wanted, volume, at) as SnapshotObject;
const ready = planReady(cutting, volume, { cutAtMs: 5.4, heldUs: 1200.2 });
const lvol = (n: number): string => snapshotLvol(wanted.id, attempt, replica(n));
const onDisk = (disk: number, lvols: Record<string, number>): DiskLvols => ({
  disk: uuid(disk),
  epochs: new Map(Object.entries(lvols).map(([name, epoch]) => [name, BigInt(epoch)])),
});
const nothing = new Set<string>();

describe('a snapshot', () => {
  it('of legs with parity knows the places of its copies, and what they say that they are of', () => {
    const coded: VolumeObject = { ...volume, copies: 1, erasure: { data: 2, parity: 1 } };
    const places = new Map([0, 1, 2].map((n) => [replica(n), 2 - n]));
    expect(planCut(wanted, coded, at), 'a place is not known').toBeNull();
    const cut = planCut(wanted, coded, { ...at, places })?.cut;
    expect(cut?.copies.map(({ place }) => place)).toEqual([2, 1, 0]);
    expect(cut?.identity).toBe(volume.id);
    const begun = { identity: uuid(50), origin: uuid(51) };
    expect(planCut(wanted, coded, { ...at, leadership: { ...leadership, begun }, places })?.cut?.identity).toBe(
      uuid(50),
    );
    expect(cutting.cut).not.toHaveProperty('identity');
  });

  it('of legs with parity counts one copy of each place', () => {
    const twice = ready.cut?.copies.map((copy) => ({ ...copy, leg: 0, place: copy.leg })) ?? [];
    const some = { ...ready, cut: { attempt, epoch: 7, copies: twice } };
    expect(copiesUp(some, 1, () => true).map((copies) => copies.length)).toEqual([2]);
  });

  it('is tried on the members of the sets, and no others', () => {
    expect(cutting.phase).toBe('cutting');
    expect(cutting.problem).toBeUndefined();
    expect(cutting.cut).toMatchObject({ attempt, epoch: 7 });
    expect(cutting.cut?.copies.map((copy) => [copy.leg, copy.replica, copy.node])).toEqual([
      [0, replica(0), 'd0'],
      [0, replica(1), 'd1'],
      [1, replica(2), 'd0'],
    ]);
  });

  it('waits while the size of the volume changes, or a member has no place', () => {
    const growing = { servedBytes: 4 * mib, wantedBytes: 8 * mib, growing: true };
    expect(planCut(wanted, volume, { ...at, leadership: { ...leadership, size: growing } })).toBeNull();
    const unpublished = { servedBytes: 8 * mib, wantedBytes: 8 * mib, growing: false };
    expect(planCut(wanted, volume, { ...at, leadership: { ...leadership, size: unpublished } })).toBeNull();
    const asked = { servedBytes: 4 * mib, wantedBytes: 8 * mib, growing: false };
    expect(planCut(wanted, volume, { ...at, leadership: { ...leadership, size: asked } })).not.toBeNull();
    const stranger = { inSync: [{ replica: replica(8), incarnation: null }] };
    expect(planCut(wanted, volume, { ...at, leadership: { ...leadership, legs: [stranger, stranger] } })).toBeNull();
  });

  it('keeps the shape that the volume had, whatever becomes of it', () => {
    expect(ready).toMatchObject({ phase: 'ready', cutAtMs: 5, heldUs: 1200 });
    expect(ready.shape).toEqual({ sizeBytes: 4 * mib, legSizeBytes: 3 * mib });
  });

  it('names its copies by the try, in what an lvol may be called', () => {
    expect(lvol(1)).toMatch(/^[0-9a-f-]{36}\.abcdef01\.[0-9a-f]{16}$/);
    expect(lvol(1).length).toBeLessThanOrEqual(63);
    expect(lvol(1)).not.toBe(lvol(2));
  });

  it('that failed is tried anew, holds requests longer after many tries, and is given up in the end', () => {
    let present = wanted;
    expect(holdFor(present)).toBe(holdMs);
    for (let tries = 1; tries < snapshotTriesMax; tries++) {
      present = planTryFailed(present, { problem: 'no' });
      expect(present).toMatchObject({ phase: 'wanted', failedCount: tries, problem: 'no' });
    }
    expect(holdFor(present)).toBe(longHoldMs);
    expect(planTryFailed(present, { problem: 'no' }).phase).toBe('failed');
  });

  it('that was tried too early has as many tries left', () => {
    expect(planTryFailed(wanted, { problem: 'busy', early: true })).toMatchObject({ phase: 'wanted', failedCount: 0 });
  });

  it('counts copies that can be reached, by leg', () => {
    expect(copiesUp(ready, 2, () => true).map((copies) => copies.length)).toEqual([2, 1]);
    expect(copiesUp(ready, 2, (copy) => copy.node === 'd1').map((copies) => copies.length)).toEqual([1, 0]);
    expect(copiesUp(cutting, 2, () => true).flat()).toEqual([]);
  });
});

describe('what a try leaves over', () => {
  it('is nothing when no member was asked; one that can never succeed is not made again', () => {
    const next = planTryFailed(cutting, { problem: 'full', unasked: true, hopeless: true });
    expect(next).toMatchObject({ phase: 'failed', leftovers: [] });
    expect(next.cut).toBeUndefined();
  });

  const failed = planTryFailed(cutting, { problem: 'no' });

  it('is named until its disk has removed it', () => {
    expect(failed.cut).toBeUndefined();
    expect(failed.leftovers.map((entry) => entry.lvol)).toEqual([lvol(0), lvol(1), lvol(2)]);
    const seen = onDisk(100, { [lvol(0)]: 7, [replica(0)]: 7, [replica(2)]: 7 });
    expect(leftoversOn(failed, seen).map((entry) => entry.lvol)).toEqual([lvol(0)]);
    const kept = planKept(failed, seen, new Set([lvol(0)]));
    // The third was never seen: its command may still be on its way, as long as its epoch lasts.
    expect(kept?.leftovers.map((entry) => entry.lvol)).toEqual([lvol(1), lvol(2)]);
  });

  it('that was never made is forgotten once its replica obeys a later epoch, or is gone', () => {
    expect(planKept(failed, onDisk(100, { [replica(0)]: 7, [replica(2)]: 7 }), nothing)).toBe(failed);
    const later = planKept(failed, onDisk(100, { [replica(0)]: 8 }), nothing);
    expect(later?.leftovers.map((entry) => entry.lvol)).toEqual([lvol(1)]);
  });

  it('is not what another disk has', () => {
    expect(planKept(failed, onDisk(150, {}), nothing)).toBe(failed);
    expect(leftoversOn(failed, onDisk(150, { [lvol(0)]: 7 }))).toEqual([]);
  });
});

describe('a snapshot that is deleted', () => {
  it('goes at once when nothing of it was ever made', () => {
    expect(planDeletion(wanted)).toBeNull();
  });

  it('goes with its last copy, under the same epoch too: every member had answered', () => {
    const deleting = planDeletion(ready) as SnapshotObject;
    expect(deleting).toMatchObject({ phase: 'deleting' });
    const half = planKept(deleting, onDisk(101, { [replica(1)]: 7 }), nothing) as SnapshotObject;
    expect(half.leftovers.map((entry) => entry.lvol)).toEqual([lvol(0), lvol(2)]);
    expect(planKept(half, onDisk(100, { [replica(0)]: 7, [replica(2)]: 7 }), nothing)).toBeNull();
  });
});

describe('a copy that is not on its disk', () => {
  it('is none any more', () => {
    const here = { [replica(0)]: 7, [replica(2)]: 7, [lvol(0)]: 7, [lvol(2)]: 7 };
    expect(planKept(ready, onDisk(100, here), nothing)).toBe(ready);
    const { [lvol(2)]: _, ...less } = here;
    const kept = planKept(ready, onDisk(100, less), nothing);
    expect(kept?.cut?.copies.map((copy) => copy.replica)).toEqual([replica(0), replica(1)]);
  });

  it('is not missed while it is being cut', () => {
    expect(planKept(cutting, onDisk(100, { [replica(0)]: 7 }), nothing)).toBe(cutting);
  });
});
