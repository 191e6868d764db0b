// SPDX-License-Identifier: Apache-2.0
//
// Making, changing and deleting volumes: checks against one reading of the store, then one transaction on exactly that.
//
// Invariants:  - a request that is refused has changed nothing
//              - the same request twice has the effect of one

import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import {
  type AttachRequest,
  blockSizeBytes,
  type VolumeCreateRequest,
  type VolumeResizeRequest,
} from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError, isBasaltError } from '../model/errors.js';
import { firstEpoch } from '../model/generation.js';
import { keys } from '../model/keys.js';
import { refuseMultiActive, withHosts } from '../model/multi-active.js';
import {
  codecs,
  formatVersion,
  type GrowingSize,
  type Leadership,
  type ReplicaPlacement,
  type VolumeObject,
} from '../model/objects.js';
import { erasureOf, type PgMapObject, type PoolObject, redundancyText } from '../model/pools.js';
import { chooseSeed } from '../placement/choose-seed.js';
import { legDataBytes, legDataBytesAt, legSizeBytes, legTailBytes, replicaBytesAt } from '../placement/leg-size.js';
import type { PgPlanner } from '../placement/planner.js';
import { cordonOf } from '../reconcile/cordons.js';
import { volumeSize } from '../reconcile/growth.js';
import { promisedPerDisk } from '../reconcile/promised.js';
import { partBytesAt, planWholeWish, servedToSome, wholeSize } from '../reconcile/whole-growth.js';
import type { Change, Store, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { encryptNew } from './encryption.js';
import { assertWayFor, attachedHost, type HostPart } from './hosts.js';
import type { Line } from './line.js';
import { deletionOf, drawParts, type MultiActiveWish, putsOf } from './multi-active.js';
import { type DrawnPool, drawPool, isUp, poolPuts, requirePool } from './pools.js';
import { snapshotsOf } from './snapshot-views.js';
import type { KeyStore } from './wrapping-key.js';

const mib = 1024 * 1024;
const defaultCopies = 2;
const defaultLegs = 4;
const defaultStripeBytes = 64 * 1024;
export const defaultLeaseMs = 300;
const defaultControllers = 2;

export interface VolumeDeps {
  readonly store: Store;
  readonly random: Random;
  readonly planner: PgPlanner;
  /** For encrypted volumes. */
  readonly keys?: KeyStore | null;
  /** Creations of one server wait for one another; those of several are told apart by the store. */
  readonly line?: Line;
}

/** True: made now. False: it was there already, with the same parameters. */
export function createVolume(deps: VolumeDeps, request: VolumeCreateRequest): Promise<{ made: boolean; id: string }> {
  return deps.line === undefined ? create(deps, request) : deps.line.run(() => create(deps, request));
}

function create(deps: VolumeDeps, request: VolumeCreateRequest): Promise<{ made: boolean; id: string }> {
  return attempt<{ made: boolean; id: string }>(deps.store, async ({ state, placementRevision }) => {
    const existing = state.volumeByName(request.name);
    if (existing !== null) {
      checkSame(state, existing, request);
      return { txn: null, result: { made: false, id: existing.id } };
    }
    const { pool, map, isNew } = await poolFor(deps, state, request);
    const shape = multiActiveShape(state, request);
    const several =
      shape === null
        ? null
        : drawParts(
            { state, random: deps.random, draw: (scratch, part) => draw(deps, scratch, { request: part, pool, map }) },
            shape,
          );
    const drawn = several?.volume ?? draw(deps, state, { request, pool, map });
    const secret = request.encrypt === true ? await encryptNew(deps, state, drawn.id) : null;
    const volume = secret === null ? drawn : { ...drawn, encryption: secret.encryption };
    const driven = (several?.parts ?? [volume]).flatMap((each) => puts(state, each, request.leaseMs ?? defaultLeaseMs));
    const whole = several === null ? [] : [volumePut(volume), ...putsOf(several)];
    const name = codecs.volumeName.encode({ format: formatVersion, volumeId: volume.id });
    const txn: Txn = {
      conditions: [
        { key: keys.volumeName(request.name), modRevision: 0 },
        { key: keys.placement, modRevision: placementRevision },
        isNew
          ? { key: keys.poolName(pool.name), modRevision: 0 }
          : { key: keys.pgMap(pool.id), modRevision: state.stored('pgMaps', pool.id)?.revision ?? 0 },
        ...(secret?.conditions ?? []),
      ],
      changes: [
        ...(isNew ? poolPuts({ pool, map }) : []),
        ...(secret?.changes ?? []),
        ...whole,
        ...driven,
        { kind: 'put', key: keys.volumeName(request.name), value: name },
        { kind: 'put', key: keys.placement, value: JSON.stringify({ format: formatVersion, volumeId: volume.id }) },
      ],
    };
    return { txn, result: { made: true, id: volume.id } };
  });
}

/** Of a volume that is to have several active controllers; null: it has one. */
function multiActiveShape(state: ClusterState, request: VolumeCreateRequest): MultiActiveWish | null {
  const { active = 1, legs = defaultLegs, stripeSizeBytes = defaultStripeBytes, leaseMs = defaultLeaseMs } = request;
  if (active === 1) return null;
  const controllers = chooseControllers(state, request.controllers, active + 1);
  return { request, active, legs, stripeSizeBytes, controllers, leaseMs };
}

function volumePut(volume: VolumeObject): Change {
  return { kind: 'put', key: keys.volume(volume.id), value: codecs.volume.encode(volume) };
}

/** Of a volume that is driven: itself, and what its first controller takes over. */
function puts(state: ClusterState, volume: VolumeObject, leaseMs: number): Change[] {
  const leadership = codecs.leadership.encode(firstLeadership(state, volume, leaseMs));
  return [volumePut(volume), { kind: 'put', key: keys.leadership(volume.id), value: leadership }];
}

/** `force`: without waiting for nodes that are away; those delete what they hold when they are back. */
export function deleteVolume(
  deps: Pick<VolumeDeps, 'store'>,
  name: string,
  options: { force?: boolean } = {},
): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    const forced = options.force === true ? { forced: true as const } : {};
    const going = state.stored('volumes', name);
    if (options.force === true && going?.value.phase === 'deleting') {
      // By its id: its name may be another volume's by now.
      const value = codecs.volume.encode({ ...going.value, ...forced });
      const conditions = [{ key: going.key, modRevision: going.revision }];
      return { txn: { conditions, changes: [{ kind: 'put', key: going.key, value }] }, result: undefined };
    }
    const stored = requireVolume(state, name);
    const volume = stored.value;
    if (volume.partOf !== undefined) refuseMultiActive(volume, 'deleting one of its parts');
    const leadership = state.stored('leaderships', volume.id);
    checkUnused(state, volume, leadership?.value ?? null);
    if (volume.parts !== undefined) {
      const whole = deletionOf(state, volume, (part, led) => ({
        volume: { ...part, ...forced, phase: 'deleting' },
        leadership: led === null ? null : fence(led),
      }));
      const txn: Txn = {
        conditions: [{ key: stored.key, modRevision: stored.revision }, ...whole.conditions],
        changes: [{ kind: 'delete', key: keys.volumeName(volume.name) }, ...whole.changes],
      };
      return { txn, result: undefined };
    }
    // The new epoch fences whoever still drives it, and is what the replicas are deleted under.
    const fenced =
      leadership === null
        ? []
        : [{ kind: 'put' as const, key: leadership.key, value: codecs.leadership.encode(fence(leadership.value)) }];
    const txn: Txn = {
      conditions: [
        { key: stored.key, modRevision: stored.revision },
        ...(leadership === null ? [] : [{ key: leadership.key, modRevision: leadership.revision }]),
      ],
      changes: [
        { kind: 'put', key: stored.key, value: codecs.volume.encode({ ...volume, ...forced, phase: 'deleting' }) },
        { kind: 'delete', key: keys.volumeName(name) },
        ...fenced,
      ],
    };
    return { txn, result: undefined };
  });
}

