// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { DiskView } from '../../model/api.js';
import { readState } from '../read-state.js';
import { diskViews } from '../views.js';
import { ok, type Route } from './route.js';

export const diskRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/disks',
    summary: 'Lists the disks.',
    body: null,
    response: Type.Array(DiskView),
    status: 200,
    run: async (deps) => {
      const { state } = await readState(deps.store);
      return ok(diskViews(state));
    },
  },
];
