// SPDX-License-Identifier: Apache-2.0
//
// Making, planning and deleting pools.
//
// Invariants:  - a pool comes into the store together with its map, or not at all
//              - a plan that is only asked for changes nothing

import type { Random } from '../env/random.js';
import type { PoolCreateRequest, PoolPlanRequest, PoolPlanView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type DiskObject, formatVersion } from '../model/objects.js';
import {
  assertSupported,
  dataWidthOf,
  type PgDisk,
  type PgMapObject,
  type PoolObject,
  type Redundancy,
  widthOf,
} from '../model/pools.js';
import { assertPlaceable, type PgPlan } from '../placement/pg-problem.js';
import { countPerDisk } from '../placement/plan-pgs.js';
import type { PgPlanner } from '../placement/planner.js';
import { mapOf, pgCountDefault, poolDisks, problemOf, promisedPerPg } from '../placement/pool.js';
import { cordonedOf, cordonOf, isEmptied } from '../reconcile/cordons.js';
import type { Store, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { readState } from './read-state.js';
import { usableBytesOf } from './views-pool.js';

export interface PoolDeps {
  readonly store: Store;
  readonly random: Random;
  readonly planner: PgPlanner;
}

export interface DrawnPool {
  readonly pool: PoolObject;
  readonly map: PgMapObject;
}

/** True: made now. False: it was there already, with the same parameters. */
export function createPool(deps: PoolDeps, request: PoolCreateRequest): Promise<boolean> {
  return attempt<boolean>(deps.store, async ({ state }) => {
    const existing = state.poolByName(request.name);
    if (existing !== null) {
      assertSame(existing, request);
      return { txn: null, result: false };
    }
    const drawn = await drawPool(deps, state, request);
    const txn: Txn = { conditions: [{ key: keys.poolName(request.name), modRevision: 0 }], changes: poolPuts(drawn) };
    return { txn, result: true };
  });
}

/** `field` is what a refusal names. @throws POOL_UNSUPPORTED, PLACEMENT_IMPOSSIBLE */
export async function drawPool(
  deps: Pick<PoolDeps, 'random' | 'planner'>,
  state: ClusterState,
  request: PoolCreateRequest,
  field = 'redundancy',
): Promise<DrawnPool> {
  const { name, redundancy, domain = 'node' } = request;
  assertSupported(redundancy);
  const selector = { class: request.class ?? null, tags: request.tags ?? [] };
  const disks = poolDisks(state, {
    pool: { domain, selector },
    usable: (disk) => isUp(state, disk) && cordonOf(state, disk) === null,
  });
  const width = widthOf(redundancy);
  assertPlaceable(disks, { width, domain, field, copies: redundancy.kind === 'copies' });
  const pgCount = request.pgCount ?? pgCountDefault(disks.length, width);
  const pool: PoolObject = {
    format: formatVersion,
    id: deps.random.uuid(),
    name,
    redundancy,
    domain,
    selector,
    pgCount,
  };
  const plan = await deps.planner.plan(problemOf(pool, { disks, map: null, pgBytes: null }));
  return { pool, map: mapOf(plan, { poolId: pool.id, version: 1, disks }) };
}

export function poolPuts({ pool, map }: DrawnPool): Txn['changes'] {
  return [
    { kind: 'put', key: keys.pool(pool.id), value: codecs.pool.encode(pool) },
    {
      kind: 'put',
      key: keys.poolName(pool.name),
      value: codecs.poolName.encode({ format: formatVersion, poolId: pool.id }),
    },
    { kind: 'put', key: keys.pgMap(pool.id), value: codecs.pgMap.encode(map) },
  ];
}

export function deletePool(deps: PoolDeps, name: string): Promise<void> {
  return attempt<void>(deps.store, async ({ state, placementRevision }) => {
    const pool = requirePool(state, name);
    const users = state.all('volumes').filter((volume) => volume.pool === pool.id);
    if (users.length > 0) {
      const detail = `it holds ${users.length} ${users.length === 1 ? 'volume' : 'volumes'}, such as ${users[0]?.name}`;
      throw new BasaltError('BUSY', { kind: 'pool', name: pool.name, detail });
    }
    const txn: Txn = {
      // A volume that comes meanwhile changes the placement key, so it is seen.
      conditions: [
        { key: keys.placement, modRevision: placementRevision },
        { key: keys.pool(pool.id), modRevision: state.stored('pools', pool.id)?.revision ?? 0 },
      ],
      changes: [
        { kind: 'delete', key: keys.pool(pool.id) },
        { kind: 'delete', key: keys.poolName(pool.name) },
        { kind: 'delete', key: keys.pgMap(pool.id) },
      ],
    };
    return { txn, result: undefined };
  });
}

const bytesPerSecondDefault = 100 * 1024 * 1024;

/** What moves, how much and how long, if the pool were planned anew on the disks that are there. */
export async function planPool(deps: PoolDeps, name: string, request: PoolPlanRequest): Promise<PoolPlanView> {
  const { state } = await readState(deps.store);
  const pool = requirePool(state, name);
  const map = state.get('pgMaps', pool.id);
  assertKnown(state, request);
  const disks = poolDisks(state, {
    pool,
    usable: (disk) => !isLeftOut(request, disk) && mayHold(state, disk, map),
    weights: new Map(Object.entries(request.weights ?? {})),
  });
  const { redundancy, domain } = pool;
  const width = widthOf(redundancy);
  assertPlaceable(disks, { width, domain, field: 'without', copies: redundancy.kind === 'copies' });
  const pgBytes = promisedPerPg(state, pool);
  const plan = await deps.planner.plan(problemOf(pool, { disks, map, pgBytes, full: cordonedOf(state, disks) }));
  return planView({ state, pool, map, disks, plan, pgBytes }, request.bytesPerSecond ?? bytesPerSecondDefault);
}

/** What moves when the pool does without those disks as well. @throws PLACEMENT_IMPOSSIBLE */
export async function planWithout(
  deps: Pick<PoolDeps, 'planner'>,
  state: ClusterState,
  at: { pool: PoolObject; disks: ReadonlySet<string> },
): Promise<PoolPlanView> {
  const { pool } = at;
  const map = state.get('pgMaps', pool.id);
  const usable = (disk: DiskObject): boolean => !at.disks.has(disk.id) && mayHold(state, disk, map);
  const disks = poolDisks(state, { pool, usable });
  const { redundancy, domain } = pool;
  assertPlaceable(disks, { width: widthOf(redundancy), domain, field: 'disks', copies: redundancy.kind === 'copies' });
  const pgBytes = promisedPerPg(state, pool);
  const plan = await deps.planner.plan(problemOf(pool, { disks, map, pgBytes, full: cordonedOf(state, disks) }));
  return planView({ state, pool, map, disks, plan, pgBytes }, bytesPerSecondDefault);
}

/** As the placement agent has it: new disks count when they are up, known ones until they are given up. */
function mayHold(state: ClusterState, disk: DiskObject, map: PgMapObject | null): boolean {
  const cordon = cordonOf(state, disk);
  const known = map?.disks.some((entry) => entry.id === disk.id) === true;
  if (isEmptied(cordon) || (cordon !== null && !known)) return false;
  return known || isUp(state, disk);
}

interface PlanFacts {
  readonly state: ClusterState;
  readonly pool: PoolObject;
  readonly map: PgMapObject | null;
  readonly disks: readonly PgDisk[];
  readonly plan: PgPlan;
  readonly pgBytes: readonly number[];
}

function planView(facts: PlanFacts, bytesPerSecond: number): PoolPlanView {
  const { pool, map, plan, pgBytes } = facts;
  const moves = plan.moves.map((move) => ({ ...move, bytes: pgBytes[move.pg] ?? 0 }));
  const bytes = moves.reduce((sum, move) => sum + move.bytes, 0);
  const times = dataWidthOf(pool.redundancy);
  return {
    pool: pool.name,
    moves,
    movesMin: Number(plan.movesMin.toFixed(2)),
    bytes,
    bytesPerSecond,
    seconds: Math.ceil(bytes / bytesPerSecond),
    usableBytesBefore: map === null ? 0 : usableBytesOf(pool, map),
    usableBytesAfter: Math.floor(plan.evenBytes * times),
    optimumBytes: Math.floor(plan.optimumBytes * times),
    disks: planDisks(facts, moves),
  };
}

function planDisks({ state, map, plan }: PlanFacts, moves: PoolPlanView['moves']): PoolPlanView['disks'] {
  const before = new Map(map?.disks.map((disk, at) => [disk.id, countPerDisk(map.pgs, map.disks.length)[at] ?? 0]));
  const counts = countPerDisk(plan.pgs, plan.disks.length);
  const after = new Map(plan.disks.map((disk, at) => [disk.id, counts[at] ?? 0]));
  const ids = [...new Set([...before.keys(), ...after.keys()])].sort();
  const sum = (of: (move: PoolPlanView['moves'][number]) => boolean): number =>
    moves.filter(of).reduce((bytes, move) => bytes + move.bytes, 0);
  const rows = ids.map((disk) => ({
    disk,
    node: state.get('disks', disk)?.node ?? map?.disks.find((entry) => entry.id === disk)?.node ?? '',
    pgsBefore: before.get(disk) ?? 0,
    pgsAfter: after.get(disk) ?? 0,
    inBytes: sum((move) => move.to === disk),
    outBytes: sum((move) => move.from === disk),
  }));
  return rows.filter((row) => row.pgsBefore !== row.pgsAfter || row.inBytes + row.outBytes > 0);
}

function isLeftOut(request: PoolPlanRequest, disk: DiskObject): boolean {
  return request.without?.some((name) => name === disk.id || name === disk.node) === true;
}

function assertKnown(state: ClusterState, request: PoolPlanRequest): void {
  const disks = state.all('disks');
  for (const [index, name] of (request.without ?? []).entries()) {
    if (disks.some((disk) => disk.id === name || disk.node === name)) continue;
    throw new BasaltError('INVALID_ARGUMENT', {
      field: `without[${index}]`,
      problem: `${name} is no disk and no node`,
    });
  }
  for (const id of Object.keys(request.weights ?? {})) {
    if (disks.some((disk) => disk.id === id)) continue;
    throw new BasaltError('INVALID_ARGUMENT', { field: `weights.${id}`, problem: 'is no disk' });
  }
}

export function isUp(state: ClusterState, disk: DiskObject): boolean {
  return state.get('lives', disk.node) !== null;
}

export function requirePool(state: ClusterState, name: string): PoolObject {
  const found = state.poolByName(name) ?? state.get('pools', name);
  if (found === null) throw new BasaltError('NOT_FOUND', { kind: 'pool', name });
  return found;
}

function assertSame(existing: PoolObject, request: PoolCreateRequest): void {
  const asked = {
    redundancy: request.redundancy,
    domain: request.domain ?? 'node',
    selector: { class: request.class ?? null, tags: request.tags ?? [] },
  };
  const same =
    sameRedundancy(existing.redundancy, asked.redundancy) &&
    existing.domain === asked.domain &&
    existing.selector.class === asked.selector.class &&
    [...existing.selector.tags].sort().join() === [...asked.selector.tags].sort().join() &&
    (request.pgCount === undefined || request.pgCount === existing.pgCount);
  if (!same) throw new BasaltError('ALREADY_EXISTS', { kind: 'pool', name: existing.name, field: 'name' });
}

function sameRedundancy(a: Redundancy, b: Redundancy): boolean {
  if (a.kind === 'copies') return b.kind === 'copies' && a.copies === b.copies;
  return b.kind === 'erasure' && a.data === b.data && a.parity === b.parity;
}