export function attachVolume(deps: VolumeDeps, name: string, request: AttachRequest): Promise<void> {
  const { host, keys: hostKeys = {} } = request;
  if (host === undefined && request.keys !== undefined) throw invalid('keys', 'go with a host; name its NQN');
  const beside = (state: ClusterState): Promise<HostPart | null> =>
    host === undefined ? Promise.resolve(null) : attachedHost(deps, state, { nqn: host, keys: hostKeys });
  return change(deps, name, beside, (state, volume) => {
    if (volume.partOf !== undefined) refuseMultiActive(volume, 'attaching one of its parts');
    if (request.nbd !== undefined) refuseMultiActive(volume, 'NBD');
    if (request.host === undefined && request.nbd === undefined)
      throw invalid('host', 'is missing; name a host NQN or an NBD path');
    if (host !== undefined) assertWayFor(state, volume, { nqn: host, givenPsk: hostKeys.tlsPsk !== undefined });
    const hosts = host === undefined ? volume.hosts : unique([...volume.hosts, host]);
    if (request.nbd === undefined) return withHosts(volume, hosts);
    const node = request.nbd.node ?? nbdNode(state, volume);
    if (!volume.controllers.includes(node)) {
      throw invalid(
        'nbd.node',
        `${node} is not a controller of ${name}; those are ${volume.controllers.join(', ') || 'none'}`,
      );
    }
    const { path } = request.nbd;
    checkPathFree(state, volume, { node, path });
    const others = volume.nbd.filter((entry) => entry.node !== node || entry.path !== path);
    return { ...volume, hosts, nbd: [...others, { node, path }] };
  });
}

