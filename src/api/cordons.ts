// SPDX-License-Identifier: Apache-2.0
//
// Cordoning, draining and removing disks and nodes.
//
// Invariants:  - a drain that could not end is refused before anything moves, with the smallest change that would do
//              - a cordon and the job that empties the disk come into the store together
//              - a disk is removed only when no volume, map or pool of the store names it

import type { Clock } from '../env/clock.js';
import { systemClock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import type { DrainPlanView, PoolPlanView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { type CordonMode, type CordonObject, hasEnded, type JobView } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type VolumeObject } from '../model/objects.js';
import type { PgPlanner } from '../placement/planner.js';
import { controllerNodes } from '../reconcile/controllers.js';
import { type DrainTarget, drainedDisks, restOf, waitingFor } from '../reconcile/drain.js';
import type { Change, Store, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { jobFor, jobView } from './jobs.js';
import { planWithout } from './pools.js';
import { readState } from './read-state.js';

export interface CordonDeps {
  readonly store: Store;
  readonly random: Random;
  readonly planner: PgPlanner;
  /** @default the machine's */
  readonly clock?: Clock;
}

/** Nothing new is placed there; what is there stays. */
export function cordon(deps: CordonDeps, target: DrainTarget): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    assertThere(state, target);
    const stored = state.stored('cordons', `${target.kind}/${target.name}`);
    if (stored !== null) return { txn: null, result: undefined };
    return { txn: put(deps, state, { target, mode: 'cordon' }), result: undefined };
  });
}

/** It takes new replicas again. A drain that is under way ends; a disk that was removed is a disk again. */
export function uncordon(deps: Pick<CordonDeps, 'store'>, target: DrainTarget): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    const stored = state.stored('cordons', `${target.kind}/${target.name}`);
    if (stored === null) {
      assertThere(state, target);
      return { txn: null, result: undefined };
    }
    const conditions = [{ key: stored.key, modRevision: stored.revision }];
    return { txn: { conditions, changes: [{ kind: 'delete', key: stored.key }] }, result: undefined };
  });
}

/** Starts the job that empties it. @throws DRAIN_REFUSED, NOT_FOUND */
export function drain(deps: CordonDeps, target: DrainTarget): Promise<JobView> {
  return attempt<JobView>(deps.store, async ({ state }) => {
    await planDrain(deps, state, target);
    const rest = restOf(state, target);
    const wish =
      target.kind === 'disk'
        ? { kind: 'disk.drain' as const, arguments: { disk: target.name } }
        : { kind: 'node.drain' as const, arguments: { node: target.name } };
    const total = rest.replicas + rest.controllers + rest.snapshotCopies;
    const unit = target.kind === 'disk' ? 'replicas and copies' : 'replicas, copies and controllers';
    const { job, changes, conditions } = jobFor(deps, state, { ...wish, total, unit });
    if (changes.length === 0) return { txn: null, result: jobView(job) };
    const mode = put(deps, state, { target, mode: 'drain' });
    const txn = { conditions: [...conditions, ...mode.conditions], changes: [...changes, ...mode.changes] };
    return { txn, result: jobView(job) };
  });
}

/** What draining it would move, with nothing changed. @throws DRAIN_REFUSED, NOT_FOUND */
export async function previewDrain(deps: CordonDeps, target: DrainTarget): Promise<DrainPlanView> {
  const { state } = await readState(deps.store);
  return planDrain(deps, state, target);
}

/** Takes a disk that holds nothing out of the cluster. Its contents stay as they are. */
export function removeDisk(deps: CordonDeps, id: string): Promise<void> {
  const target = { kind: 'disk' as const, name: id };
  return attempt<void>(deps.store, async ({ state }) => {
    const stored = state.stored('disks', id);
    const marked = state.get('cordons', `disk/${id}`)?.mode ?? null;
    if (stored === null && marked === 'removed') return { txn: null, result: undefined };
    if (stored === null) throw new BasaltError('NOT_FOUND', { kind: 'disk', name: id });
    const rest = restOf(state, target);
    const busy = (detail: string): BasaltError => new BasaltError('BUSY', { kind: 'disk', name: id, detail });
    if (rest.replicas > 0) throw busy(`it holds ${count(rest.replicas, 'replica')}; drain it first`);
    if (rest.maps > 0) throw busy(`${count(rest.maps, 'pool')} would place data on it; drain it first`);
    if (rest.snapshotCopies > 0)
      throw busy(`it holds ${count(rest.snapshotCopies, 'copy', 'copies')} of snapshots; drain it first`);
    if (rest.tombstones > 0) throw busy(`it has yet to delete ${count(rest.tombstones, 'replica')} that moved`);
    const running = state.all('jobs').find((job) => !hasEnded(job) && job.arguments['disk'] === id);
    if (running !== undefined) throw busy(`job ${running.id} drains it`);
    const mark = put(deps, state, { target, mode: 'removed' });
    const buried = state.all('tombstones').filter((entry) => entry.disk === id);
    const txn: Txn = {
      conditions: [{ key: stored.key, modRevision: stored.revision }, ...mark.conditions],
      changes: [
        { kind: 'delete', key: stored.key },
        ...mark.changes,
        ...buried.slice(0, buriedMax).map((entry): Change => ({ kind: 'delete', key: keys.tombstone(entry.replica) })),
      ],
    };
    return { txn, result: undefined };
  });
}

