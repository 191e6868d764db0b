// SPDX-License-Identifier: Apache-2.0
//
// Asking for snapshots, deleting them, and making volumes of them: checks against one reading of the store, then one
// transaction on exactly that. Whoever drives the volume cuts; disk nodes make and remove what lies on their disks.
//
// Invariants:  - the same request twice has the effect of one
//              - a snapshot does not go while a volume that begins as it is still being made

import type { Clock } from '../env/clock.js';
import type { CloneRequest, SnapshotCreateRequest } from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { refuseMultiActive } from '../model/multi-active.js';
import { codecs, formatVersion, type Leadership, type ReplicaPlacement, type VolumeObject } from '../model/objects.js';
import { copiesNeeded, type SnapshotObject, snapshotLvol, tooFewCopies } from '../model/snapshots.js';
import { unmadeOf } from '../reconcile/clone-source.js';
import { promisedPerDisk } from '../reconcile/promised.js';
import { copyIsUp, copyServes, nodeOfCopy } from '../reconcile/snapshot-copies.js';
import { copiesUp, planDeletion } from '../reconcile/snapshots.js';
import type { Change, Txn } from '../store/store.js';
import { attempt } from './attempt.js';
import { assertCuttable, assertRoomForSnapshot, type SnapshotDeps, wantedSnapshot } from './snapshot-drafts.js';
import { cutId } from './snapshot-views.js';
import { chooseControllers, defaultLeaseMs, firstLeadership, requireVolume } from './volumes.js';
import { createWholeSnapshot, deleteWholeSnapshot, drawWholeClone, wholeMembers } from './whole-snapshots.js';

export function requireSnapshot(state: ClusterState, volume: VolumeObject, name: string): Stored<SnapshotObject> {
  const id = state.get('snapshotNames', `${cutId(volume)}/${name}`)?.snapshotId ?? name;
  const stored = state.stored('snapshots', id);
  if (stored === null || stored.value.volumeId !== cutId(volume) || stored.value.phase === 'deleting')
    throw new BasaltError('NOT_FOUND', { kind: 'snapshot', name: `${volume.name}@${name}` });
  return stored;
}

/** True: asked for now. False: it was there already. One that failed is tried again. */
export function createSnapshot(
  deps: SnapshotDeps,
  clock: Pick<Clock, 'wallMs'>,
  wish: { volume: string; request: SnapshotCreateRequest },
): Promise<{ made: boolean; id: string }> {
  return attempt<{ made: boolean; id: string }>(deps.store, async ({ state }) => {
    const { value: volume, key, revision } = requireVolume(state, wish.volume);
    if (volume.partOf !== undefined) refuseMultiActive(volume, 'a snapshot of one of its parts');
    const { name } = wish.request;
    const known = state.get('snapshotNames', `${cutId(volume)}/${name}`);
    const existing = known === null ? null : state.stored('snapshots', known.snapshotId);
    if (existing !== null && existing.value.phase !== 'failed')
      return { txn: null, result: { made: false, id: existing.value.id } };
    const atMs = Math.floor(clock.wallMs());
    if (volume.parts !== undefined)
      return createWholeSnapshot(deps, state, { stored: { value: volume, key, revision }, existing, name, atMs });
    assertCuttable(state, volume);
    if (existing !== null) assertAlone(volume, existing.value);
    if (existing !== null) return again(existing);
    assertRoomForSnapshot(state, volume);
    const id = deps.random.uuid();
    const snapshot = wantedSnapshot({ id, name, volumeId: volume.id, atMs });
    const nameKey = keys.snapshotName(volume.id, name);
    const txn: Txn = {
      conditions: [
        { key, modRevision: revision },
        { key: nameKey, modRevision: 0 },
      ],
      changes: [
        { kind: 'put', key: keys.snapshot(id), value: codecs.snapshot.encode(snapshot) },
        // Unchanged, but for its revision: who is about to delete the volume looks again.
        { kind: 'put', key, value: codecs.volume.encode(volume) },
        {
          kind: 'put',
          key: nameKey,
          value: codecs.snapshotName.encode({ format: formatVersion, snapshotId: id }),
        },
      ],
    };
    return { txn, result: { made: true, id } };
  });
}

/** What belongs to a group is made and deleted with it. */
function assertAlone(volume: VolumeObject, { name, group }: SnapshotObject): void {
  if (group === undefined) return;
  const detail = `it belongs to the group of snapshots ${group.name}`;
  throw new BasaltError('BUSY', { kind: 'snapshot', name: `${volume.name}@${name}`, detail });
}

function again(existing: Stored<SnapshotObject>): { txn: Txn; result: { made: boolean; id: string } } {
  const { problem: _, ...rest } = existing.value;
  const value = codecs.snapshot.encode({ ...rest, phase: 'wanted', failedCount: 0 });
  const conditions = [{ key: existing.key, modRevision: existing.revision }];
  return {
    txn: { conditions, changes: [{ kind: 'put', key: existing.key, value }] },
    result: { made: true, id: existing.value.id },
  };
}