/** From one look to the next whether a host that was detached has been let go, and how long that is waited for. */
const leavingLookMs = 50;
const leavingMsMax = 5_000;

/** The same for one who is about to use it: a host that was detached just now is waited for. @throws BUSY */
export async function attachPatiently(
  deps: VolumeDeps,
  clock: Clock,
  at: { name: string; request: AttachRequest },
): Promise<void> {
  const endMs = clock.now() + leavingMsMax;
  for (;;) {
    try {
      return await attachVolume(deps, at.name, at.request);
    } catch (error) {
      if (!isBasaltError(error, 'BUSY') || at.request.nbd !== undefined || clock.now() >= endMs) throw error;
    }
    await clock.sleep(leavingLookMs);
  }
}

export function detachVolume(deps: VolumeDeps, name: string, request: AttachRequest): Promise<void> {
  return change(deps, name, noHost, (_, volume) => {
    const everything = request.host === undefined && request.nbd === undefined;
    const hosts = volume.hosts.filter((host) => !everything && host !== request.host);
    const nbd = volume.nbd.filter((entry) => !everything && entry.path !== request.nbd?.path);
    return { ...withHosts(volume, hosts), nbd };
  });
}

/** The wish is written down; whoever drives the volume grows it. The same size again changes nothing. */
export function resizeVolume(deps: VolumeDeps, name: string, request: VolumeResizeRequest): Promise<void> {
  return attempt<void>(deps.store, async ({ state, placementRevision }) => {
    const stored = requireVolume(state, name);
    if (stored.value.partOf !== undefined) refuseMultiActive(stored.value, 'growing one of its parts');
    if (stored.value.parts !== undefined) return resizeWhole(state, { stored, request, placementRevision });
    const leadership = state.stored('leaderships', stored.value.id);
    if (leadership === null) throw new BasaltError('NOT_FOUND', { kind: 'volume', name });
    const size = volumeSize(stored.value, leadership.value);
    const { sizeBytes } = request;
    if (sizeBytes === size.wantedBytes) return { txn: null, result: undefined };
    const { servedBytes, wantedBytes } = size;
    if (sizeBytes < servedBytes) throw new BasaltError('VOLUME_SHRINK', { name: stored.value.name, servedBytes });
    if (size.growing) throw new BasaltError('VOLUME_GROWING', { name: stored.value.name, wantedBytes });
    checkRoom(state, [stored.value], { wantedBytes, sizeBytes });
    const next = { ...leadership.value, size: { ...size, wantedBytes: sizeBytes } };
    const marker = JSON.stringify({ format: formatVersion, volumeId: stored.value.id });
    const txn: Txn = {
      conditions: [
        { key: stored.key, modRevision: stored.revision },
        { key: leadership.key, modRevision: leadership.revision },
        { key: keys.placement, modRevision: placementRevision },
      ],
      changes: [
        { kind: 'put', key: leadership.key, value: codecs.leadership.encode(next) },
        { kind: 'put', key: keys.placement, value: marker },
      ],
    };
    return { txn, result: undefined };
  });
}

