// SPDX-License-Identifier: Apache-2.0
//
// Goal: a job does what it is for whoever runs it, however often its runner dies; and a step changes nothing but what it
// was planned on. Method: a cluster state in memory, moved on by the planned steps and by what agents would do, in random
// order; the runner is another one after every write, and steps that lost their race are thrown away.

import { describe, expect, it } from 'vitest';
import { systemRandom } from '../env/random.js';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterState } from '../model/cluster-state.js';
import type { JobObject } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type LiveObject, type VolumeObject } from '../model/objects.js';
import { restOf } from './drain.js';
import { shouldHandOver } from './hand-over.js';
import { moveTimeoutMs, planJob } from './jobs.js';
import { isGranted, planGrant, planNewEpoch } from './membership.js';
import type { StoreStep } from './store-step.js';

const uuid = (index: number): string => `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
const volumeId = uuid(1);
const jobId = uuid(2);
const disk = uuid(10);

class Cluster {
  readonly state = new ClusterState();
  #revision = 0;

  put(key: string, text: string): void {
    this.state.apply(key, text, ++this.#revision);
  }

  remove(key: string): void {
    this.state.apply(key, null, ++this.#revision);
  }

  /** As the store does it: all of it, or nothing when something is not as it was. */
  commit(step: StoreStep): boolean {
    const revisionOf = (key: string): number | null => {
      for (const kind of ['jobs', 'cordons', 'handOvers', 'volumes', 'leaderships'] as const)
        for (const id of [key.split('/').at(-1) ?? '', key.split('/').slice(-2).join('/')]) {
          const stored = this.state.stored(kind, id);
          if (stored?.key === key) return stored.revision;
        }
      return null;
    };
    if (step.expect.some(({ key, revision }) => revisionOf(key) !== revision)) return false;
    for (const { key, text } of step.put) this.put(key, text);
    for (const key of step.remove) this.remove(key);
    return true;
  }

  live(name: string, over: Partial<LiveObject> = {}): void {
    const at = { traddr: '127.0.0.1', trsvcid: '1' };
    const live: LiveObject = {
      format: 1,
      name,
      kind: 'node',
      incarnation: `${name}-1`,
      engine: 'fake',
      roles: ['controller', 'disk'],
      internal: at,
      hosts: at,
      draining: false,
      ...over,
    };
    this.put(keys.live(name), codecs.live.encode(live));
    this.put(keys.node(name), codecs.node.encode({ format: 1, name, roles: ['controller', 'disk'] }));
  }

  volume(over: Partial<VolumeObject>): void {
    const volume: VolumeObject = {
      format: 1,
      id: volumeId,
      name: 'v1',
      sizeBytes: 4096,
      blockSizeBytes: 4096,
      stripeSizeBytes: 65536,
      copies: 1,
      legSizeBytes: 2 ** 20,
      legs: [],
      controllers: ['n1', 'n2'],
      hosts: [],
      nbd: [],
      phase: 'live',
      ...over,
    };
    this.put(keys.volume(volume.id), codecs.volume.encode(volume));
  }

  lead(over: Partial<Leadership>): void {
    const known = this.state.get('leaderships', volumeId);
    const first: Leadership = {
      format: 1,
      volumeId,
      epoch: 1,
      controller: 'n1',
      instance: uuid(100),
      clean: false,
      leaseMs: 300,
      legs: [],
    };
    this.put(keys.leadership(volumeId), codecs.leadership.encode({ ...(known ?? first), ...over }));
  }

  show(node: string): void {
    const leadership = this.state.get('leaderships', volumeId);
    const active = leadership?.controller === node && leadership.instance !== null;
    const text = codecs.observedVolume.encode({
      format: 1,
      volumeId,
      node,
      state: active ? 'active' : 'standby',
      epoch: active ? leadership.epoch : 0,
      address: null,
      resyncing: false,
      legs: [],
      nbd: [],
      problem: null,
    });
    this.put(keys.observedVolume(volumeId, node), text);
  }

  job(over: Partial<JobObject>): void {
    const job: JobObject = {
      format: 1,
      id: jobId,
      kind: 'volume.move-controller',
      arguments: { volumeId, to: 'n2' },
      state: 'queued',
      cancelling: false,
      progress: { done: 0, total: 1, unit: 'volumes' },
      waitsFor: null,
      createdAtMs: 0,
      startedAtMs: null,
      endedAtMs: null,
      error: null,
      runner: null,
      events: [],
      ...over,
    };
    this.put(keys.job(job.id), codecs.job.encode(job));
  }

  get theJob(): JobObject {
    const job = this.state.get('jobs', jobId);
    if (job === null) throw new Error('no job');
    return job;
  }

  plan(runner: string, ageMs = 0): StoreStep | null {
    const stored = this.state.stored('jobs', jobId);
    if (stored === null) throw new Error('no job');
    const at = {
      state: this.state,
      wallMs: 7,
      ageMs,
      runner: { node: runner, incarnation: `${runner}-1` },
      newUuid: () => uuid(99),
    };
    return planJob(at, stored);
  }

  /** One of the things that nodes do by themselves. */
  react(random: SeededRandom): void {
    const { state } = this;
    const volume = state.get('volumes', volumeId);
    const leadership = state.get('leaderships', volumeId);
    if (volume === null || leadership === null) return;
    const node = ['n1', 'n2', 'n3'][Math.floor(random.fraction() * 3)] ?? 'n1';
    const to = shouldHandOver(state, { volume, leadership, me: node });
    if (to !== null) return this.lead(planGrant(leadership, to));
    if (isGranted(leadership, node)) return this.lead({ instance: random.uuid(), clean: false });
    if (volume.controllers.includes(node)) this.show(node);
    else if (state.get('observedVolumes', `${volumeId}/${node}`) !== null)
      this.remove(keys.observedVolume(volumeId, node));
  }
}

function cluster(): Cluster {
  const made = new Cluster();
  for (const name of ['n1', 'n2', 'n3']) made.live(name);
  made.volume({});
  made.lead({});
  return made;
}

/** Until the job has ended: runners that change after every write, and some that come too late. */
function runAll(at: Cluster, random: SeededRandom): void {
  for (let turn = 0; at.theJob.endedAtMs === null; turn++) {
    if (turn > 2_000) throw new Error(`does not end: ${JSON.stringify(at.theJob)}`);
    const late = random.fraction() < 0.3 ? at.plan('n1') : null;
    const step = at.plan(`n${1 + Math.floor(random.fraction() * 3)}`);
    if (step !== null && at.commit(step) && late !== null) expect(at.commit(late)).toBe(false);
    for (let count = random.fraction() * 4; count > 0; count--) at.react(random);
  }
}

const seeds = Array.from({ length: 30 }, () => systemRandom.bytes(4).readUInt32LE());

describe('moving a controller', () => {
  it.each([...(process.env['BASALT_SEED'] === undefined ? seeds : [Number(process.env['BASALT_SEED'])])])(
    'ends with the volume where it was sent to, whoever goes on with it (seed %i)',
    (seed) => {
      const random = new SeededRandom(BigInt(seed));
      const to = random.fraction() < 0.5 ? 'n2' : 'n3';
      const at = cluster();
      at.job({ arguments: { volumeId, to } });
      runAll(at, random);
      expect(at.theJob).toMatchObject({ state: 'done', error: null, runner: null, progress: { done: 1 } });
      expect(at.state.get('leaderships', volumeId)).toMatchObject({ controller: to, epoch: 2 });
      expect(at.state.all('handOvers')).toEqual([]);
    },
  );

  it('asks for nothing twice, and for nothing before the other one is ready', () => {
    const at = cluster();
    at.job({});
    at.show('n1');
    const waits = at.plan('n1');
    expect(waits?.put).toHaveLength(1);
    at.commit(waits as StoreStep);
    expect(at.theJob.waitsFor).toMatch(/n2 does not serve v1 as a standby/);
    expect(at.plan('n1')).toBeNull();
    at.show('n2');
    at.commit(at.plan('n1') as StoreStep);
    expect(at.state.get('handOvers', volumeId)).toMatchObject({ to: 'n2', epoch: 1 });
    at.commit(at.plan('n1') as StoreStep);
    expect(at.plan('n1')).toBeNull();
  });

  it('takes its wish back when it is cancelled or late, and when the volume is gone', () => {
    for (const [change, ageMs, state] of [
      [(at: Cluster) => at.job({ ...at.theJob, cancelling: true }), 0, 'cancelled'],
      [() => {}, moveTimeoutMs, 'failed'],
      [(at: Cluster) => at.remove(keys.volume(volumeId)), 0, 'failed'],
    ] as const) {
      const at = cluster();
      at.job({});
      for (const node of ['n1', 'n2']) at.show(node);
      at.commit(at.plan('n1') as StoreStep);
      expect(at.state.all('handOvers')).toHaveLength(1);
      change(at);
      at.commit(at.plan('n1', ageMs) as StoreStep);
      expect(at.theJob.state).toBe(state);
      expect(at.state.all('handOvers')).toEqual([]);
      expect(at.plan('n1')).toBeNull();
    }
  });

  it('means the epoch that it was asked for: after a failover the old wish moves nothing', () => {
    const at = cluster();
    at.job({});
    for (const node of ['n1', 'n2']) at.show(node);
    at.commit(at.plan('n1') as StoreStep);
    const leadership = at.state.get('leaderships', volumeId) as Leadership;
    at.lead(planNewEpoch(leadership, { controller: 'n1', instance: uuid(101) }));
    const volume = at.state.get('volumes', volumeId) as VolumeObject;
    const now = at.state.get('leaderships', volumeId) as Leadership;
    expect(shouldHandOver(at.state, { volume, leadership: now, me: 'n1' })).toBeNull();
  });
});

describe('draining a node', () => {
  const drained = (): Cluster => {
    const at = cluster();
    at.put(
      keys.cordon('node', 'n1'),
      codecs.cordon.encode({ format: 1, kind: 'node', name: 'n1', mode: 'drain', sinceMs: 0 }),
    );
    at.job({ kind: 'node.drain', arguments: { node: 'n1' } });
    return at;
  };

  it.each(seeds.slice(0, 15))('has its volumes served by others, whoever goes on with it (seed %i)', (seed) => {
    const at = drained();
    runAll(at, new SeededRandom(BigInt(seed)));
    expect(at.theJob).toMatchObject({ state: 'done', error: null });
    const volume = at.state.get('volumes', volumeId);
    expect([...(volume?.controllers ?? [])].sort()).toEqual(['n2', 'n3']);
    expect(new Set(volume?.controllerSlots).size).toBe(2);
    expect(volume?.controllerSlots).not.toContain(0);
    expect(at.state.get('leaderships', volumeId)?.controller).not.toBe('n1');
    expect(at.state.get('cordons', 'node/n1')?.mode).toBe('drain');
  });

  it('does not take a node from the controllers to which the volume was granted at that moment', () => {
    const at = cluster();
    at.put(
      keys.cordon('node', 'n2'),
      codecs.cordon.encode({ format: 1, kind: 'node', name: 'n2', mode: 'drain', sinceMs: 0 }),
    );
    at.volume({ controllers: ['n1', 'n2', 'n3'] });
    for (const node of ['n1', 'n2', 'n3']) at.show(node);
    at.job({ kind: 'node.drain', arguments: { node: 'n2' } });
    const takes = (step: StoreStep | null): boolean =>
      step?.put.some(({ key }) => key === keys.volume(volumeId)) === true;
    let late = at.plan('n1') as StoreStep;
    for (let turn = 0; turn < 10 && !takes(late); turn++) {
      at.commit(late);
      late = at.plan('n1') as StoreStep;
    }
    expect(takes(late)).toBe(true);
    at.lead(planGrant(at.state.get('leaderships', volumeId) as Leadership, 'n2'));
    expect(at.commit(late)).toBe(false);
    expect(at.state.get('volumes', volumeId)?.controllers).toContain('n2');
  });

  it('leaves the node cordoned when it is cancelled, and ends when the node is uncordoned', () => {
    const cancelled = drained();
    cancelled.job({ ...cancelled.theJob, cancelling: true });
    cancelled.commit(cancelled.plan('n2') as StoreStep);
    expect(cancelled.theJob.state).toBe('cancelled');
    expect(cancelled.state.get('cordons', 'node/n1')?.mode).toBe('cordon');
    const freed = drained();
    freed.remove(keys.cordon('node', 'n1'));
    freed.commit(freed.plan('n2') as StoreStep);
    expect(freed.theJob.state).toBe('cancelled');
  });

  it('waits, and says for what, while nobody else can serve a volume', () => {
    const at = drained();
    for (const name of ['n2', 'n3']) at.remove(keys.live(name));
    at.commit(at.plan('n1') as StoreStep);
    expect(at.theJob).toMatchObject({ state: 'running', waitsFor: expect.stringMatching(/no other controller node/) });
    expect(at.plan('n1')).toBeNull();
  });
});

describe('draining a disk', () => {
  it('counts what is left, and ends when nothing names the disk', () => {
    const at = cluster();
    const object = {
      format: 1 as const,
      id: disk,
      cluster: uuid(11),
      node: 'n1',
      path: '/d',
      lvstore: 'l',
      clusterSizeBytes: 4096,
      totalBytes: 2 ** 30,
      freeBytes: 0,
      buffered: false,
    };
    at.put(keys.disk(disk), codecs.disk.encode(object));
    at.put(
      keys.cordon('disk', disk),
      codecs.cordon.encode({ format: 1, kind: 'disk', name: disk, mode: 'drain', sinceMs: 0 }),
    );
    at.job({ kind: 'disk.drain', arguments: { disk }, progress: { done: 0, total: 2, unit: 'replicas' } });
    const leg = (count: number) => ({
      replicas: Array.from({ length: count }, (_, index) => ({ replica: uuid(20 + index), disk, node: 'n1' })),
    });
    at.volume({ legs: [leg(1), leg(1)] });
    at.commit(at.plan('n2') as StoreStep);
    expect(at.theJob.progress).toMatchObject({ done: 0, total: 2 });
    at.volume({ legs: [leg(0), leg(1)] });
    at.commit(at.plan('n2') as StoreStep);
    expect(at.theJob).toMatchObject({ state: 'running', progress: { done: 1, total: 2 } });
    at.put(
      keys.tombstone(uuid(20)),
      codecs.tombstone.encode({ format: 1, replica: uuid(20), disk, volumeId, epoch: 1 }),
    );
    at.volume({ legs: [leg(0), leg(0)] });
    at.commit(at.plan('n2') as StoreStep);
    expect(at.theJob).toMatchObject({ state: 'running', waitsFor: 'moved replicas are being deleted' });
    at.remove(keys.tombstone(uuid(20)));
    const leftover = { lvol: 'x', replica: uuid(20), disk, node: 'n1', epoch: 1 };
    const snapshot = { format: 1 as const, id: uuid(30), name: 's', volumeId, createdAtMs: 0, failedCount: 0 };
    const deleting = codecs.snapshot.encode({ ...snapshot, phase: 'deleting', leftovers: [leftover] });
    at.put(keys.snapshot(uuid(30)), deleting);
    const target = { kind: 'disk' as const, name: disk };
    expect(restOf(at.state, target).snapshotCopies).toBe(1);
    at.remove(keys.live('n1'));
    expect(restOf(at.state, target).snapshotCopies).toBe(0);
    at.live('n1');
    at.commit(at.plan('n2') as StoreStep);
    expect(at.theJob).toMatchObject({ state: 'running', waitsFor: expect.stringContaining('being deleted') });
    at.remove(keys.snapshot(uuid(30)));
    at.commit(at.plan('n2') as StoreStep);
    expect(at.theJob).toMatchObject({ state: 'done', progress: { done: 2, total: 2 } });
  });
});