/** Of a disk that is gone for good; a transaction holds a bounded number of keys. */
const buriedMax = 100;

function put(
  deps: CordonDeps,
  state: ClusterState,
  at: { target: DrainTarget; mode: CordonMode },
): { conditions: Txn['conditions']; changes: Change[] } {
  const { kind, name } = at.target;
  const key = keys.cordon(kind, name);
  const sinceMs = Math.floor((deps.clock ?? systemClock).wallMs());
  const object: CordonObject = { format: formatVersion, kind, name, mode: at.mode, sinceMs };
  const modRevision = state.stored('cordons', `${kind}/${name}`)?.revision ?? 0;
  return { conditions: [{ key, modRevision }], changes: [{ kind: 'put', key, value: codecs.cordon.encode(object) }] };
}

function assertThere(state: ClusterState, { kind, name }: DrainTarget): void {
  const found = kind === 'disk' ? state.get('disks', name) : state.get('nodes', name);
  if (found === null) throw new BasaltError('NOT_FOUND', { kind, name });
}

async function planDrain(deps: CordonDeps, state: ClusterState, target: DrainTarget): Promise<DrainPlanView> {
  assertThere(state, target);
  const refuse = (problem: string): BasaltError => new BasaltError('DRAIN_REFUSED', { ...target, problem });
  const disks = drainedDisks(state, target);
  const pools: PoolPlanView[] = [];
  for (const pool of state.all('pools')) {
    if (state.get('pgMaps', pool.id)?.disks.some((disk) => disks.has(disk.id)) !== true) continue;
    try {
      pools.push(await planWithout(deps, state, { pool, disks }));
    } catch (error) {
      if (!(error instanceof BasaltError) || error.code !== 'PLACEMENT_IMPOSSIBLE') throw error;
      throw refuse(`pool ${pool.name}: ${String(error.fields['problem'] ?? error.message)}`);
    }
  }
  const held = state.all('volumes').filter((volume) => holdsOn(volume, disks));
  const old = held.find((volume) => volume.pool === undefined || state.get('pgMaps', volume.pool) === null);
  if (old !== undefined) throw refuse(`volume ${old.name} is in no pool: copy it into a new volume and delete it`);
  const controllers = target.kind === 'node' ? heirs(state, target.name, refuse) : [];
  const waitsFor = waitingFor(state, target);
  const rest = restOf(state, target);
  return {
    ...target,
    replicas: rest.replicas,
    snapshotCopies: rest.snapshotCopies,
    bytes: held.reduce((sum, volume) => sum + bytesOn(volume, disks), 0),
    pools,
    controllers,
    waitsFor: rest.replicas > 0 && rest.maps === 0 ? waitsFor : null,
  };
}

function holdsOn(volume: VolumeObject, disks: ReadonlySet<string>): boolean {
  return volume.legs.some((leg) => leg.replicas.some((entry) => disks.has(entry.disk)));
}

function bytesOn(volume: VolumeObject, disks: ReadonlySet<string>): number {
  return (
    volume.legs.flatMap((leg) => leg.replicas.filter((entry) => disks.has(entry.disk))).length * volume.legSizeBytes
  );
}

/** Who takes over each volume that the node is a controller of. */
function heirs(
  state: ClusterState,
  node: string,
  refuse: (problem: string) => BasaltError,
): DrainPlanView['controllers'] {
  const able = controllerNodes(state).filter((name) => name !== node);
  return state.all('volumes').flatMap((volume) => {
    if (volume.phase !== 'live' || !volume.controllers.includes(node)) return [];
    const to = volume.controllers.find((name) => able.includes(name)) ?? able[0];
    if (to === undefined)
      throw refuse(`volume ${volume.name} has no other controller node that is up and not cordoned: start one`);
    const exported = volume.nbd.find((entry) => entry.node === node);
    if (exported !== undefined)
      throw refuse(
        `volume ${volume.name} is exported over NBD there: detach ${exported.path}, and attach it elsewhere`,
      );
    return [{ volume: volume.name, to }];
  });
}

function count(number: number, what: string, many = `${what}s`): string {
  return `${number} ${number === 1 ? what : many}`;
}