/** The wish goes to all parts and fronts at once; each grows by itself. */
function resizeWhole(
  state: ClusterState,
  at: { stored: Stored<VolumeObject>; request: VolumeResizeRequest; placementRevision: number },
): { txn: Txn | null; result: undefined } {
  const { stored, placementRevision } = at;
  const { value: volume } = stored;
  const { sizeBytes } = at.request;
  const { wantedBytes, growing } = wholeSize(state, volume);
  const servedBytes = servedToSome(state, volume);
  if (sizeBytes === wantedBytes) return { txn: null, result: undefined };
  if (sizeBytes < servedBytes) throw new BasaltError('VOLUME_SHRINK', { name: volume.name, servedBytes });
  if (growing) throw new BasaltError('VOLUME_GROWING', { name: volume.name, wantedBytes });
  const parts = (volume.parts ?? []).flatMap((id) => state.stored('volumes', id) ?? []);
  const ofParts = { wantedBytes: partBytesAt(volume, wantedBytes), sizeBytes: partBytesAt(volume, sizeBytes) };
  checkRoom(
    state,
    parts.map(({ value }) => value),
    ofParts,
  );
  const puts = planWholeWish(state, volume, sizeBytes);
  if (puts === null) throw new BasaltError('NOT_FOUND', { kind: 'volume', name: volume.name });
  const expected = [stored, ...parts, ...puts].map(({ key, revision }) => ({ key, modRevision: revision }));
  const marker = JSON.stringify({ format: formatVersion, volumeId: volume.id });
  const txn: Txn = {
    conditions: [...expected, { key: keys.placement, modRevision: placementRevision }],
    changes: [
      ...puts.map(({ key, text }): Change => ({ kind: 'put', key, value: text })),
      { kind: 'put', key: keys.placement, value: marker },
    ],
  };
  return { txn, result: undefined };
}

/** Whether every disk that holds some of a volume, or of all its parts, can promise what its replicas there grow by. */
function checkRoom(
  state: ClusterState,
  alike: readonly VolumeObject[],
  to: { wantedBytes: number; sizeBytes: number },
): void {
  const [volume] = alike;
  if (volume === undefined) return;
  const promised = promisedPerDisk(state);
  const map = volume.pool === undefined ? null : state.get('pgMaps', volume.pool);
  const moreBytes = replicaBytesAt(volume, to.sizeBytes) - replicaBytesAt(volume, to.wantedBytes);
  const counts = new Map<string, number>();
  const legs = alike.flatMap((each) => each.legs);
  for (const { disk } of legs.flatMap((leg) => leg.replicas)) counts.set(disk, (counts.get(disk) ?? 0) + 1);
  for (const [id, count] of counts) {
    const disk = state.get('disks', id);
    const capacityBytes = map?.disks.find((entry) => entry.id === id)?.capacityBytes ?? disk?.totalBytes ?? 0;
    const leftBytes = Math.max(0, capacityBytes - (promised.get(id) ?? 0));
    if (moreBytes * count <= leftBytes) continue;
    // Each of k data members takes a k-th.
    const moreOfLeg = Math.floor(leftBytes / count / mib) * mib * (volume.erasure?.data ?? 1);
    const fits = legDataBytesAt(volume, to.wantedBytes) + moreOfLeg;
    const problem =
      `disk ${id} on ${disk?.node ?? 'an unknown node'} has ${leftBytes} bytes left, and the volume's part there would ` +
      `take ${moreBytes * count} more: ask for at most ${fits * legs.length} bytes, or add disks`;
    throw new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'sizeBytes', problem });
  }
}

