// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { PoolCreateRequest, PoolPlanRequest, PoolPlanView, PoolView } from '../../model/api.js';
import { checker } from '../../model/check.js';
import { createPool, deletePool, planPool, requirePool } from '../pools.js';
import { readState } from '../read-state.js';
import { poolView } from '../views-pool.js';
import { type ApiDeps, ok, type Route } from './route.js';

const checkCreate = checker(PoolCreateRequest);
const checkPlan = checker(PoolPlanRequest);

async function show(deps: ApiDeps, name: string): Promise<PoolView> {
  const { state } = await readState(deps.store);
  return poolView(state, requirePool(state, name));
}

export const poolRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/pools',
    summary: 'Creates a pool. The same request again answers with the pool that is there.',
    body: PoolCreateRequest,
    response: PoolView,
    status: 201,
    run: async (deps, { body }) => {
      const request = checkCreate(body);
      const made = await createPool(deps, request);
      return { status: made ? 201 : 200, body: await show(deps, request.name) };
    },
  },
  {
    method: 'GET',
    path: '/v1/pools',
    summary: 'Lists the pools.',
    body: null,
    response: Type.Array(PoolView),
    status: 200,
    run: async (deps) => {
      const { state } = await readState(deps.store);
      return ok(state.all('pools').map((pool) => poolView(state, pool)));
    },
  },
  {
    method: 'GET',
    path: '/v1/pools/:name',
    summary: 'Shows one pool, by name or id.',
    body: null,
    response: PoolView,
    status: 200,
    run: async (deps, request) => ok(await show(deps, request.params['name'] ?? '')),
  },
  {
    method: 'POST',
    path: '/v1/pools/:name/plan',
    summary: 'Shows what would move if the pool were planned anew, and changes nothing.',
    body: PoolPlanRequest,
    response: PoolPlanView,
    status: 200,
    run: async (deps, { params, body }) => ok(await planPool(deps, params['name'] ?? '', checkPlan(body ?? {}))),
  },
  {
    method: 'DELETE',
    path: '/v1/pools/:name',
    summary: 'Deletes a pool that holds no volume.',
    body: null,
    response: Type.Object({ deleted: Type.String() }),
    status: 200,
    run: async (deps, request) => {
      const name = request.params['name'] ?? '';
      await deletePool(deps, name);
      return ok({ deleted: name });
    },
  },
];
