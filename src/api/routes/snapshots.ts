// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { systemClock } from '../../env/clock.js';
import { CloneRequest, SnapshotCreateRequest, SnapshotView, VolumeView } from '../../model/api.js';
import { checker } from '../../model/check.js';
import { BasaltError } from '../../model/errors.js';
import { JobView } from '../../model/jobs.js';
import { rollBack } from '../jobs.js';
import { readState } from '../read-state.js';
import { snapshotsOf, snapshotView } from '../snapshot-views.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot, requireSnapshot } from '../snapshots.js';
import { volumeView } from '../views.js';
import { requireVolume } from '../volumes.js';
import { type ApiDeps, ok, type Route } from './route.js';

const checkCreate = checker(SnapshotCreateRequest);
const checkClone = checker(CloneRequest);
const collection = '/v1/volumes/:name/snapshots';
const member = `${collection}/:snapshot`;

type Params = { params: Readonly<Record<string, string>> };

function param(request: Params, field: string): string {
  const value = request.params[field];
  if (value === undefined) throw new BasaltError('INVALID_ARGUMENT', { field, problem: 'is missing' });
  return value;
}

function placeOf(request: Params): { volume: string; snapshot: string } {
  return { volume: param(request, 'name'), snapshot: param(request, 'snapshot') };
}

async function show(deps: ApiDeps, at: { volume: string; snapshot: string }): Promise<SnapshotView> {
  const { state } = await readState(deps.store);
  const { value: volume } = requireVolume(state, at.volume);
  return snapshotView(state, volume, requireSnapshot(state, volume, at.snapshot).value);
}

export const snapshotRoutes: readonly Route[] = [
  {
    method: 'POST',
    role: 'operator',
    path: collection,
    summary:
      'Asks for a snapshot of a volume that is served. Answers when the wish is written down; `state` shows when it is made. The same name again: the snapshot that is there, or another try when that failed.',
    body: SnapshotCreateRequest,
    response: SnapshotView,
    status: 201,
    run: async (deps, request) => {
      const wish = { volume: param(request, 'name'), request: checkCreate(request.body) };
      const { made, id } = await createSnapshot(deps, deps.clock ?? systemClock, wish);
      return { status: made ? 201 : 200, body: await show(deps, { volume: wish.volume, snapshot: id }) };
    },
  },
  {
    method: 'GET',
    path: collection,
    summary: "Lists a volume's snapshots, oldest first.",
    body: null,
    response: Type.Array(SnapshotView),
    status: 200,
    run: async (deps, request) => {
      const { state } = await readState(deps.store);
      const { value: volume } = requireVolume(state, param(request, 'name'));
      return ok(snapshotsOf(state, volume).map((snapshot) => snapshotView(state, volume, snapshot)));
    },
  },
  {
    method: 'GET',
    path: member,
    summary: 'Shows one snapshot, by name or id.',
    body: null,
    response: SnapshotView,
    status: 200,
    run: async (deps, request) => ok(await show(deps, placeOf(request))),
  },
  {
    method: 'DELETE',
    role: 'operator',
    path: member,
    summary: 'Deletes a snapshot. Volumes that began as it are not affected.',
    body: null,
    response: Type.Object({ deleted: Type.String() }),
    status: 200,
    run: async (deps, request) => {
      const at = placeOf(request);
      await deleteSnapshot(deps, at);
      return ok({ deleted: `${at.volume}@${at.snapshot}` });
    },
  },
  {
    method: 'POST',
    role: 'operator',
    path: `${member}/rollback`,
    summary:
      'Starts a job that has the volume hold what the snapshot does, in place. Refused while hosts are attached, and when the volume had another size then.',
    body: null,
    response: JobView,
    status: 202,
    run: async (deps, request) => ({ status: 202, body: await rollBack(deps, placeOf(request)) }),
  },
  {
    method: 'POST',
    role: 'operator',
    path: `${member}/clone`,
    summary:
      'Makes a volume that begins as a snapshot, on the same disks, usable at once. The same request again answers with the volume that is there.',
    body: CloneRequest,
    response: VolumeView,
    status: 201,
    run: async (deps, request) => {
      const clone = checkClone(request.body);
      const { made, id } = await cloneSnapshot(deps, { ...placeOf(request), request: clone });
      const { state } = await readState(deps.store);
      return { status: made ? 201 : 200, body: volumeView(state, requireVolume(state, id).value) };
    },
  },
];
