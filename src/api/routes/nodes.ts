// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { NodeView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { readState } from '../read-state.js';
import { nodeView } from '../views.js';
import { ok, type Route } from './route.js';

export const nodeRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/nodes',
    summary: 'Lists the nodes.',
    body: null,
    response: Type.Array(NodeView),
    status: 200,
    run: async (deps) => {
      const { state } = await readState(deps.store);
      return ok(state.all('nodes').map((node) => nodeView(state, node.name)));
    },
  },
  {
    method: 'GET',
    path: '/v1/nodes/:name',
    summary: 'Shows one node.',
    body: null,
    response: NodeView,
    status: 200,
    run: async (deps, request) => {
      const name = request.params['name'] ?? '';
      const view = nodeView((await readState(deps.store)).state, name);
      if (view === null) throw new BasaltError('NOT_FOUND', { kind: 'node', name });
      return ok(view);
    },
  },
];
