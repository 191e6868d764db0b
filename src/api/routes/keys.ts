// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { ClusterKeyView } from '../../model/api.js';
import { ClusterKeyId } from '../../model/objects.js';
import { clusterKeyView, pruneClusterKeys, rotateClusterKey } from '../encryption.js';
import { ok, type Route } from './route.js';

export const keyRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/keys',
    summary: 'Lists the cluster keys by id, with how many volumes each is needed for.',
    body: null,
    response: ClusterKeyView,
    status: 200,
    run: async (deps) => ok(await clusterKeyView(deps)),
  },
  {
    method: 'POST',
    path: '/v1/keys/rotate',
    summary:
      "Changes to a new cluster key: the newest of the server's key file, or one that is drawn now. Wraps every data key anew; data is not touched. After an interruption, ask again.",
    body: null,
    response: Type.Object({ keyId: ClusterKeyId, rewrapped: Type.Integer() }),
    status: 200,
    run: async (deps) => ok(await rotateClusterKey(deps)),
  },
  {
    method: 'POST',
    path: '/v1/keys/prune',
    summary: "Takes the keys that no volume needs any more out of the server's key file.",
    body: null,
    response: Type.Object({ removed: Type.Array(ClusterKeyId) }),
    status: 200,
    run: async (deps) => ok(await pruneClusterKeys(deps)),
  },
];
