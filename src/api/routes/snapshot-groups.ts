// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { systemClock } from '../../env/clock.js';
import { SnapshotGroupCreateRequest, SnapshotGroupView } from '../../model/api.js';
import { checker } from '../../model/check.js';
import { createGroup, deleteGroup, listGroups, showGroup } from '../snapshot-groups.js';
import { ok, type Route } from './route.js';

const checkCreate = checker(SnapshotGroupCreateRequest);
const collection = '/v1/snapshot-groups';
const member = `${collection}/:name`;

export const snapshotGroupRoutes: readonly Route[] = [
  {
    method: 'POST',
    role: 'operator',
    path: collection,
    summary:
      'Asks for snapshots of several volumes of one instant, each called as the group. Answers when the wish is written down; `state` shows when they are made: all of them, or none. The same name and volumes again: the group that is there, or another try when that failed.',
    body: SnapshotGroupCreateRequest,
    response: SnapshotGroupView,
    status: 201,
    run: async (deps, { body }) => {
      const request = checkCreate(body);
      const made = await createGroup(deps, deps.clock ?? systemClock, request);
      return { status: made ? 201 : 200, body: await showGroup(deps, request.name) };
    },
  },
  {
    method: 'GET',
    path: collection,
    summary: 'Lists the groups of snapshots.',
    body: null,
    response: Type.Array(SnapshotGroupView),
    status: 200,
    run: async (deps) => ok(await listGroups(deps)),
  },
  {
    method: 'GET',
    path: member,
    summary: 'Shows one group of snapshots, by name.',
    body: null,
    response: SnapshotGroupView,
    status: 200,
    run: async (deps, { params }) => ok(await showGroup(deps, params['name'] ?? '')),
  },
  {
    method: 'DELETE',
    role: 'operator',
    path: member,
    summary: 'Deletes all snapshots of a group. Volumes that began as one of them are not affected.',
    body: null,
    response: Type.Object({ deleted: Type.String() }),
    status: 200,
    run: async (deps, { params }) => {
      await deleteGroup(deps, params['name'] ?? '');
      return ok({ deleted: params['name'] });
    },
  },
];
