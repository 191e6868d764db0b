// SPDX-License-Identifier: Apache-2.0
//
// Starting, showing and cancelling jobs. Nodes run them (src/agents/job-agent.ts); here they are only written down.
//
// Invariants:  - a job comes into the store together with what it stands on, or not at all
//              - while a job is under way, the same wish again gives that job
//              - a job on a volume rewrites the volume: of two requests at once, the later one sees the job of the earlier

import type { Clock } from '../env/clock.js';
import { systemClock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import type { ChangePoolRequest, MoveReplicaRequest, ScrubVolumeRequest } from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { hasEnded, type JobKind, type JobObject, type JobView } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { refuseMultiActive } from '../model/multi-active.js';
import { codecs, formatVersion, type VolumeObject } from '../model/objects.js';
import { restOfChange, whyNotChange } from '../reconcile/change-pool.js';
import { controllerNodes } from '../reconcile/controllers.js';
import { legsOn, restOfMove, whyNotMove } from '../reconcile/move-replica.js';
import { whyNot } from '../reconcile/rollback.js';
import type { Change, Store, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { readState } from './read-state.js';
import { requireSnapshot } from './snapshots.js';
import { requireVolume } from './volumes.js';

export interface JobDeps {
  readonly store: Store;
  readonly random: Random;
  /** @default the machine's */
  readonly clock?: Clock;
}

export interface JobWish {
  readonly kind: JobKind;
  readonly arguments: Readonly<Record<string, string>>;
  readonly total: number;
  readonly unit: string;
}

export function jobView({ format: _, ...view }: JobObject): JobView {
  return view;
}

/** The job that does it already, or a new one with the change that writes it down. */
export function jobFor(
  deps: JobDeps,
  state: ClusterState,
  wish: JobWish,
): { job: JobObject; changes: Change[]; conditions: Txn['conditions'] } {
  const same = JSON.stringify(wish.arguments);
  const known = state
    .all('jobs')
    .find((job) => !hasEnded(job) && job.kind === wish.kind && JSON.stringify(job.arguments) === same);
  if (known !== undefined && !known.cancelling) return { job: known, changes: [], conditions: [] };
  const createdAtMs = Math.floor((deps.clock ?? systemClock).wallMs());
  const job: JobObject = {
    format: formatVersion,
    id: deps.random.uuid(),
    kind: wish.kind,
    arguments: { ...wish.arguments },
    state: 'queued',
    cancelling: false,
    progress: { done: 0, total: wish.total, unit: wish.unit },
    waitsFor: null,
    createdAtMs,
    startedAtMs: null,
    endedAtMs: null,
    error: null,
    runner: null,
    events: [],
  };
  const key = keys.job(job.id);
  return {
    job,
    conditions: [{ key, modRevision: 0 }],
    changes: [{ kind: 'put', key, value: codecs.job.encode(job) }],
  };
}

export async function listJobs(deps: Pick<JobDeps, 'store'>): Promise<JobView[]> {
  const { state } = await readState(deps.store);
  return state
    .all('jobs')
    .sort((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1))
    .map(jobView);
}

export async function showJob(deps: Pick<JobDeps, 'store'>, id: string): Promise<JobView> {
  const job = (await readState(deps.store)).state.get('jobs', id);
  if (job === null) throw new BasaltError('NOT_FOUND', { kind: 'job', name: id });
  return jobView(job);
}

/** Asks for the job's end. The job says when it has ended, and how. */
export function cancelJob(deps: Pick<JobDeps, 'store'>, id: string): Promise<JobView> {
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = state.stored('jobs', id);
    if (stored === null) throw new BasaltError('NOT_FOUND', { kind: 'job', name: id });
    const job = stored.value;
    if (hasEnded(job) && job.state !== 'cancelled') throw new BasaltError('JOB_ENDED', { id, state: job.state });
    if (hasEnded(job) || job.cancelling) return { txn: null, result: jobView(job) };
    const next = { ...job, cancelling: true };
    const txn: Txn = {
      conditions: [{ key: stored.key, modRevision: stored.revision }],
      changes: [{ kind: 'put', key: stored.key, value: codecs.job.encode(next) }],
    };
    return { txn, result: jobView(next) };
  });
}