export function requireVolume(state: ClusterState, name: string): Stored<VolumeObject> {
  const id = state.get('volumeNames', name)?.volumeId ?? name;
  const stored = state.stored('volumes', id);
  if (stored === null || stored.value.phase === 'deleting')
    throw new BasaltError('NOT_FOUND', { kind: 'volume', name });
  return stored;
}

const noHost = (): Promise<HostPart | null> => Promise.resolve(null);

/** `beside`: what the transaction does to the host that it is about. */
function change(
  deps: VolumeDeps,
  name: string,
  beside: (state: ClusterState) => Promise<HostPart | null>,
  plan: (state: ClusterState, volume: VolumeObject) => VolumeObject,
): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    const stored = requireVolume(state, name);
    const text = codecs.volume.encode(plan(state, stored.value));
    const host = await beside(state);
    if (text === codecs.volume.encode(stored.value) && host?.givesKeys !== true)
      return { txn: null, result: undefined };
    const txn: Txn = {
      conditions: [{ key: stored.key, modRevision: stored.revision }, ...(host?.conditions ?? [])],
      changes: [{ kind: 'put', key: stored.key, value: text }, ...(host?.changes ?? [])],
    };
    return { txn, result: undefined };
  });
}

/** The pool that the volume goes to; one of the default pools is drawn when it is not there yet. */
async function poolFor(
  deps: VolumeDeps,
  state: ClusterState,
  request: VolumeCreateRequest,
): Promise<DrawnPool & { isNew: boolean }> {
  const copies = request.copies ?? defaultCopies;
  const name = request.pool ?? (copies === defaultCopies ? 'default' : `default-${copies}`);
  if (request.pool === undefined && state.poolByName(name) === null) {
    const redundancy = { kind: 'copies' as const, copies };
    return { ...(await drawPool(deps, state, { name, redundancy }, 'copies')), isNew: true };
  }
  const pool = requirePool(state, name);
  const map = state.get('pgMaps', pool.id);
  if (map === null) throw new BasaltError('POOL_CHANGED', { name });
  if (request.copies !== undefined && (request.copies !== copiesOf(pool) || erasureOf(pool.redundancy) !== undefined))
    throw invalid(
      'copies',
      `pool ${pool.name} keeps ${redundancyText(pool.redundancy)}; leave it out, or name another pool`,
    );
  return { pool, map, isNew: false };
}

function copiesOf(pool: PoolObject): number {
  return pool.redundancy.kind === 'copies' ? pool.redundancy.copies : 1;
}

