// SPDX-License-Identifier: Apache-2.0
//
// Goal: a replica goes from one named disk to another whoever runs the job, however often the runner dies; no leg ever has
// fewer replicas in sync; afterwards nobody moves it back; and what cannot be is refused with its exact reason.
// Method: a cluster state in memory, moved on by the planned steps of the job, by the planner of rebuilds and by what a
// volume's controller does, in random order; steps that lost their race are thrown away.

import { describe, expect, it } from 'vitest';
import { systemRandom } from '../env/random.js';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterState } from '../model/cluster-state.js';
import type { JobObject } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, type DiskObject, type Leadership, type VolumeObject } from '../model/objects.js';
import { planJob } from './jobs.js';
import { outOfSync, planJoin, planRetire, planShrink } from './membership.js';
import { whyNotMove } from './move-replica.js';
import { planRebuild } from './rebuild.js';
import type { StoreStep } from './store-step.js';

const uuid = (index: number): string => `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
const mib = 2 ** 20;
const [volumeId, jobId, poolId] = [uuid(1), uuid(2), uuid(3)];
const pgCount = 4;
/** Two on n1; n4's is of another class, and the pool does not use it. */
const nodes = ['n0', 'n1', 'n2', 'n3', 'n4', 'n1'];
const disk = (index: number): string => uuid(100 + index);
const seeds = Array.from({ length: 25 }, () => systemRandom.bytes(4).readUInt32LE());
const seedText = process.env['BASALT_SEED'];

class Bed {
  readonly state = new ClusterState();
  #revision = 0;
  #drawn = 1_000;

  constructor() {
    for (const name of new Set(nodes)) this.setUp(name, true);
    for (const index of nodes.keys()) this.putDisk(index, index === 4 ? { class: 'hdd' } : {});
    const selector = { class: 'ssd', tags: [] };
    const redundancy = { kind: 'copies' as const, copies: 2 };
    const pool = { format: 1 as const, id: poolId, name: 'p', redundancy, domain: 'node' as const, selector, pgCount };
    this.put(keys.pool(poolId), codecs.pool.encode(pool));
    this.setMap([0, 1, 2, 3, 5]);
    this.#putVolume();
  }

  readonly newUuid = (): string => uuid(this.#drawn++);

  put(key: string, text: string | null): void {
    this.state.apply(key, text, ++this.#revision);
  }

  setUp(name: string, up: boolean): void {
    const at = { traddr: '127.0.0.1', trsvcid: '1' };
    const live = { format: 1 as const, name, kind: 'node' as const, incarnation: `${name}-1`, engine: 'fake' };
    const text = codecs.live.encode({ ...live, roles: ['disk'], internal: at, hosts: at, draining: false });
    this.put(keys.live(name), up ? text : null);
  }

  putDisk(index: number, over: Partial<DiskObject> = {}): void {
    const object: DiskObject = {
      format: 1,
      id: disk(index),
      cluster: uuid(11),
      node: nodes[index] ?? '',
      path: `/d${index}`,
      lvstore: 'l',
      clusterSizeBytes: 4096,
      totalBytes: 64 * mib,
      freeBytes: 0,
      buffered: false,
      ...over,
    };
    this.put(keys.disk(disk(index)), codecs.disk.encode(object));
  }

  /** Every PG on n0 and n1's first disk, for as long as they are among the usable ones. */
  setMap(usable: readonly number[], capacityBytes = 64 * mib): void {
    const disks = usable.map((index) => ({
      id: disk(index),
      node: nodes[index] ?? '',
      domain: nodes[index] ?? '',
      capacityBytes,
    }));
    const members = [0, 1].map((wanted) => (usable.includes(wanted) ? usable.indexOf(wanted) : usable.indexOf(2)));
    const pgs = Array.from({ length: pgCount }, () => members);
    this.put(keys.pgMap(poolId), codecs.pgMap.encode({ format: 1, poolId, version: 1, disks, pgs }));
  }

  #putVolume(): void {
    const range = { startBytes: 0, lengthBytes: 4 * mib, stripeSizeBytes: 65536, firstLeg: 0, legCount: 2 };
    const legs = [0, 1].map((leg) => ({
      replicas: [0, 1].map((at) => ({ replica: uuid(20 + 2 * leg + at), disk: disk(at), node: nodes[at] ?? '' })),
    }));
    const volume: VolumeObject = {
      format: 1,
      id: volumeId,
      name: 'v1',
      sizeBytes: 4 * mib,
      blockSizeBytes: 4096,
      stripeSizeBytes: 65536,
      copies: 2,
      legSizeBytes: 3 * mib,
      legs,
      pool: poolId,
      route: [{ ...range, legOffsetBytes: 0, seed: 7, conflict: 'any' }],
      controllers: ['n0'],
      hosts: [],
      nbd: [],
      phase: 'live',
    };
    this.put(keys.volume(volumeId), codecs.volume.encode(volume));
    const inSync = legs.map((leg) => ({ inSync: leg.replicas.map(({ replica }) => ({ replica, incarnation: 'i' })) }));
    const leadership = { format: 1 as const, volumeId, epoch: 3, controller: 'n0', instance: uuid(5) };
    this.lead({ ...leadership, clean: false, leaseMs: 300, legs: inSync });
  }

  lead(leadership: Leadership): void {
    this.put(keys.leadership(volumeId), codecs.leadership.encode(leadership));
  }

  get volume(): VolumeObject {
    return this.state.get('volumes', volumeId) as VolumeObject;
  }

  get leadership(): Leadership {
    return this.state.get('leaderships', volumeId) as Leadership;
  }

  get job(): JobObject {
    return this.state.get('jobs', jobId) as JobObject;
  }

  ask(over: Partial<JobObject> = {}, to = 2): void {
    const job: JobObject = {
      format: 1,
      id: jobId,
      kind: 'volume.move-replica',
      arguments: { volumeId, volume: 'v1', asked: 'all', legs: '0,1', from: disk(1), to: disk(to) },
      state: 'queued',
      cancelling: false,
      progress: { done: 0, total: 2, unit: 'replicas and copies' },
      waitsFor: null,
      createdAtMs: 0,
      startedAtMs: null,
      endedAtMs: null,
      error: null,
      runner: null,
      events: [],
      ...over,
    };
    this.put(keys.job(jobId), codecs.job.encode(job));
  }

  plan(runner: string): StoreStep | null {
    const stored = this.state.stored('jobs', jobId);
    if (stored === null) throw new Error('no job');
    const at = { state: this.state, wallMs: 7, ageMs: 0, runner: { node: runner, incarnation: `${runner}-1` } };
    return planJob({ ...at, newUuid: this.newUuid }, stored);
  }

  commit(step: StoreStep): boolean {
    const revisions = new Map<string, number | null>([[keys.placement, this.state.placementRevision]]);
    for (const kind of ['jobs', 'volumes', 'leaderships', 'snapshots'] as const)
      for (const id of [volumeId, jobId]) {
        const stored = this.state.stored(kind, id);
        if (stored !== null) revisions.set(stored.key, stored.revision);
      }
    if (step.expect.some(({ key, revision }) => (revisions.get(key) ?? null) !== revision)) return false;
    for (const { key, text } of step.put) this.put(key, text);
    for (const key of step.remove) this.put(key, null);
    return true;
  }

  /** Until it waits. */
  run(): void {
    for (let step = this.plan('n0'); step !== null && this.commit(step); step = this.plan('n0'));
  }

  rebuild(): number {
    const limits = { rebuildsMax: 2, rebuildsPerDiskMax: 2 };
    const changes = planRebuild({ state: this.state, lostNodes: new Set(), limits, newUuid: this.newUuid });
    for (const { volume, leadership, tombstones } of changes) {
      if (volume !== null) this.put(keys.volume(volumeId), codecs.volume.encode(volume));
      if (leadership !== null) this.lead(leadership);
      for (const entry of tombstones) this.put(keys.tombstone(entry.replica), codecs.tombstone.encode(entry));
    }
    return changes.length;
  }

  /** A copy ends, or what has a successor leaves. */
  drive(): void {
    const [member] = outOfSync(this.leadership, this.volume.legs);
    const joined = member === undefined ? null : planJoin(this.leadership, { ...member, incarnation: 'i' });
    const next = joined ?? planShrink(this.leadership, planRetire(this.leadership, this.volume.legs)).next;
    if (next !== null) this.lead(next);
    for (const { inSync } of this.leadership.legs) expect(inSync.length).toBeGreaterThanOrEqual(2);
  }

  bury(): void {
    for (const { replica } of this.state.all('tombstones')) this.put(keys.tombstone(replica), null);
  }

  /** What everybody but the job's runner does, until nothing is left to do. */
  settle(): void {
    for (let turn = 0; turn < 40; turn++) {
      this.rebuild();
      this.drive();
      this.bury();
    }
    expect(this.rebuild()).toBe(0);
  }

  disksOf(leg: number): string[] {
    return (this.volume.legs[leg]?.replicas ?? []).map((entry) => entry.disk).sort();
  }
}

function runAll(bed: Bed, random: SeededRandom, each: (turn: number) => void = () => {}): void {
  for (let turn = 0; bed.job.endedAtMs === null; turn++) {
    if (turn > 500) throw new Error(`does not end: ${JSON.stringify(bed.job)}`);
    each(turn);
    const late = random.fraction() < 0.3 ? bed.plan('n3') : null;
    const step = bed.plan(random.pick(['n0', 'n1', 'n2']));
    if (step !== null && random.fraction() < 0.8 && bed.commit(step) && late !== null)
      expect(bed.commit(late)).toBe(false);
    for (const act of ['rebuild', 'drive', 'bury'] as const) if (random.fraction() < 0.6) bed[act]();
  }
}

const theSeeds = seedText === undefined ? seeds : [Number(seedText)];

describe('moving replicas of a volume to a named disk', () => {
  it.each(theSeeds)('ends with them there for good, whoever goes on with it (seed %i)', (seed) => {
    const bed = new Bed();
    bed.ask();
    runAll(bed, new SeededRandom(BigInt(seed)));
    expect(bed.job).toMatchObject({ state: 'done', error: null, runner: null, progress: { done: 2, total: 2 } });
    bed.settle();
    for (const leg of [0, 1]) expect(bed.disksOf(leg)).toEqual([disk(0), disk(2)]);
    // The PG names the first disk: back there nothing is to be remembered.
    bed.ask({ arguments: { ...bed.job.arguments, from: disk(2), to: disk(1) } });
    runAll(bed, new SeededRandom(BigInt(seed)));
    bed.settle();
    expect(bed.job.state).toBe('done');
    for (const { replicas } of bed.volume.legs)
      expect(replicas.map((entry) => entry.insteadOf)).toEqual([undefined, undefined]);
  });

  it.each(theSeeds)('called off at any moment, leaves every leg whole, on one of the two disks (seed %i)', (seed) => {
    const random = new SeededRandom(BigInt(seed));
    const bed = new Bed();
    bed.ask();
    const at = random.between(0, 12);
    runAll(bed, random, (turn) => {
      if (turn === at && bed.job.endedAtMs === null) bed.ask({ ...bed.job, cancelling: true });
    });
    expect(['cancelled', 'done']).toContain(bed.job.state);
    bed.settle();
    for (const leg of [0, 1]) {
      expect(bed.disksOf(leg)).toHaveLength(2);
      expect([disk(1), disk(2)]).toContain(bed.disksOf(leg)[1]);
    }
  });

  it('called off while it is copied, keeps the old replica and copies nothing', () => {
    const bed = new Bed();
    bed.ask();
    bed.run();
    const [old] = bed.volume.legs[0]?.replicas.filter((entry) => entry.disk === disk(1)) ?? [];
    expect(old?.leaving).toBe(true);
    expect(bed.job.waitsFor).toBe(`leg 0 is being copied to disk ${disk(2)}`);
    bed.ask({ ...bed.job, cancelling: true });
    bed.run();
    expect(bed.job).toMatchObject({
      state: 'cancelled',
      events: expect.arrayContaining([
        expect.objectContaining({ text: expect.stringMatching(/the old replica stays/) }),
      ]),
    });
    bed.rebuild();
    const kept = bed.volume.legs[0]?.replicas.map(({ replica }) => replica);
    expect(kept).toEqual([uuid(20), uuid(21)]);
  });

  it('promises space on the disk only if nothing was placed anywhere since it was looked at, and says so to the others', () => {
    const bed = new Bed();
    bed.ask();
    const places = (step: StoreStep | null): boolean =>
      step?.put.some(({ key }) => key === keys.volume(volumeId)) === true;
    const next = (): StoreStep => {
      for (let step = bed.plan('n0'); step !== null; step = bed.plan('n0')) {
        if (places(step)) return step;
        expect(bed.commit(step)).toBe(true);
      }
      throw new Error('the move never begins');
    };
    const late = next();
    // A volume that is made at the same time, or another move.
    bed.put(keys.placement, '{}');
    expect(bed.commit(late)).toBe(false);
    expect(bed.volume.legs[0]?.replicas).toHaveLength(2);
    const seen = bed.state.placementRevision;
    expect(bed.commit(next())).toBe(true);
    expect(bed.volume.legs[0]?.replicas).toHaveLength(3);
    expect(bed.state.placementRevision).not.toBe(seen);
  });

  it('fails when the disk is lost to the pool meanwhile, and the old replica is taken back as it is', () => {
    const bed = new Bed();
    bed.ask();
    bed.run();
    bed.setUp('n2', false);
    bed.run();
    expect(bed.job.waitsFor).toBe(`node n2 of disk ${disk(2)} is down`);
    bed.setMap([0, 1, 3, 5]);
    bed.rebuild();
    expect(bed.volume.legs[0]?.replicas.find((entry) => entry.disk === disk(1))).toMatchObject({ replica: uuid(21) });
    expect(bed.volume.legs[0]?.replicas.find((entry) => entry.disk === disk(1))?.leaving).toBeUndefined();
    bed.run();
    expect(bed.job).toMatchObject({ state: 'failed', error: { code: 'JOB_FAILED' } });
    bed.settle();
    expect(bed.disksOf(0)).toEqual([disk(0), disk(1)]);
  });

  it('is undone by the map, once that no longer names the disk that it was moved from', () => {
    const bed = new Bed();
    bed.ask();
    runAll(bed, new SeededRandom(1n));
    bed.setMap([2, 0, 3]);
    bed.settle();
    expect(bed.disksOf(0)).toEqual([disk(0), disk(2)]);
    expect(bed.volume.legs[0]?.replicas.find((entry) => entry.disk === disk(2))?.insteadOf).toBe(disk(1));
    bed.setMap([0, 3, 1]);
    bed.settle();
    expect(bed.disksOf(0)).toEqual([disk(0), disk(1)]);
  });

  it('takes a volume that nobody ever drove there without copying', () => {
    const bed = new Bed();
    bed.lead({ ...bed.leadership, epoch: 0, controller: null, instance: null, clean: true });
    bed.ask();
    for (let turn = 0; turn < 20; turn++) {
      bed.run();
      bed.rebuild();
      bed.bury();
    }
    expect(bed.job.state).toBe('done');
    expect(bed.disksOf(1)).toEqual([disk(0), disk(2)]);
    expect(bed.leadership.epoch).toBe(0);
  });

  it('waits, and says so, while nobody drives the volume', () => {
    const bed = new Bed();
    bed.setUp('n0', false);
    bed.ask();
    bed.run();
    expect(bed.job).toMatchObject({
      state: 'running',
      waitsFor: 'nobody drives v1: its replicas are copied when it is served',
    });
    expect(bed.volume.legs[0]?.replicas).toHaveLength(2);
    bed.setUp('n0', true);
    bed.run();
    expect(bed.volume.legs[0]?.replicas).toHaveLength(3);
  });

  it('waits for the copies of snapshots, and says which', () => {
    const bed = new Bed();
    const copies = [0, 1].map((at) => ({ leg: 0, replica: uuid(20 + at), disk: disk(at), node: nodes[at] ?? '' }));
    const snapshot = { format: 1 as const, id: uuid(50), name: 's', volumeId, phase: 'ready' as const, createdAtMs: 0 };
    const whole = { ...snapshot, failedCount: 0, leftovers: [], cut: { attempt: '00000001', epoch: 3, copies } };
    bed.put(keys.snapshot(uuid(50)), codecs.snapshot.encode(whole));
    bed.ask({ progress: { done: 0, total: 3, unit: 'replicas and copies' } });
    for (let turn = 0; turn < 20; turn++) {
      bed.run();
      bed.rebuild();
      bed.drive();
      bed.bury();
    }
    expect(bed.job).toMatchObject({
      state: 'running',
      progress: { done: 2, total: 3 },
      waitsFor: 'copies of v1@s are made on other disks',
    });
    const rest = { ...whole, cut: { ...whole.cut, copies: copies.slice(0, 1) } };
    bed.put(keys.snapshot(uuid(50)), codecs.snapshot.encode(rest));
    bed.run();
    expect(bed.job).toMatchObject({ state: 'done', progress: { done: 3 } });
  });

  it.each<[string, (bed: Bed) => void, { leg?: number; from?: number; to: number; more?: number }, RegExp]>([
    ['a leg that there is not', () => {}, { leg: 5, to: 2 }, /has no leg 5: it has 2/],
    [
      'a disk that has no replica of it',
      () => {},
      { from: 3, to: 2 },
      /no replica on disk .*103; it has them on .*100 \(n0\), .*101 \(n1\)/,
    ],
    ['a disk that has one already', () => {}, { to: 0 }, /leg 0 has a replica on disk .*100 already/],
    ['one failure domain', () => {}, { from: 0, to: 5 }, /disk .*105 stands in the same node \(n1\) as disk .*101/],
    ['a disk of another class', () => {}, { to: 4 }, /takes disks of class ssd, and disk .*104 is of class hdd/],
    [
      'a disk that is too small',
      (bed) => bed.setMap([0, 1, 2, 3], 4 * mib),
      { to: 2, more: 1 },
      /has 4194304 bytes left, and the 2 replicas may come to take 6291456/,
    ],
    ['a disk whose node is down', (bed) => bed.setUp('n2', false), { to: 2 }, /node n2 of disk .*102 is down/],
    ['a disk that the map has not', (bed) => bed.setMap([0, 1, 3]), { to: 2 }, /does not use disk .*102 yet/],
    ['a disk of no weight', (bed) => bed.putDisk(2, { weight: 0 }), { to: 2 }, /has the weight 0/],
    [
      'a cordoned disk',
      (bed) =>
        bed.put(
          keys.cordon('disk', disk(2)),
          codecs.cordon.encode({ format: 1, kind: 'disk', name: disk(2), mode: 'cordon', sinceMs: 0 }),
        ),
      { to: 2 },
      /is cordoned: it gets nothing new/,
    ],
    ['a disk that is gone', (bed) => bed.put(keys.disk(disk(2)), null), { to: 2 }, /is no part of the cluster/],
    ['a volume without a pool', (bed) => bed.put(keys.pool(poolId), null), { to: 2 }, /is in no pool/],
    ['what moves anyway', (bed) => bed.setMap([0, 2, 3, 5]), { to: 3 }, /is about to move: its PG has other disks now/],
  ])('is refused for %s', (_, change, at, reason) => {
    const bed = new Bed();
    const { leg = 0, from = 1, to, more = 0 } = at;
    expect(whyNotMove(bed.state, { volume: bed.volume, leg: 0, from: disk(1), to: disk(2) })).toBeNull();
    change(bed);
    expect(whyNotMove(bed.state, { volume: bed.volume, leg, from: disk(from), to: disk(to), more })).toMatch(reason);
  });

  it('takes them off a dead disk whose node is up, where nobody can copy to them', () => {
    const bed = new Bed();
    bed.ask();
    const { legs, ...rest } = bed.leadership;
    bed.lead({ ...rest, legs: legs.map((leg, index) => (index === 0 ? { inSync: leg.inSync.slice(0, 1) } : leg)) });
    bed.run();
    expect(bed.job.waitsFor).toBe(`leg 0 is being copied to disk ${disk(2)}`);
  });

  it('may go to another disk of the domain that it leaves', () => {
    const bed = new Bed();
    expect(whyNotMove(bed.state, { volume: bed.volume, leg: 0, from: disk(1), to: disk(5) })).toBeNull();
  });
});