/** Has the volume driven by `to` from soon on, with its hosts' I/O under way. */
export function moveController(deps: JobDeps, name: string, to: string): Promise<JobView> {
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, name);
    const { value: volume } = stored;
    if (volume.parts !== undefined) refuseMultiActive(volume, 'moving its controllers by hand');
    assertController(state, to);
    const others = state
      .all('jobs')
      .find(
        (job) => !hasEnded(job) && job.kind === 'volume.move-controller' && job.arguments['volumeId'] === volume.id,
      );
    if (others !== undefined && others.arguments['to'] !== to)
      throw new BasaltError('BUSY', {
        kind: 'volume',
        name: volume.name,
        detail: `job ${others.id} hands it over to ${others.arguments['to']}`,
      });
    const holder = state.get('leaderships', volume.id)?.controller ?? null;
    if (holder !== null && state.get('lives', holder)?.kind === 'embedded')
      throw new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail: `open in the process ${holder}` });
    const wish = {
      kind: 'volume.move-controller' as const,
      arguments: { volumeId: volume.id, volume: volume.name, to },
    };
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total: 1, unit: 'volumes' });
    return { txn: changes.length === 0 ? null : onVolume(stored, { conditions, changes }), result: jobView(job) };
  });
}

/** Jobs that decide where a volume's replicas are, or make others of them: one at a time. */
const placing: ReadonlySet<string> = new Set<JobKind>(['volume.move-replica', 'volume.change-pool', 'volume.rollback']);

/** Gives the volume to another pool, while it is used. Refused with what stands in the way. */
export function changePool(deps: JobDeps, name: string, request: ChangePoolRequest): Promise<JobView> {
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, name);
    const { value: volume } = stored;
    if (volume.parts !== undefined) refuseMultiActive(volume, 'another pool for all of it');
    const pool = state.poolByName(request.pool);
    if (pool === null) throw new BasaltError('NOT_FOUND', { kind: 'pool', name: request.pool });
    const open = state.all('jobs').filter((job) => !hasEnded(job) && job.arguments['volumeId'] === volume.id);
    const same = open.find((job) => job.kind === 'volume.change-pool' && job.arguments['to'] === pool.id);
    if (same !== undefined && !same.cancelling) return { txn: null, result: jobView(same) };
    const other = open.find(({ kind }) => placing.has(kind));
    if (other !== undefined)
      throw new BasaltError('BUSY', {
        kind: 'volume',
        name: volume.name,
        detail: `job ${other.id} (${other.kind}) is under way`,
      });
    const why = volume.pool === pool.id ? `it is in pool ${pool.name} already` : whyNotChange(state, volume, pool.id);
    if (why !== null) throw new BasaltError('MOVE_REFUSED', { name: volume.name, problem: why });
    const asked = { volumeId: volume.id, volume: volume.name, pool: pool.name, from: volume.pool ?? '', to: pool.id };
    const rest = restOfChange(state, asked);
    const wish = { kind: 'volume.change-pool' as const, arguments: asked };
    const total = rest.replicas + rest.snapshotCopies;
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total, unit: 'replicas and copies' });
    return { txn: onVolume(stored, { conditions, changes }), result: jobView(job) };
  });
}

/** Has the volume's replicas on one disk move to another one, while it is used. Refused with what stands in the way. */
export function moveReplica(deps: JobDeps, name: string, request: MoveReplicaRequest): Promise<JobView> {
  const { leg: only, from, to } = request;
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, name);
    const { value: volume } = stored;
    if (volume.parts !== undefined) refuseMultiActive(volume, 'moving replicas of all of it');
    const asked = {
      volumeId: volume.id,
      volume: volume.name,
      asked: only === undefined ? 'all' : String(only),
      from,
      to,
    };
    const busy = (detail: string): BasaltError =>
      new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail });
    const refuse = (problem: string): BasaltError => new BasaltError('MOVE_REFUSED', { name: volume.name, problem });
    const open = state.all('jobs').filter((job) => !hasEnded(job) && job.arguments['volumeId'] === volume.id);
    const same = open.find((job) => Object.entries(asked).every(([field, value]) => job.arguments[field] === value));
    if (same !== undefined && !same.cancelling) return { txn: null, result: jobView(same) };
    const other = open.find(({ kind }) => placing.has(kind));
    if (other !== undefined) throw busy(`job ${other.id} (${other.kind}) is under way`);
    for (const disk of [from, to])
      if (state.get('disks', disk) === null) throw new BasaltError('NOT_FOUND', { kind: 'disk', name: disk });
    const legs = only === undefined ? legsOn(volume, from) : [only];
    if (legs.length === 0) throw refuse(`none of its legs has a replica on disk ${from}`);
    for (const leg of legs) {
      const why = whyNotMove(state, { volume, leg, from, to, more: legs.length - 1 });
      if (why !== null) throw refuse(why);
    }
    const rest = restOfMove(state, { volumeId: volume.id, legs, from, to });
    const wish = { kind: 'volume.move-replica' as const, arguments: { ...asked, legs: legs.join(',') } };
    const total = rest.replicas + rest.snapshotCopies;
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total, unit: 'replicas and copies' });
    return { txn: onVolume(stored, { conditions, changes }), result: jobView(job) };
  });
}

