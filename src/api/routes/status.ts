// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { StatusView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { readState } from '../read-state.js';
import { diskViews, nodeView, shownVolumes, volumeView } from '../views.js';
import { type ApiDeps, ok, type Route } from './route.js';

async function status(deps: ApiDeps): Promise<StatusView> {
  const { state } = await readState(deps.store);
  const cluster = state.get('cluster', '');
  if (cluster === null) throw new BasaltError('NOT_FOUND', { kind: 'cluster', name: '(not initialised yet)' });
  const nodes = state.all('nodes').flatMap((node) => nodeView(state, node.name) ?? []);
  const volumes = shownVolumes(state).map((volume) => volumeView(state, volume));
  const healthy =
    nodes.every((node) => node.state === 'up') &&
    volumes.every(
      (volume) => volume.phase !== 'live' || volume.health === 'redundant' || volume.controllers.length === 0,
    );
  return {
    version: deps.version,
    cluster: { id: cluster.id },
    store: { endpoints: [...deps.storeEndpoints] },
    health: healthy ? 'ok' : 'degraded',
    nodes,
    disks: diskViews(state),
    volumes,
  };
}

export const statusRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/status',
    summary: 'Shows the whole cluster.',
    body: null,
    response: StatusView,
    status: 200,
    run: async (deps) => ok(await status(deps)),
  },
  {
    method: 'GET',
    path: '/v1/health',
    summary: 'Answers when the server runs and reaches the store.',
    body: null,
    response: Type.Object({ ok: Type.Boolean(), version: Type.String() }),
    status: 200,
    run: async (deps) => {
      await readState(deps.store);
      return ok({ ok: true, version: deps.version });
    },
  },
];
