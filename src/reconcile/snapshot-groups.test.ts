// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { ClusterState, type Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import { groupMembersMax, type SnapshotGroupObject, type SnapshotObject } from '../model/snapshots.js';
import {
  allHeld,
  planGroupDeletion,
  planGroupFailed,
  planGroupReady,
  planRound,
  planUnprepared,
  planVote,
} from './snapshot-groups.js';
import { snapshotTriesMax } from './snapshots.js';
import type { StoreStep } from './store-step.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const round = '0000000a';
const group = { id: uuid(1), name: 'g' };

const volume: VolumeObject = {
  format: 1,
  id: uuid(100),
  name: 'v',
  sizeBytes: 4 * 2 ** 20,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 2,
  legSizeBytes: 5 * 2 ** 20,
  legs: [{ replicas: [] }],
  controllers: [],
  hosts: [],
  nbd: [],
  phase: 'live',
};

/** A store with one group; what is planned is carried out as the store would, or not. */
class Bed {
  readonly state = new ClusterState();
  #revision = 0;

  constructor(readonly count = 2) {
    const members = this.ids.map((n) => ({ volumeId: uuid(100 + n), snapshotId: uuid(10_000 + n) }));
    const object: SnapshotGroupObject = {
      format: 1,
      ...group,
      phase: 'wanted',
      createdAtMs: 1,
      failedCount: 0,
      members,
    };
    this.put(keys.snapshotGroup('g'), codecs.snapshotGroup.encode(object));
    for (const n of this.ids) this.member(n, { phase: 'wanted' });
  }

  get ids(): number[] {
    return Array.from({ length: this.count }, (_, n) => n);
  }