/** Has all members of the volume compared, and made equal where they differ. */
export function scrubVolume(deps: JobDeps, name: string, request: ScrubVolumeRequest): Promise<JobView> {
  const { bytesPerS = 0, repair = true } = request;
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, name);
    const { value: volume } = stored;
    if (volume.parts !== undefined) refuseMultiActive(volume, 'a scrub of all of it');
    const wish = {
      kind: 'volume.scrub' as const,
      arguments: { volumeId: volume.id, volume: volume.name, bytesPerS: String(bytesPerS), repair: String(repair) },
    };
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total: 100, unit: 'percent' });
    if (changes.length === 0) return { txn: null, result: jobView(job) };
    const other = state
      .all('jobs')
      .find((each) => !hasEnded(each) && each.kind === wish.kind && each.arguments['volumeId'] === volume.id);
    if (other !== undefined)
      throw new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail: `job ${other.id} scrubs it` });
    return { txn: onVolume(stored, { conditions, changes }), result: jobView(job) };
  });
}

/** Has the volume hold what its snapshot does, in place. Refused with what stands in the way. */
export function rollBack(deps: JobDeps, at: { volume: string; snapshot: string }): Promise<JobView> {
  return attempt<JobView>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, at.volume);
    const { value: volume } = stored;
    refuseMultiActive(volume, 'going back to a snapshot');
    const { value: snapshot } = requireSnapshot(state, volume, at.snapshot);
    const full = `${volume.name}@${snapshot.name}`;
    const wish = {
      kind: 'volume.rollback' as const,
      arguments: { volumeId: volume.id, volume: volume.name, snapshotId: snapshot.id, snapshot: full },
    };
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total: 2, unit: 'steps' });
    if (changes.length === 0) return { txn: null, result: jobView(job) };
    const busy = (detail: string): BasaltError =>
      new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail });
    const other = state.all('jobs').find((each) => !hasEnded(each) && each.arguments['volumeId'] === volume.id);
    if (other !== undefined) throw busy(`job ${other.id} (${other.kind}) is under way`);
    const leadership = state.get('leaderships', volume.id);
    if (leadership === null) throw busy('it is being made');
    const why = whyNot(state, { volume, leadership, snapshot });
    if (why !== null) throw busy(why);
    return { txn: onVolume(stored, { conditions, changes }), result: jobView(job) };
  });
}

/** Placed or attached since, or given another job: then it is looked at again. The volume's revision is all that changes. */
function onVolume({ key, revision, value }: Stored<VolumeObject>, { conditions, changes }: Txn): Txn {
  return {
    conditions: [...conditions, { key, modRevision: revision }],
    changes: [...changes, { kind: 'put', key, value: codecs.volume.encode(value) }],
  };
}

function assertController(state: ClusterState, to: string): void {
  const able = controllerNodes(state);
  if (able.includes(to)) return;
  const node = state.get('nodes', to);
  const list = `those that can take it are ${able.join(', ') || 'none'}`;
  const problem =
    node === null || !node.roles.includes('controller')
      ? `${to} is no controller node; ${list}`
      : `${to} is down, stopping or cordoned; ${list}`;
  throw new BasaltError('INVALID_ARGUMENT', { field: 'to', problem });
}
