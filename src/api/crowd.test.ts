// SPDX-License-Identifier: Apache-2.0
// Many requests at once over two servers on one store: each has its effect exactly once.

import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { systemClock } from '../env/clock.js';
import { FollowedStore } from './followed-store.js';
import { buildApp } from './server.js';

const count = 100;
const hostOf = (index: number): string => `nqn.2026-01.io.basalt:host:${index}`;

describe('a crowd of requests', { timeout: 60_000 }, () => {
  let bed: ClusterBed;
  let apps: FastifyInstance[];

  beforeAll(async () => {
    bed = new ClusterBed();
    await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
    await bed.startController('c1');
    apps = [1, 2].map(() => {
      const store = new FollowedStore(bed.connect(), systemClock);
      return buildApp({ ...bed.api, store, listen: '127.0.0.1:0', log: quietLog });
    });
  });
  afterAll(async () => {
    for (const app of apps) await app.close();
    await bed.close();
  });

  const post = async (app: FastifyInstance | undefined, url: string, body: object) => {
    const headers = { host: '127.0.0.1', 'content-type': 'application/json' };
    const response = await app?.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) });
    return { status: response?.statusCode ?? 0, body: response?.json() };
  };

  it('makes and attaches each volume exactly once, though both servers are asked for each', async () => {
    const before = bed.server.revision;
    const answers = await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const body = { name: `v${index}`, sizeBytes: 2 ** 20, legs: 1 };
        const made = await Promise.all(apps.map((app) => post(app, '/v1/volumes', body)));
        await Promise.all(apps.map((app) => post(app, `/v1/volumes/v${index}/attach`, { host: hostOf(index) })));
        return made;
      }),
    );
    for (const made of answers) {
      expect(made.map(({ status }) => status).sort()).toEqual([200, 201]);
      expect(made[0]?.body.id).toBe(made[1]?.body.id);
    }
    expect(bed.server.list('/basalt/v1/volumes/')).toHaveLength(count);
    expect(bed.server.list('/basalt/v1/names/volumes/')).toHaveLength(count);
    expect(bed.server.list('/basalt/v1/leadership/')).toHaveLength(count);
    for (let index = 0; index < count; index++)
      expect((await bed.view(`v${index}`)).hosts, `v${index}`).toEqual([hostOf(index)]);
    expect(bed.server.revision).toBeGreaterThan(before);
    for (let index = 0; index < count; index++) await bed.redundant(`v${index}`);
  });
});
