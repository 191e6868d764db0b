// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { systemClock } from '../../env/clock.js';
import { TokenCreated, TokenCreateRequest, TokenView } from '../../model/api.js';
import { checker } from '../../model/check.js';
import { createToken, revokeToken, tokenViews } from '../tokens.js';
import { ok, type Route } from './route.js';

const checkCreate = checker(TokenCreateRequest);

export const tokenRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/tokens',
    summary:
      'Makes an API token. Its text is in this answer only. The first one must be of an admin and never expire: from then on every request needs one.',
    body: TokenCreateRequest,
    response: TokenCreated,
    status: 201,
    secretAnswer: true,
    run: async (deps, { body }) => {
      const world = { store: deps.store, random: deps.random, clock: deps.clock ?? systemClock };
      return { status: 201, body: await createToken(world, checkCreate(body)) };
    },
  },
  {
    method: 'GET',
    path: '/v1/tokens',
    role: 'admin',
    summary: 'Lists the API tokens by name and role. No answer shows what a token is.',
    body: null,
    response: Type.Array(TokenView),
    status: 200,
    run: async (deps) => ok(await tokenViews({ store: deps.store, clock: deps.clock ?? systemClock })),
  },
  {
    method: 'DELETE',
    path: '/v1/tokens/:name',
    summary:
      'Revokes an API token: no server takes it any more. The last one of an admin that does not expire goes last.',
    body: null,
    response: Type.Object({ revoked: Type.String() }),
    status: 200,
    run: async (deps, { params }) => {
      const name = params['name'] ?? '';
      await revokeToken(deps, name);
      return ok({ revoked: name });
    },
  },
];
