// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { HostCreateRequest, HostKeysRequest, HostView } from '../../model/api.js';
import { checker } from '../../model/check.js';
import { createHost, deleteHost, hostView, hostViews, setHostKeys } from '../hosts.js';
import { readState } from '../read-state.js';
import { type ApiDeps, ok, type Route } from './route.js';

const checkCreate = checker(HostCreateRequest);
const checkKeys = checker(HostKeysRequest);

async function show(deps: ApiDeps, nqn: string): Promise<HostView> {
  return hostView((await readState(deps.store)).state, nqn);
}

const nqnOf = (request: { params: Readonly<Record<string, string>> }): string => request.params['nqn'] ?? '';

export const hostRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/hosts',
    summary:
      'Gives a host keys, which every volume that it is attached to asks it for. The same request again answers with the host that is there. No answer ever shows a key.',
    body: HostCreateRequest,
    response: HostView,
    status: 201,
    run: async (deps, { body }) => {
      const { nqn, ...keys } = checkCreate(body);
      const made = await createHost(deps, nqn, keys);
      return { status: made ? 201 : 200, body: await show(deps, nqn) };
    },
  },
  {
    method: 'GET',
    path: '/v1/hosts',
    summary: 'Lists the hosts that have keys or are attached to volumes.',
    body: null,
    response: Type.Array(HostView),
    status: 200,
    run: async (deps) => ok(hostViews((await readState(deps.store)).state)),
  },
  {
    method: 'GET',
    path: '/v1/hosts/:nqn',
    summary: 'Shows one host, by NQN: which kinds of keys it has and which volumes it is attached to.',
    body: null,
    response: HostView,
    status: 200,
    run: async (deps, request) => ok(await show(deps, nqnOf(request))),
  },
  {
    method: 'POST',
    path: '/v1/hosts/:nqn/keys',
    summary:
      'Changes the keys of a host for its next connections; what is connected stays. Null takes a kind of key away, what is left out stays.',
    body: HostKeysRequest,
    response: HostView,
    status: 200,
    run: async (deps, request) => {
      await setHostKeys(deps, nqnOf(request), checkKeys(request.body ?? {}));
      return ok(await show(deps, nqnOf(request)));
    },
  },
  {
    method: 'DELETE',
    path: '/v1/hosts/:nqn',
    summary: 'Forgets the keys of a host that is attached to no volume.',
    body: null,
    response: Type.Object({ deleted: Type.String() }),
    status: 200,
    run: async (deps, request) => {
      await deleteHost(deps, nqnOf(request));
      return ok({ deleted: nqnOf(request) });
    },
  },
];