  put(key: string, text: string | null): void {
    this.state.apply(key, text, ++this.#revision);
  }

  member(n: number, over: Partial<SnapshotObject>): void {
    const plain = { format: 1 as const, name: 'g', createdAtMs: 1, failedCount: 0, leftovers: [], group };
    const object: SnapshotObject = {
      ...plain,
      id: uuid(10_000 + n),
      volumeId: uuid(100 + n),
      phase: 'wanted',
      ...over,
    };
    this.put(keys.snapshot(object.id), codecs.snapshot.encode(object));
  }

  prepare(): void {
    for (const n of this.ids) {
      const copies = [0, 1].map((at) => ({
        leg: 0,
        replica: uuid(20 * n + at + 1),
        disk: uuid(5 + at),
        node: `d${at}`,
      }));
      this.member(n, { phase: 'cutting', cut: { attempt: '00000001', epoch: 3, copies } });
    }
  }

  vote(n: number, of = round): void {
    const stored = this.state.get('snapshots', uuid(10_000 + n)) as SnapshotObject;
    this.member(n, planVote(stored, volume, { round: of, cutAtMs: 7, heldUs: 1000 + n }));
  }

  get other(): SnapshotGroupObject {
    return this.state.get('snapshotGroups', 'h') as SnapshotGroupObject;
  }

  get group(): Stored<SnapshotGroupObject> {
    return this.state.stored('snapshotGroups', 'g') as Stored<SnapshotGroupObject>;
  }

  stored(n: number): Stored<SnapshotObject> {
    return this.state.stored('snapshots', uuid(10_000 + n)) as Stored<SnapshotObject>;
  }

  get phases(): string[] {
    return [this.group.value.phase, ...this.state.all('snapshots').map(({ phase }) => phase)];
  }

  commit(step: StoreStep | null): boolean {
    if (step === null) throw new Error('nothing is planned');
    const revisions = new Map([
      ...['g', 'h'].map((name) => {
        const stored = this.state.stored('snapshotGroups', name);
        return [keys.snapshotGroup(name), stored?.revision ?? null] as const;
      }),
      ...this.ids.map((n) => {
        const stored = this.state.stored('snapshots', uuid(10_000 + n));
        return [keys.snapshot(uuid(10_000 + n)), stored?.revision ?? null] as const;
      }),
    ]);
    if (step.expect.some(({ key, revision }) => revisions.get(key) !== revision)) return false;
    for (const { key, text } of step.put) this.put(key, text);
    for (const key of step.remove) this.put(key, null);
    return true;
  }
}

describe('a group of snapshots', () => {
  it('gets a round when none of its volumes is in another one, also of two that are drawn at once', () => {
    const bed = new Bed();
    bed.prepare();
    const put = (phase: SnapshotGroupObject['phase'], of: number): void => {
      const members = [{ volumeId: uuid(100 + of), snapshotId: uuid(20_000) }];
      const other: SnapshotGroupObject = { ...bed.group.value, id: uuid(2), name: 'h', phase, members };
      bed.put(keys.snapshotGroup('h'), codecs.snapshotGroup.encode(other));
    };
    const member = (over: Partial<SnapshotObject>): void => {
      const object: SnapshotObject = { ...bed.stored(1).value, id: uuid(20_000), ...over };
      bed.put(keys.snapshot(object.id), codecs.snapshot.encode(object));
    };
    member({});
    put('cutting', 1);
    expect(planRound(bed.state, bed.group, round)).toBeNull();
    put('cutting', bed.count);
    member({ volumeId: uuid(100 + bed.count) });
    expect(planRound(bed.state, bed.group, round)).not.toBeNull();
    put('wanted', 1);
    member({});
    const drawn = planRound(bed.state, bed.group, round);
    put('cutting', 1);
    expect(bed.commit(drawn)).toBe(false);
    // It was cut there, and waits for others' votes.
    bed.put(keys.snapshotGroup('h'), codecs.snapshotGroup.encode({ ...bed.other, round }));
    member({ voted: round });
    expect(bed.commit(planRound(bed.state, bed.group, round))).toBe(true);
  });

  it('gets a round when all are prepared, is ready when all have voted in it, all at once', () => {
    const bed = new Bed();
    expect(planRound(bed.state, bed.group, round)).toBeNull();
    bed.prepare();
    expect(bed.commit(planRound(bed.state, bed.group, round))).toBe(true);
    expect(planRound(bed.state, bed.group, round)).toBeNull();
    expect(bed.phases).toEqual(['cutting', 'cutting', 'cutting']);
    bed.vote(0);
    expect(planGroupReady(bed.state, bed.group)).toBeNull();
    // In another round: that one was given up.
    bed.vote(1, '0000000b');
    expect(planGroupReady(bed.state, bed.group)).toBeNull();
    bed.vote(1);
    expect(bed.commit(planGroupReady(bed.state, bed.group))).toBe(true);
    expect(bed.phases).toEqual(['ready', 'ready', 'ready']);
    for (const snapshot of bed.state.all('snapshots')) {
      expect(snapshot).toMatchObject({ cutAtMs: 7, shape: { sizeBytes: volume.sizeBytes } });
      expect(snapshot.voted).toBeUndefined();
    }
    expect(planGroupFailed(bed.state, bed.group, { problem: 'late' })).toBeNull();
  });

  it('is either made or given up, whichever comes first, and a vote that comes late changes nothing', () => {
    const bed = new Bed();
    bed.prepare();
    bed.commit(planRound(bed.state, bed.group, round));
    for (const n of bed.ids) bed.vote(n);
    const [made, failed] = [
      planGroupReady(bed.state, bed.group),
      planGroupFailed(bed.state, bed.group, { problem: 'x' }),
    ];
    const late = planGroupFailed(bed.state, bed.group, { problem: 'y' });
    expect(bed.commit(failed)).toBe(true);
    expect(bed.commit(made)).toBe(false);
    expect(bed.commit(late)).toBe(false);
    expect(bed.phases).toEqual(['wanted', 'wanted', 'wanted']);
    for (const snapshot of bed.state.all('snapshots')) {
      expect(snapshot).toMatchObject({ failedCount: 1, problem: 'x' });
      expect(snapshot.leftovers.map(({ epoch }) => epoch)).toEqual([3, 3]);
      for (const field of ['cut', 'voted', 'shape', 'cutAtMs', 'heldUs'] as const)
        expect(snapshot[field]).toBeUndefined();
    }
  });

  it('gives up for good after so many rounds, and at once where it is hopeless', () => {
    const bed = new Bed();
    for (let tries = 0; tries < snapshotTriesMax; tries++) {
      expect(bed.phases).toEqual(['wanted', 'wanted', 'wanted']);
      bed.prepare();
      bed.commit(planRound(bed.state, bed.group, round));
      bed.commit(planGroupFailed(bed.state, bed.group, { problem: 'late' }));
    }
    expect(bed.phases).toEqual(['failed', 'failed', 'failed']);
    const other = new Bed();
    expect(planGroupFailed(other.state, other.group, { problem: 'late' })).toBeNull();
    other.commit(planGroupFailed(other.state, other.group, { problem: 'no such method', hopeless: true }));
    expect(other.phases).toEqual(['failed', 'failed', 'failed']);
    expect(other.state.all('snapshots').flatMap(({ leftovers }) => leftovers)).toEqual([]);
  });

  it('counts a volume as held only in its own round', () => {
    const bed = new Bed();
    bed.prepare();
    bed.commit(planRound(bed.state, bed.group, round));
    const hold = (n: number, of: string): void =>
      bed.put(keys.snapshotHold(group.id, uuid(100 + n)), codecs.snapshotHold.encode({ format: 1, round: of }));
    hold(0, round);
    hold(1, '0000000b');
    expect(allHeld(bed.state, bed.group.value)).toBe(false);
    hold(1, round);
    expect(allHeld(bed.state, bed.group.value)).toBe(true);
    const step = planGroupFailed(bed.state, bed.group, { problem: 'late' });
    expect(step?.remove).toHaveLength(2);
  });

  it('leaves nothing to be looked for of a member that was only prepared', () => {
    const bed = new Bed();
    bed.prepare();
    expect(bed.commit(planUnprepared(bed.group, bed.stored(0)))).toBe(true);
    expect(bed.stored(0).value).toMatchObject({ phase: 'wanted', leftovers: [] });
    expect(bed.stored(0).value.cut).toBeUndefined();
  });

  it('keeps what a member was prepared as once there is a round: its disks may have been asked', () => {
    const bed = new Bed();
    bed.prepare();
    // By a controller that was told of neither the round nor whoever prepared it.
    const late = planUnprepared(bed.group, bed.stored(0));
    bed.commit(planRound(bed.state, bed.group, round));
    expect(bed.commit(late)).toBe(false);
    bed.commit(planGroupFailed(bed.state, bed.group, { problem: 'a controller ended' }));
    expect(bed.stored(0).value.leftovers).toHaveLength(2);
  });

  it.each([
    ['it is deleted', planGroupDeletion],
    ['a round is given up', (state, stored) => planGroupFailed(state, stored, { problem: 'late' })],
  ] as [string, typeof planGroupReady][])('leaves no word of a hold behind when %s', (_, plan) => {
    const bed = new Bed();
    bed.prepare();
    bed.commit(planRound(bed.state, bed.group, round));
    const step = plan(bed.state, bed.group);
    // Between the look and the change, which changes neither the group nor its members.
    bed.put(keys.snapshotHold(group.id, uuid(101)), codecs.snapshotHold.encode({ format: 1, round }));
    expect(bed.commit(step)).toBe(true);
    expect(bed.state.all('snapshotHolds')).toEqual([]);
  });

  it('fits into one transaction with as many volumes as there may be, however it ends', () => {
    const bed = new Bed(groupMembersMax);
    bed.prepare();
    bed.commit(planRound(bed.state, bed.group, round));
    for (const n of bed.ids) {
      bed.put(keys.snapshotHold(group.id, uuid(100 + n)), codecs.snapshotHold.encode({ format: 1, round }));
      bed.vote(n);
    }
    for (const step of [
      planGroupReady(bed.state, bed.group),
      planGroupFailed(bed.state, bed.group, { problem: 'late' }),
      planGroupDeletion(bed.state, bed.group),
    ]) {
      expect(step?.expect.length).toBeLessThanOrEqual(127);
      expect((step?.put.length ?? 0) + (step?.remove.length ?? 0)).toBeLessThanOrEqual(127);
    }
  });
});
