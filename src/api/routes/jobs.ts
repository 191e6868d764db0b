// SPDX-License-Identifier: Apache-2.0

import Type from 'typebox';
import { JobView } from '../../model/jobs.js';
import { cancelJob, listJobs, showJob } from '../jobs.js';
import { ok, type Route } from './route.js';

export const jobRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/jobs',
    summary: 'Lists the jobs, the oldest first. Of those that have ended the last ones are kept.',
    body: null,
    response: Type.Array(JobView),
    status: 200,
    run: async (deps) => ok(await listJobs(deps)),
  },
  {
    method: 'GET',
    path: '/v1/jobs/:id',
    summary: 'Shows one job: how far it is, what it waits for, what happened.',
    body: null,
    response: JobView,
    status: 200,
    run: async (deps, { params }) => ok(await showJob(deps, params['id'] ?? '')),
  },
  {
    method: 'POST',
    role: 'operator',
    path: '/v1/jobs/:id/cancel',
    summary: 'Asks for the end of a job. What it has done stays done; nothing is left half done.',
    body: null,
    response: JobView,
    status: 200,
    run: async (deps, { params }) => ok(await cancelJob(deps, params['id'] ?? '')),
  },
];
