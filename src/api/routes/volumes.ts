// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { systemClock } from '../../env/clock.js';
import {
  AttachRequest,
  ChangePoolRequest,
  MoveControllerRequest,
  MoveReplicaRequest,
  ScrubVolumeRequest,
  VolumeCreateRequest,
  VolumeResizeRequest,
  VolumeView,
} from '../../model/api.js';
import { checker } from '../../model/check.js';
import { BasaltError } from '../../model/errors.js';
import { JobView } from '../../model/jobs.js';
import { changePool, moveController, moveReplica, scrubVolume } from '../jobs.js';
import { readState } from '../read-state.js';
import { shownVolumes, volumeView } from '../views.js';
import { attachPatiently, createVolume, deleteVolume, detachVolume, requireVolume, resizeVolume } from '../volumes.js';
import { type ApiDeps, ok, type Route } from './route.js';

const checkCreate = checker(VolumeCreateRequest);
const checkResize = checker(VolumeResizeRequest);
const checkAttach = checker(AttachRequest);
const checkMove = checker(MoveControllerRequest);
const checkMoveReplica = checker(MoveReplicaRequest);
const checkChangePool = checker(ChangePoolRequest);
const checkScrub = checker(ScrubVolumeRequest);

async function show(deps: ApiDeps, name: string): Promise<VolumeView> {
  const { state } = await readState(deps.store);
  return volumeView(state, requireVolume(state, name).value);
}

function nameOf(request: { params: Readonly<Record<string, string>> }): string {
  const name = request.params['name'];
  if (name === undefined) throw new BasaltError('INVALID_ARGUMENT', { field: 'name', problem: 'is missing' });
  return name;
}

export const volumeRoutes: readonly Route[] = [
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes',
    summary: 'Creates a volume. The same request again answers with the volume that is there.',
    body: VolumeCreateRequest,
    response: VolumeView,
    status: 201,
    run: async (deps, { body }) => {
      const request = checkCreate(body);
      const { made } = await createVolume(deps, request);
      return { status: made ? 201 : 200, body: await show(deps, request.name) };
    },
  },
  {
    method: 'GET',
    path: '/v1/volumes',
    summary: 'Lists the volumes.',
    body: null,
    response: Type.Array(VolumeView),
    status: 200,
    run: async (deps) => {
      const { state } = await readState(deps.store);
      return ok(shownVolumes(state).map((volume) => volumeView(state, volume)));
    },
  },
  {
    method: 'GET',
    path: '/v1/volumes/:name',
    summary: 'Shows one volume, by name or id.',
    body: null,
    response: VolumeView,
    status: 200,
    run: async (deps, request) => ok(await show(deps, nameOf(request))),
  },
  {
    method: 'DELETE',
    role: 'operator',
    path: '/v1/volumes/:name',
    summary:
      'Deletes a volume that nobody is attached to, with all its data. `force`: without waiting for nodes that are away, which delete their part when they are back; takes the id of a volume that is being deleted already, too.',
    body: null,
    flags: ['force'],
    response: Type.Object({ deleted: Type.String() }),
    status: 200,
    run: async (deps, request) => {
      await deleteVolume(deps, nameOf(request), { force: request.flags.has('force') });
      return ok({ deleted: nameOf(request) });
    },
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/resize',
    summary:
      'Makes a volume larger while it is used. Answers when the wish is written down; `growth` shows it until it has grown, and what it waits for.',
    body: VolumeResizeRequest,
    response: VolumeView,
    status: 200,
    run: async (deps, request) => {
      await resizeVolume(deps, nameOf(request), checkResize(request.body));
      return ok(await show(deps, nameOf(request)));
    },
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/move-controller',
    summary:
      'Hands a volume over to another controller node while hosts use it, as a job. A node that is none of its controllers becomes one first.',
    body: MoveControllerRequest,
    response: JobView,
    status: 202,
    run: async (deps, request) => ({
      status: 202,
      body: await moveController(deps, nameOf(request), checkMove(request.body).to),
    }),
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/move-replica',
    summary:
      "Moves a volume's replicas from one disk to another while hosts use it, as a job. Refused when the other disk cannot hold them, with the reason.",
    body: MoveReplicaRequest,
    response: JobView,
    status: 202,
    run: async (deps, request) => ({
      status: 202,
      body: await moveReplica(deps, nameOf(request), checkMoveReplica(request.body)),
    }),
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/change-pool',
    summary:
      'Gives a volume to another pool (another class, domain or number of copies) while hosts use it, as a job. Refused where that pool cannot hold it, with the reason.',
    body: ChangePoolRequest,
    response: JobView,
    status: 202,
    run: async (deps, request) => ({
      status: 202,
      body: await changePool(deps, nameOf(request), checkChangePool(request.body)),
    }),
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/scrub',
    summary:
      'Compares all members of a volume, leg by leg, while hosts use it, as a job. What differs or cannot be read is rewritten, unless `repair` is false; `result` counts blocks of 4 KiB.',
    body: ScrubVolumeRequest,
    response: JobView,
    status: 202,
    run: async (deps, request) => ({
      status: 202,
      body: await scrubVolume(deps, nameOf(request), checkScrub(request.body ?? {})),
    }),
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/attach',
    summary: 'Lets a host connect to a volume, or exports it over NBD.',
    body: AttachRequest,
    response: VolumeView,
    status: 200,
    run: async (deps, request) => {
      const wish = { name: nameOf(request), request: checkAttach(request.body ?? {}) };
      await attachPatiently(deps, deps.clock ?? systemClock, wish);
      return ok(await show(deps, nameOf(request)));
    },
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/volumes/:name/detach',
    summary: 'Takes a host or an NBD export off a volume; without either, all of them.',
    body: AttachRequest,
    response: VolumeView,
    status: 200,
    run: async (deps, request) => {
      await detachVolume(deps, nameOf(request), checkAttach(request.body ?? {}));
      return ok(await show(deps, nameOf(request)));
    },
  },
];
