// SPDX-License-Identifier: Apache-2.0
// Pools over the API, on a cluster of fake engines in two racks with two classes of disks.

import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { buildApp } from './server.js';

let bed: ClusterBed;
let app: FastifyInstance;

const MiB = 2 ** 20;

beforeAll(async () => {
  bed = new ClusterBed();
  const nodes = [
    ['d1', 'r1', 'ssd', 512],
    ['d2', 'r1', 'ssd', 1024],
    ['d3', 'r2', 'ssd', 768],
    ['d4', 'r2', 'hdd', 2048],
  ] as const;
  for (const [name, rack, diskClass, mib] of nodes) {
    bed.network.disks.add(`/disks/${name}`, mib * MiB);
    const disks = [{ path: `/disks/${name}`, class: diskClass, tags: name === 'd1' ? ['old'] : [] }];
    await bed.start({ name, roles: ['disk'], engine: 'fake', location: { rack }, disks });
  }
  await bed.startController('c1');
  app = buildApp({ ...bed.api, listen: '127.0.0.1:0', log: quietLog });
});

afterAll(async () => {
  await app.close();
  await bed.close();
});

async function call(
  method: 'GET' | 'POST' | 'DELETE',
  url: string,
  payload?: unknown,
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at field by field
): Promise<{ status: number; body: any }> {
  const headers = { host: '127.0.0.1', ...(payload === undefined ? {} : { 'content-type': 'application/json' }) };
  const body = payload === undefined ? {} : { payload: JSON.stringify(payload) };
  const response = await app.inject({ method, url, headers, ...body });
  return { status: response.statusCode, body: response.json() };
}

const copies = (count: number): object => ({ kind: 'copies', copies: count });
const keysUnder = (prefix: string): number => bed.server.list(`/basalt/v1/${prefix}`).length;

describe('a pool', () => {
  it('is made once, with disks of its class only, and reaches 98 % of what they can hold', async () => {
    const request = { name: 'fast', redundancy: copies(2), class: 'ssd', pgCount: 512 };
    const made = await call('POST', '/v1/pools', request);
    expect(made).toMatchObject({ status: 201, body: { name: 'fast', disks: 3, pgCount: 512, mapVersion: 1 } });
    expect(made.body.usableBytes).toBeGreaterThan(0.98 * made.body.optimumBytes);
    expect(await call('POST', '/v1/pools', request)).toMatchObject({ status: 200, body: { id: made.body.id } });
    const other = await call('POST', '/v1/pools', { ...request, domain: 'rack' });
    expect(other).toMatchObject({ status: 409, body: { code: 'ALREADY_EXISTS', field: 'name' } });
  });

  it('keeps replicas in distinct racks when that is its domain', async () => {
    await call('POST', '/v1/pools', { name: 'racks', redundancy: copies(2), domain: 'rack' });
    await call('POST', '/v1/volumes', { name: 'v', sizeBytes: 8 * MiB, legs: 4, pool: 'racks', controllers: ['c1'] });
    const { legs, copies: kept } = (await call('GET', '/v1/volumes/v')).body;
    expect(kept).toBe(2);
    for (const leg of legs) {
      const racks = leg.map((entry: { node: string }) => (['d1', 'd2'].includes(entry.node) ? 'r1' : 'r2'));
      expect(new Set(racks).size).toBe(2);
    }
  });

  it.each<[string, unknown, number, string, string, RegExp]>([
    [
      'more copies than racks',
      { redundancy: copies(3), domain: 'rack' },
      422,
      'PLACEMENT_IMPOSSIBLE',
      'redundancy',
      /1 more rack, or ask for 2 copies, or choose a narrower/,
    ],
    [
      'a class that no disk has',
      { redundancy: copies(2), class: 'nvme' },
      422,
      'PLACEMENT_IMPOSSIBLE',
      'redundancy',
      /2 more nodes/,
    ],
    [
      'a tag that one node has',
      { redundancy: copies(2), tags: ['old'] },
      422,
      'PLACEMENT_IMPOSSIBLE',
      'redundancy',
      /1 more node/,
    ],
    [
      'one data member',
      { redundancy: { kind: 'erasure', data: 1, parity: 1 } },
      422,
      'POOL_UNSUPPORTED',
      'redundancy',
      /ask for 2 copies/,
    ],
    [
      'more members than there are domains',
      { redundancy: { kind: 'erasure', data: 4, parity: 2 } },
      422,
      'PLACEMENT_IMPOSSIBLE',
      'redundancy',
      /6 members need disks in 6 nodes.*more node/,
    ],
    ['no redundancy', {}, 400, 'INVALID_ARGUMENT', 'redundancy', /missing/],
    ['too many PGs', { redundancy: copies(2), pgCount: 1e6 }, 400, 'INVALID_ARGUMENT', 'pgCount', /16384/],
  ])(
    'with %s is refused, with the reason and the smallest change, and leaves nothing behind',
    async (_, more, status, code, field, message) => {
      // What agents report of volumes that were made before may come meanwhile.
      const made = (): number[] => ['pools/', 'names/', 'pgmaps/', 'volumes/'].map(keysUnder);
      const before = made();
      const answer = await call('POST', '/v1/pools', { name: 'no', ...(more as object) });
      expect(answer).toMatchObject({ status, body: { code, field } });
      expect(answer.body.message).toMatch(message);
      expect(made()).toEqual(before);
    },
  );

  it('says what a change would move, how much and how long, and moves nothing', async () => {
    const nothing = await call('POST', '/v1/pools/racks/plan', {});
    expect(nothing.body).toMatchObject({ pool: 'racks', moves: [], bytes: 0, seconds: 0 });
    // Nodes write of themselves meanwhile.
    const kept = async (): Promise<unknown> => (await call('GET', '/v1/pools')).body;
    const before = [await kept(), keysUnder('pgmaps/'), keysUnder('jobs/')];
    const { body } = await call('POST', '/v1/pools/racks/plan', { without: ['d4'], bytesPerSecond: MiB });
    expect(body.moves.length).toBeGreaterThanOrEqual(Math.floor(body.movesMin));
    expect(body.moves.every((move: { to: string; from: string }) => move.to !== move.from)).toBe(true);
    expect(body.bytes).toBeGreaterThan(0);
    expect(body.seconds).toBe(Math.ceil(body.bytes / MiB));
    const row = body.disks.find((disk: { node: string }) => disk.node === 'd4');
    expect(row).toMatchObject({ pgsAfter: 0, inBytes: 0 });
    expect(row.outBytes).toBe(
      body.moves
        .filter((move: { from: string }) => move.from === row.disk)
        .reduce((sum: number, move: { bytes: number }) => sum + move.bytes, 0),
    );
    expect([await kept(), keysUnder('pgmaps/'), keysUnder('jobs/')]).toEqual(before);
  });

  it('cannot be planned without what it needs', async () => {
    const answer = await call('POST', '/v1/pools/racks/plan', { without: ['d3', 'd4'] });
    expect(answer).toMatchObject({ status: 422, body: { code: 'PLACEMENT_IMPOSSIBLE', field: 'without' } });
    expect(await call('POST', '/v1/pools/racks/plan', { without: ['d9'] })).toMatchObject({
      status: 400,
      body: { field: 'without[0]' },
    });
  });

  it('is kept while it holds a volume, and can go then', async () => {
    expect(await call('DELETE', '/v1/pools/racks')).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    await call('DELETE', '/v1/volumes/v');
    await expect.poll(() => keysUnder('volumes/'), { timeout: 30_000 }).toBe(0);
    expect((await call('DELETE', '/v1/pools/racks')).status).toBe(200);
    expect((await call('GET', '/v1/pools/racks')).status).toBe(404);
    expect(keysUnder('pgmaps/')).toBe(1);
  });
});