function draw(
  deps: VolumeDeps,
  state: ClusterState,
  { request, pool, map }: { request: VolumeCreateRequest; pool: PoolObject; map: PgMapObject },
): VolumeObject {
  const legCount = request.legs ?? defaultLegs;
  const stripeSizeBytes = request.stripeSizeBytes ?? defaultStripeBytes;
  if (stripeSizeBytes % blockSizeBytes !== 0 || (stripeSizeBytes & (stripeSizeBytes - 1)) !== 0) {
    throw invalid('stripeSizeBytes', 'must be a power of two from 16384 to 16777216');
  }
  const erasure = erasureOf(pool.redundancy);
  const shape = { sizeBytes: request.sizeBytes, legs: legCount, stripeSizeBytes };
  const size = legSizeBytes({ ...shape, erasure });
  const conflict = 'spread' as const;
  const chosen = chooseSeed({
    pgs: map.pgs,
    ...spaceOf(state, map),
    legCount,
    legSizeBytes: size,
    overheadBytes: erasure === undefined ? legTailBytes : size - Math.floor(legDataBytes(shape) / erasure.data),
    dataMembers: erasure?.data,
    conflict,
    firstSeed: deps.random.bytes(4).readUInt32LE(),
  });
  return {
    format: formatVersion,
    id: deps.random.uuid(),
    name: request.name,
    sizeBytes: request.sizeBytes,
    blockSizeBytes,
    stripeSizeBytes,
    copies: copiesOf(pool),
    ...(erasure === undefined ? {} : { erasure }),
    legSizeBytes: size,
    legs: chosen.pgs.map((pg) => ({ replicas: replicasOf(deps, map, pg) })),
    pool: pool.id,
    route: [
      {
        startBytes: 0,
        lengthBytes: request.sizeBytes,
        stripeSizeBytes,
        firstLeg: 0,
        legCount,
        legOffsetBytes: 0,
        seed: chosen.seed,
        conflict,
      },
    ],
    controllers: chooseControllers(state, request.controllers),
    hosts: [],
    nbd: [],
    ...(request.checksums === true ? { checksums: true as const } : {}),
    phase: 'live',
  };
}

function replicasOf(deps: VolumeDeps, map: PgMapObject, pg: number): ReplicaPlacement[] {
  return (map.pgs[pg] ?? []).flatMap((at) => {
    const disk = map.disks[at];
    return disk === undefined ? [] : [{ replica: deps.random.uuid(), disk: disk.id, node: disk.node }];
  });
}

/** What the map's disks have left for new replicas. */
function spaceOf(
  state: ClusterState,
  map: PgMapObject,
): { availableBytes: (number | null)[]; capacityBytes: number[]; awayText: string } {
  const promised = promisedPerDisk(state);
  const away = new Set<string>();
  const cordoned = new Set<string>();
  const availableBytes = map.disks.map((entry) => {
    const disk = state.get('disks', entry.id);
    if (disk !== null && cordonOf(state, disk) !== null) {
      cordoned.add(entry.id);
      return null;
    }
    if (disk !== null && isUp(state, disk)) return entry.capacityBytes - (promised.get(entry.id) ?? 0);
    away.add(entry.node);
    return null;
  });
  const capacityBytes = map.disks.map((disk) => disk.capacityBytes);
  const awayText = `nodes that are down: ${[...away].join(', ') || 'none'}`;
  const cordonText = cordoned.size === 0 ? '' : `; cordoned disks: ${[...cordoned].join(', ')}`;
  return { availableBytes, capacityBytes, awayText: awayText + cordonText };
}

export function chooseControllers(
  state: ClusterState,
  asked: readonly string[] | undefined,
  count: number = defaultControllers,
): string[] {
  const known = state
    .all('nodes')
    .filter((node) => node.roles.includes('controller'))
    .map((node) => node.name);
  for (const [index, name] of (asked ?? []).entries()) {
    if (!known.includes(name))
      throw invalid(`controllers[${index}]`, `${name} is no controller node; those are ${known.join(', ') || 'none'}`);
  }
  if (asked !== undefined) return [...asked];
  const firsts = state.all('volumes').map((volume) => volume.controllers[0]);
  const load = (name: string): number => firsts.filter((first) => first === name).length;
  const up = known.filter(
    (name) => state.get('lives', name)?.draining === false && state.get('cordons', `node/${name}`) === null,
  );
  if (up.length === 0)
    throw new BasaltError('PLACEMENT_IMPOSSIBLE', {
      field: 'controllers',
      problem: 'no controller node is up: start one',
    });
  return up.sort((a, b) => load(a) - load(b) || (a < b ? -1 : 1)).slice(0, count);
}