/** Its name is free at once; disk nodes remove what is on their disks, those that are away when they are back. */
export function deleteSnapshot(deps: SnapshotDeps, at: { volume: string; snapshot: string }): Promise<void> {
  return attempt<void>(deps.store, async ({ state, placementRevision }) => {
    const { value: volume } = requireVolume(state, at.volume);
    const stored = requireSnapshot(state, volume, at.snapshot);
    if (volume.parts !== undefined) {
      const txn = deleteWholeSnapshot(state, { volume, first: stored.value, placementRevision });
      return { txn, result: undefined };
    }
    assertAlone(volume, stored.value);
    const unmade = [...new Set(unmadeOf(state, stored.value.id).map(({ volume: { name } }) => name))];
    if (unmade.length > 0)
      throw new BasaltError('BUSY', {
        kind: 'snapshot',
        name: `${volume.name}@${stored.value.name}`,
        detail: `volume ${unmade.join(', ')} is being made of it`,
      });
    const next = planDeletion(stored.value);
    const change: Change =
      next === null
        ? { kind: 'delete', key: stored.key }
        : { kind: 'put', key: stored.key, value: codecs.snapshot.encode(next) };
    const txn: Txn = {
      conditions: [
        { key: stored.key, modRevision: stored.revision },
        // Clones change it: none has begun since.
        { key: keys.placement, modRevision: placementRevision },
      ],
      changes: [change, { kind: 'delete', key: keys.snapshotName(volume.id, stored.value.name) }],
    };
    return { txn, result: undefined };
  });
}

/** True: made now. False: that volume is there already, and began as this snapshot. */
export function cloneSnapshot(
  deps: SnapshotDeps,
  at: { volume: string; snapshot: string; request: CloneRequest },
): Promise<{ made: boolean; id: string }> {
  return attempt<{ made: boolean; id: string }>(deps.store, async ({ state, placementRevision }) => {
    const source = requireVolume(state, at.volume);
    const volume = source.value;
    const stored = requireSnapshot(state, volume, at.snapshot);
    const { request } = at;
    const existing = state.volumeByName(request.name);
    if (existing !== null) {
      if (existing.origin?.snapshotId !== stored.value.id)
        throw new BasaltError('ALREADY_EXISTS', { kind: 'volume', name: request.name, field: 'name' });
      return { txn: null, result: { made: false, id: existing.id } };
    }
    if (volume.partOf !== undefined) refuseMultiActive(volume, 'a clone of one of its parts');
    const { leaseMs = defaultLeaseMs } = request;
    const drawn =
      volume.parts === undefined
        ? drawClone(deps, state, { volume, snapshot: stored.value, request: { ...request, leaseMs } })
        : drawWhole(deps, state, { volume, first: stored.value, request: { ...request, leaseMs } });
    const clone = drawn.volume;
    const snapshots = volume.parts === undefined ? [stored] : wholeMembers(state, volume, stored.value);
    const name = codecs.volumeName.encode({ format: formatVersion, volumeId: clone.id });
    const txn: Txn = {
      conditions: [
        { key: keys.volumeName(request.name), modRevision: 0 },
        // Its data key is copied: it may be wrapped anew, and the old cluster key forgotten.
        { key: source.key, modRevision: source.revision },
        ...snapshots.map((each) => ({ key: each.key, modRevision: each.revision })),
        { key: keys.placement, modRevision: placementRevision },
      ],
      changes: [
        ...drawn.changes,
        { kind: 'put', key: keys.volumeName(request.name), value: name },
        // Unchanged, but for their revisions: who is about to give up a copy looks again.
        ...snapshots.map((each): Change => ({ kind: 'put', key: each.key, value: codecs.snapshot.encode(each.value) })),
        { kind: 'put', key: keys.placement, value: JSON.stringify({ format: formatVersion, volumeId: clone.id }) },
      ],
    };
    return { txn, result: { made: true, id: clone.id } };
  });
}

type FullRequest = CloneRequest & { readonly leaseMs: number };

function drawClone(
  deps: SnapshotDeps,
  state: ClusterState,
  of: { volume: VolumeObject; snapshot: SnapshotObject; request: FullRequest },
): { volume: VolumeObject; leadership: Leadership; changes: Change[] } {
  const volume = draw(deps, state, of);
  const first = firstLeadership(state, volume, of.request.leaseMs);
  const origin = of.snapshot.cut?.identity;
  const leadership = origin === undefined ? first : { ...first, begun: { identity: volume.id, origin } };
  return { volume, leadership, changes: [volumePut(volume), leadershipPut(leadership)] };
}

