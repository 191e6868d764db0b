// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { DrainPlanView } from '../../model/api.js';
import { CordonKind, JobView } from '../../model/jobs.js';
import { cordon, drain, previewDrain, removeDisk, uncordon } from '../cordons.js';
import { ok, type Route, type RouteRequest } from './route.js';

const Cordoned = Type.Object({ kind: CordonKind, name: Type.String() }, { additionalProperties: false });

/** The same for both: `/v1/disks/:name/…` and `/v1/nodes/:name/…`. */
function routesFor(kind: CordonKind): Route[] {
  const base = `/v1/${kind}s/:name`;
  const target = ({ params }: RouteRequest) => ({ kind, name: params['name'] ?? '' });
  return [
    {
      method: 'POST',
      role: 'operator',
      path: `${base}/cordon`,
      summary: `Has nothing new placed on a ${kind}. What is there stays.`,
      body: null,
      response: Cordoned,
      status: 200,
      run: async (deps, request) => {
        await cordon(deps, target(request));
        return ok(target(request));
      },
    },
    {
      method: 'POST',
      role: 'operator',
      path: `${base}/uncordon`,
      summary: `Has a ${kind} take new replicas again. A drain of it that is under way ends.`,
      body: null,
      response: Cordoned,
      status: 200,
      run: async (deps, request) => {
        await uncordon(deps, target(request));
        return ok(target(request));
      },
    },
    {
      method: 'POST',
      role: 'operator',
      path: `${base}/drain`,
      summary: `Moves everything off a ${kind}, as a job, with redundancy kept. While it runs, the same request answers with that job.`,
      body: null,
      response: JobView,
      status: 202,
      run: async (deps, request) => ({ status: 202, body: await drain(deps, target(request)) }),
    },
    {
      method: 'POST',
      role: 'operator',
      path: `${base}/drain-plan`,
      summary: `Shows what draining a ${kind} would move, and changes nothing.`,
      body: null,
      response: DrainPlanView,
      status: 200,
      run: async (deps, request) => ok(await previewDrain(deps, target(request))),
    },
  ];
}

export const cordonRoutes: readonly Route[] = [
  ...routesFor('disk'),
  ...routesFor('node'),
  {
    method: 'DELETE',
    path: '/v1/disks/:name',
    summary: 'Takes a disk that holds nothing out of the cluster. Uncordoning it brings it back.',
    body: null,
    response: Type.Object({ removed: Type.String() }),
    status: 200,
    run: async (deps, { params }) => {
      await removeDisk(deps, params['name'] ?? '');
      return ok({ removed: params['name'] });
    },
  },
];
