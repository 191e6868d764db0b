// SPDX-License-Identifier: Apache-2.0
// A node that stops lets go of its jobs, and of nothing that changed while it did.

import { expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { JobObject } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, type LiveObject } from '../model/objects.js';
import { JobAgent } from './job-agent.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const live: LiveObject = {
  format: 1,
  name: 'n1',
  kind: 'node',
  incarnation: 'n1-1',
  engine: 'fake',
  roles: ['controller'],
  internal: null,
  hosts: null,
  draining: false,
};
const job: JobObject = {
  format: 1,
  id: uuid(1),
  kind: 'volume.move-controller',
  arguments: { volumeId: uuid(9), to: 'n2' },
  state: 'running',
  cancelling: false,
  progress: { done: 0, total: 1, unit: 'volumes' },
  waitsFor: null,
  createdAtMs: 0,
  startedAtMs: 0,
  endedAtMs: null,
  error: null,
  runner: { node: 'n1', incarnation: 'n1-1' },
  events: [],
};

it('lets go of its jobs as they are then: not of one that ended or that another node runs by now', async () => {
  const link = new MemoryLink();
  const put = (object: JobObject): void => link.put(keys.job(object.id), codecs.job.encode(object));
  const later = [
    { ...job, id: uuid(2), state: 'done' as const, endedAtMs: 5, runner: null },
    { ...job, id: uuid(3), runner: { node: 'n2', incarnation: 'n2-1' } },
    { ...job, id: uuid(4), cancelling: true },
  ];
  for (const number of [1, 2, 3, 4]) put({ ...job, id: uuid(number) });
  let commits = 0;
  link.beforeCommit = () => {
    if (commits++ === 0) for (const object of later) put(object);
  };
  const context = { engine: {} as Engine, clock: systemClock, random: systemRandom, log: quietLog };
  await new JobAgent({ context, link, live: () => live }).release(new AbortController().signal);
  const found = [1, 2, 3, 4].map((number) => link.state.get('jobs', uuid(number)));
  expect(found).toEqual([{ ...job, runner: null }, later[0], later[1], { ...job, ...later[2], runner: null }]);
});