function drawWhole(
  deps: SnapshotDeps,
  state: ClusterState,
  of: { volume: VolumeObject; first: SnapshotObject; request: FullRequest },
): { volume: VolumeObject; changes: Change[] } {
  const { volume, first, request } = of;
  // All parts have the same ones; each begins with another one of them.
  const controllers = chooseControllers(state, request.controllers, (volume.parts?.length ?? 0) + 1);
  const { parts, fronts, ...drawn } = drawWholeClone(deps, state, {
    volume,
    first,
    request,
    leaseMs: request.leaseMs,
    draw: (scratch, part) => drawClone(deps, scratch, { ...part, request: { ...request, controllers } }),
  });
  const ofParts = parts.flatMap((part) => [volumePut(part.volume), leadershipPut(part.leadership)]);
  return { volume: drawn.volume, changes: [volumePut(drawn.volume), ...fronts.map(leadershipPut), ...ofParts] };
}

function volumePut(volume: VolumeObject): Change {
  return { kind: 'put', key: keys.volume(volume.id), value: codecs.volume.encode(volume) };
}

function leadershipPut(leadership: Leadership): Change {
  return { kind: 'put', key: keys.leadership(leadership.volumeId), value: codecs.leadership.encode(leadership) };
}

function draw(
  deps: SnapshotDeps,
  state: ClusterState,
  of: { volume: VolumeObject; snapshot: SnapshotObject; request: CloneRequest },
): VolumeObject {
  const { volume, snapshot, request } = of;
  const { cut, shape } = snapshot;
  const fullName = `${volume.name}@${snapshot.name}`;
  if (snapshot.phase !== 'ready' || cut === undefined || shape === undefined)
    throw new BasaltError('BUSY', { kind: 'snapshot', name: fullName, detail: 'it is not made yet' });
  const up = copiesUp(
    snapshot,
    volume.legs.length,
    (copy) => copyIsUp(state, copy),
    // What begins elsewhere has to move.
    (copy) => copyServes(state, volume, copy),
  );
  const bare = up.flatMap((copies, leg) => (copies.length < copiesNeeded(volume) ? [leg] : []));
  if (bare.length > 0)
    throw unavailable(volume, `${tooFewCopies(volume)} of leg ${bare.join(', ')} of ${fullName} can be reached`);
  const legs = up.map((copies) => ({
    replicas: copies.map(
      (copy): ReplicaPlacement => ({
        replica: deps.random.uuid(),
        disk: copy.disk,
        node: nodeOfCopy(state, copy),
        source: snapshotLvol(snapshot.id, cut.attempt, copy.replica),
      }),
    ),
  }));
  checkRoom(state, { volume, legs, legSizeBytes: shape.legSizeBytes });
  const { encryption } = volume;
  return {
    format: formatVersion,
    id: deps.random.uuid(),
    name: request.name,
    sizeBytes: shape.sizeBytes,
    blockSizeBytes: volume.blockSizeBytes,
    stripeSizeBytes: volume.stripeSizeBytes,
    copies: volume.copies,
    ...(volume.erasure === undefined ? {} : { erasure: volume.erasure }),
    legSizeBytes: shape.legSizeBytes,
    legs,
    ...(volume.pool === undefined ? {} : { pool: volume.pool }),
    ...(shape.route === undefined ? {} : { route: shape.route }),
    controllers: chooseControllers(state, request.controllers),
    hosts: [],
    nbd: [],
    ...(encryption === undefined ? {} : { encryption: { ...encryption, drawnFor: encryption.drawnFor ?? volume.id } }),
    ...(volume.checksums === undefined ? {} : { checksums: volume.checksums }),
    origin: { snapshotId: snapshot.id, volume: volume.name, snapshot: snapshot.name },
    phase: 'live',
  };
}

/** A clone may come to differ from its snapshot everywhere: its disks must be able to promise that. */
function checkRoom(
  state: ClusterState,
  of: { volume: VolumeObject; legs: readonly { replicas: readonly ReplicaPlacement[] }[]; legSizeBytes: number },
): void {
  const promised = promisedPerDisk(state);
  const map = of.volume.pool === undefined ? null : state.get('pgMaps', of.volume.pool);
  const needed = new Map<string, number>();
  for (const { disk } of of.legs.flatMap((leg) => leg.replicas))
    needed.set(disk, (needed.get(disk) ?? 0) + of.legSizeBytes);
  for (const [id, bytes] of needed) {
    const disk = state.get('disks', id);
    const capacityBytes = map?.disks.find((entry) => entry.id === id)?.capacityBytes ?? disk?.totalBytes ?? 0;
    const leftBytes = Math.max(0, capacityBytes - (promised.get(id) ?? 0));
    if (bytes <= leftBytes) continue;
    const problem =
      `disk ${id} on ${disk?.node ?? 'an unknown node'} has ${leftBytes} bytes left, and the volume may come to take ` +
      `${bytes} there: add disks, or delete volumes`;
    throw new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'name', problem });
  }
}

function unavailable(volume: VolumeObject, detail: string): BasaltError {
  return new BasaltError('VOLUME_UNAVAILABLE', { name: volume.name, detail });
}