describe('a volume', () => {
  it('takes at most 5 writes to create, however large it is', async () => {
    await call('POST', '/v1/volumes', { name: 'first', sizeBytes: 4 * MiB, controllers: [] });
    const written: string[] = [];
    const watch = bed.connect().watch('/basalt/v1/', bed.server.revision + 1);
    const watching = (async () => {
      for await (const batch of watch)
        for (const event of batch.kind === 'events' ? batch.events : [])
          written.push(event.kind === 'put' ? event.entry.key : event.key);
    })();
    const request = { name: 'large', sizeBytes: 256 * MiB, legs: 64, controllers: [] };
    expect((await call('POST', '/v1/volumes', request)).status).toBe(201);
    await expect.poll(async () => (await call('GET', '/v1/volumes/large')).body.phase).toBe('live');
    watch.close();
    await watching;
    expect(written.filter((key) => !key.includes('/observed/') && !key.includes('/disks/')).length).toBeLessThanOrEqual(
      5,
    );
  });

  it('follows its route: each leg on the disks of the PG that the seed gives', async () => {
    const { ClusterState } = await import('../model/cluster-state.js');
    const { diskIdsOf, pgsOfVolume } = await import('../placement/pool.js');
    const state = new ClusterState();
    state.replace(
      bed.server.list('/basalt/v1/').map((entry) => ({ key: entry.key, value: entry.value.toString(), revision: 1 })),
    );
    const volume = state.volumeByName('large');
    const pool = state.get('pools', volume?.pool ?? '');
    const map = state.get('pgMaps', volume?.pool ?? '');
    if (volume === null || pool === null || map === null) throw new Error('not there');
    const pgs = pgsOfVolume(volume, pool.pgCount);
    const wanted = pgs.map((pg) => diskIdsOf(map)[pg]);
    expect(volume.legs.map((leg) => leg.replicas.map((entry) => entry.disk))).toEqual(wanted);
  });

  it('can be deleted by force, and with no other wish', async () => {
    expect(await call('DELETE', '/v1/volumes/first?now=true')).toMatchObject({
      status: 400,
      body: { code: 'INVALID_ARGUMENT', field: 'query.now' },
    });
    expect((await call('DELETE', '/v1/volumes/first?force=true')).status).toBe(200);
  });

  it('is made once each, by however many requests at a time', async () => {
    const names = Array.from({ length: 40 }, (_, at) => `many-${at % 30}`);
    const answers = await Promise.all(
      names.map((name) => call('POST', '/v1/volumes', { name, sizeBytes: MiB, legs: 1, controllers: [] })),
    );
    expect(answers.map(({ status }) => status).filter((status) => status === 201)).toHaveLength(30);
    expect(answers.every(({ status }) => status === 201 || status === 200)).toBe(true);
    expect(
      (await call('GET', '/v1/volumes')).body.filter((entry: { name: string }) => entry.name.startsWith('many-')),
    ).toHaveLength(30);
  });

  it('may not ask its pool for another number of copies', async () => {
    const answer = await call('POST', '/v1/volumes', { name: 'x', sizeBytes: MiB, pool: 'fast', copies: 3 });
    expect(answer).toMatchObject({ status: 400, body: { code: 'INVALID_ARGUMENT', field: 'copies' } });
  });
});