export function firstLeadership(state: ClusterState, volume: VolumeObject, leaseMs: number): Leadership {
  return {
    format: formatVersion,
    volumeId: volume.id,
    epoch: firstEpoch(state.get('cluster', '')?.generation ?? 0),
    controller: null,
    instance: null,
    clean: true,
    leaseMs,
    ...(volume.erasure === undefined ? {} : { needs: volume.erasure.data }),
    legs: volume.legs.map((leg) => ({ inSync: leg.replicas.map(({ replica }) => ({ replica, incarnation: null })) })),
  };
}

function fence(leadership: Leadership): Leadership {
  return { ...leadership, epoch: leadership.epoch + 1, controller: null, instance: null, clean: false };
}

function checkSame(state: ClusterState, existing: VolumeObject, request: VolumeCreateRequest): void {
  const same =
    sizeOf(state, existing).wantedBytes === request.sizeBytes &&
    existing.copies === (request.copies ?? (request.pool === undefined ? defaultCopies : existing.copies)) &&
    (request.pool === undefined || poolOf(state, existing) === state.poolByName(request.pool)?.id) &&
    (existing.parts?.length ?? 1) === (request.active ?? 1) &&
    legCountOf(state, existing) === (request.legs ?? defaultLegs) &&
    existing.stripeSizeBytes === (request.stripeSizeBytes ?? defaultStripeBytes) &&
    (existing.encryption !== undefined) === (request.encrypt === true) &&
    (existing.checksums === true) === (request.checksums === true) &&
    (request.controllers === undefined || JSON.stringify(existing.controllers) === JSON.stringify(request.controllers));
  if (!same) throw new BasaltError('ALREADY_EXISTS', { kind: 'volume', name: existing.name, field: 'name' });
}

function sizeOf(state: ClusterState, volume: VolumeObject): GrowingSize {
  return volume.parts === undefined
    ? volumeSize(volume, state.get('leaderships', volume.id))
    : wholeSize(state, volume);
}

function partsOf(state: ClusterState, volume: VolumeObject): VolumeObject[] {
  return (volume.parts ?? []).flatMap((id) => state.get('volumes', id) ?? []);
}

function legCountOf(state: ClusterState, volume: VolumeObject): number {
  return volume.legs.length + partsOf(state, volume).reduce((sum, part) => sum + part.legs.length, 0);
}

function poolOf(state: ClusterState, volume: VolumeObject): string | undefined {
  return volume.pool ?? partsOf(state, volume)[0]?.pool;
}

function checkUnused(state: ClusterState, volume: VolumeObject, leadership: Leadership | null): void {
  const busy = (detail: string): BasaltError => new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail });
  if (volume.hosts.length > 0) throw busy(`attached to ${volume.hosts.join(', ')}`);
  if (volume.nbd.length > 0) throw busy(`exported over NBD at ${volume.nbd.map((entry) => entry.path).join(', ')}`);
  const holder = leadership?.controller ?? null;
  if (holder !== null && state.get('lives', holder)?.kind === 'embedded') throw busy(`open in the process ${holder}`);
  const snapshots = snapshotsOf(state, volume).map(({ name }) => name);
  if (snapshots.length > 0) throw busy(`it has snapshots, which go first: ${snapshots.join(', ')}`);
}

function checkPathFree(state: ClusterState, volume: VolumeObject, wish: { node: string; path: string }): void {
  for (const other of state.all('volumes')) {
    if (other.id === volume.id || !other.nbd.some((entry) => entry.node === wish.node && entry.path === wish.path))
      continue;
    throw new BasaltError('BUSY', { kind: 'NBD path', name: wish.path, detail: `it exports ${other.name}` });
  }
}

/** The node that drives the volume now, or the first that may. */
function nbdNode(state: ClusterState, volume: VolumeObject): string {
  const holder = state.get('leaderships', volume.id)?.controller ?? null;
  const node = holder !== null && volume.controllers.includes(holder) ? holder : volume.controllers[0];
  if (node === undefined) throw invalid('nbd', `${volume.name} has no controller nodes that could export it`);
  return node;
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}
