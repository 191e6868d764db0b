// SPDX-License-Identifier: Apache-2.0
//
// Goal: a volume that is in two groups at once takes part once in each round, and remembers of each how it went.
// Method: one volume's worker over a store in memory, and an engine whose holds end when the test says so. The other
// members are entries that the test writes; time stands still but where it is moved.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EngineError, engineErrorCodes } from '../engine/errors.js';
import { systemClock } from '../env/clock.js';
import { SeededRandom } from '../env/seeded-random.js';
import { VirtualTime } from '../env/virtual-clock.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import { planVote } from '../reconcile/snapshot-groups.js';
import { snapshotPort } from './snapshot-port.js';
import { SnapshotWorker, type SnapshotWorkerOptions } from './snapshot-worker.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const patientMs = 60_000;
const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
/** The worker's, and of each group the other one. */
const [own, others] = [uuid(100), [uuid(101), uuid(102)]];
const replica = uuid(200);
const never = new AbortController().signal;

interface Cut {
  readonly round: string;
  readonly release: () => void;
  /** Nobody said in time that all are held. */
  readonly expire: () => void;
}

/** Cuts a name once, as disks do. */
class HoldingEngine {
  readonly cuts: Cut[] = [];
  readonly #made = new Set<string>();
  readonly #listeners = new Set<(event: object) => void>();

  on(_: 'event', listener: (event: object) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async rpc(
    method: string,
    params: { name: string; group: string; members: { snapshot_name: string }[] },
  ): Promise<unknown> {
    const { name, group } = params;
    const refuse = (code: 'exists' | 'timedOut', cut: boolean): EngineError =>
      new EngineError(engineErrorCodes[code], method, code, { cut });
    if (method === 'basalt_slot_release') return this.cuts.findLast(({ round }) => round === group)?.release();
    if (method !== 'basalt_slot_snapshot') return true;
    const lvol = params.members[0]?.snapshot_name ?? '';
    const isAgain = this.#made.has(lvol);
    this.#made.add(lvol);
    return new Promise((resolve, reject) => {
      this.cuts.push({
        round: group,
        release: () => resolve({ held_us: 1 }),
        expire: () => reject(refuse('timedOut', true)),
      });
      // Who comes again and again is kept waiting: the test would not end.
      if (this.cuts.length > 20) return;
      if (isAgain) reject(refuse('exists', false));
      else for (const listener of this.#listeners) listener({ method: 'slot_held', params: { name, group } });
    });
  }
}

class Bed {
  readonly link = new MemoryLink();
  readonly engine = new HoldingEngine();
  readonly time = new VirtualTime(0);
  readonly #worker: SnapshotWorker;

  constructor() {
    this.link.put(keys.volume(own), codecs.volume.encode(volume));
    this.link.put(keys.leadership(own), codecs.leadership.encode(leadership));
    for (const at of [0, 1]) this.#group(at);
    const register = {
      known: leadership,
      versioned: { value: leadership, revision: this.link.state.stored('leaderships', own)?.revision },
      refresh: async () => leadership,
    };
    const assembly = { epoch: 3, isClean: async () => true, nameOfMember: (id: string) => `m-${id}` };
    const context = { engine: this.engine, clock: this.time.clock(), random: new SeededRandom(1n), log: quietLog };
    this.#worker = new SnapshotWorker({
      context,
      volume: () => volume,
      assembly,
      register,
      holder: { controller: 'c1', instance: uuid(5) },
      snapshots: snapshotPort(this.link, own),
    } as unknown as SnapshotWorkerOptions);
    this.#worker.start();
  }

  /** This volume's is to be prepared; the other one's is. */
  #group(at: number): void {
    const group = { id: uuid(at + 1), name: `g${at}` };
    const members = [own, others[at] ?? ''].map((volumeId, n) => ({ volumeId, snapshotId: uuid(10 * (at + 1) + n) }));
    const plain = { format: 1 as const, createdAtMs: at, failedCount: 0 };
    const object: SnapshotGroupObject = { ...plain, ...group, phase: 'wanted', members };
    this.link.put(keys.snapshotGroup(group.name), codecs.snapshotGroup.encode(object));
    for (const { volumeId, snapshotId } of members) {
      const isOwn = volumeId === own;
      const one: SnapshotObject = {
        ...plain,
        id: snapshotId,
        name: group.name,
        volumeId,
        phase: isOwn ? 'wanted' : 'cutting',
        leftovers: [],
        group,
        ...(isOwn ? {} : { cut: { attempt: '00000001', epoch: 1, copies: [] } }),
      };
      this.link.put(keys.snapshot(snapshotId), codecs.snapshot.encode(one));
    }
  }

  stop(): Promise<void> {
    return this.#worker.stop();
  }

  group(at: number): SnapshotGroupObject {
    return this.link.state.get('snapshotGroups', `g${at}`) as SnapshotGroupObject;
  }

  /** The worker's member. */
  member(at: number): SnapshotObject {
    return this.link.state.get('snapshots', uuid(10 * (at + 1))) as SnapshotObject;
  }

  cutsOf(round: string | undefined): Cut[] {
    return this.engine.cuts.filter((cut) => cut.round === round);
  }

  /** The round of the group, once requests of the worker's volume are held in it. */
  async held(at: number): Promise<string> {
    await eventually(`requests are held for g${at}`, () => this.cutsOf(this.group(at).round).length > 0);
    return this.group(at).round ?? '';
  }

  /** The other volume is held as well. */
  hold(at: number, round: string): Promise<boolean> {
    const key = keys.snapshotHold(this.group(at).id, others[at] ?? '');
    const text = codecs.snapshotHold.encode({ format: 1, round });
    return this.link.commit({ put: [{ key, text }] }, never);
  }

  async voted(at: number): Promise<void> {
    await eventually(`the volume has voted in g${at}`, () => this.member(at).voted !== undefined);
  }

  otherPrepared(at: number, isPrepared: boolean): void {
    const stored = this.link.state.get('snapshots', uuid(10 * (at + 1) + 1)) as SnapshotObject;
    const next: SnapshotObject = { ...stored, phase: isPrepared ? 'cutting' : 'wanted' };
    this.link.put(keys.snapshot(next.id), codecs.snapshot.encode(next));
  }

  otherVotes(at: number): void {
    const stored = this.link.state.get('snapshots', uuid(10 * (at + 1) + 1)) as SnapshotObject;
    const next = planVote(stored, volume, { round: this.group(at).round ?? '', cutAtMs: 1, heldUs: 1 });
    this.link.put(keys.snapshot(next.id), codecs.snapshot.encode(next));
  }

  async passMs(ms: number): Promise<void> {
    this.time.advanceTo(this.time.nowNs + ms * 1e6);
    while (this.time.fireOne()) await turn();
  }
}

const volume: VolumeObject = {
  format: 1,
  id: own,
  name: 'v',
  sizeBytes: 4 * 2 ** 20,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 1,
  legSizeBytes: 5 * 2 ** 20,
  legs: [{ replicas: [{ replica, disk: uuid(300), node: 'd1' }] }],
  controllers: ['c1'],
  hosts: [],
  nbd: [],
  phase: 'live',
};

const leadership: Leadership = {
  format: 1,
  volumeId: own,
  epoch: 3,
  controller: 'c1',
  instance: uuid(5),
  clean: false,
  leaseMs: 300,
  legs: [{ inSync: [{ replica, incarnation: 'i' }] }],
};

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await turn();
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (const endMs = systemClock.now() + patientMs; !holds(); await turn())
    if (systemClock.now() > endMs) throw new Error(`never: ${what}`);
}

let bed: Bed;

beforeEach(() => {
  bed = new Bed();
});

afterEach(async () => {
  for (const cut of bed.engine.cuts) cut.expire();
  await bed.stop();
});

describe('a volume that is in two groups of snapshots at once', { timeout: 2 * patientMs }, () => {
  it('takes part once in each round: what failed in one is given up, with what was cut, while the other waits', async () => {
    const first = await bed.held(0);
    await bed.hold(0, first);
    await bed.voted(0);
    const second = await bed.held(1);
    const attempt = bed.member(1).cut?.attempt ?? '';
    // The other one is late: requests went on.
    bed.cutsOf(second)[0]?.expire();
    await eventually('the second round is over', () => bed.group(1).round !== second);
    expect(bed.cutsOf(second)).toHaveLength(1);
    expect(bed.group(1)).toMatchObject({ phase: 'wanted', failedCount: 1 });
    const leftover = expect.objectContaining({ lvol: expect.stringContaining(`.${attempt}.`), replica });
    expect(bed.member(1).leftovers).toEqual([leftover]);
    // Its next try still names what the disks hold of this one.
    await bed.passMs(100);
    await eventually('it is prepared again', () => bed.member(1).phase === 'cutting');
    expect(bed.member(1).leftovers).toEqual([leftover]);
    expect(bed.group(0)).toMatchObject({ phase: 'cutting', round: first, failedCount: 0 });
    bed.otherVotes(0);
    await eventually('the first group is ready', () => bed.group(0).phase === 'ready');
    expect(bed.cutsOf(first)).toHaveLength(1);
  });

  it('gives up each round in its own time when a vote does not come', async () => {
    bed.otherPrepared(1, false);
    await bed.hold(0, await bed.held(0));
    await bed.voted(0);
    await bed.passMs(5_000);
    bed.otherPrepared(1, true);
    const second = await bed.held(1);
    await bed.hold(1, second);
    await bed.voted(1);
    // The volume has looked at both since.
    await turns(20);
    await bed.passMs(5_010);
    await eventually('the first round is given up', () => bed.group(0).failedCount === 1);
    expect(bed.group(0).problem).toMatch(/^no word of /);
    expect(bed.group(1)).toMatchObject({ phase: 'cutting', round: second, failedCount: 0 });
    await bed.passMs(5_000);
    await eventually('the second round is given up', () => bed.group(1).failedCount === 1);
  });
});
