// SPDX-License-Identifier: Apache-2.0
// Requests against a whole cluster on fake engines: what is done, and what is refused with which field and code.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { errorTable } from '../model/errors.js';
import { openApiDocument } from './openapi.js';
import { buildApp, routes } from './server.js';

let bed: ClusterBed;
let app: FastifyInstance;

beforeAll(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  app = buildApp({ ...bed.api, listen: '127.0.0.1:0', log: quietLog });
});

afterAll(async () => {
  await app.close();
  await bed.close();
});

const MiB = 1024 * 1024;
const host = 'nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111';

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at field by field
  body: any;
}

async function call(method: 'GET' | 'POST' | 'DELETE', url: string, payload?: unknown): Promise<Answer> {
  const headers = { host: '127.0.0.1', ...(payload === undefined ? {} : { 'content-type': 'application/json' }) };
  const text =
    payload === undefined ? {} : { payload: typeof payload === 'string' ? payload : JSON.stringify(payload) };
  const response = await app.inject({ method, url, headers, ...text });
  return { status: response.statusCode, body: response.json() };
}

describe('volumes over the API', () => {
  it('are made once, however often they are asked for', async () => {
    const request = { name: 'v1', sizeBytes: 8 * MiB, legs: 2 };
    const first = await call('POST', '/v1/volumes', request);
    expect(first.status).toBe(201);
    const second = await call('POST', '/v1/volumes', request);
    expect(second).toMatchObject({ status: 200, body: { id: first.body.id } });
    const other = await call('POST', '/v1/volumes', { ...request, sizeBytes: 16 * MiB });
    expect(other).toMatchObject({ status: 409, body: { code: 'ALREADY_EXISTS', field: 'name' } });
    await bed.redundant('v1');
    const shown = await call('GET', '/v1/volumes/v1');
    expect(shown.body).toMatchObject({ name: 'v1', health: 'redundant', controller: 'c1', copies: 2 });
    expect((await call('GET', '/v1/volumes')).body).toHaveLength(1);
  });

  it('are spread over distinct nodes', async () => {
    const { body } = await call('GET', '/v1/volumes/v1');
    for (const leg of body.legs) expect(new Set(leg.map((entry: { node: string }) => entry.node)).size).toBe(2);
  });

  it('admit the hosts that are attached, and nobody else', async () => {
    const { body } = await call('POST', '/v1/volumes/v1/attach', { host });
    expect(body.hosts).toEqual([host]);
    const admitted = async (): Promise<unknown> => {
      const [subsystem] = await bed.node('c1').engine.rpc('nvmf_get_subsystems', { nqn: body.nqn });
      return subsystem?.hosts.map((entry) => entry.nqn);
    };
    await expect.poll(admitted).toEqual([host]);
    const [subsystem] = await bed.node('c1').engine.rpc('nvmf_get_subsystems', { nqn: body.nqn });
    expect(subsystem?.allow_any_host).toBe(false);
    await call('POST', '/v1/volumes/v1/detach', { host });
    await expect.poll(admitted).toEqual([]);
  });

  it('have controller ids that never collide, and one identity on every path', async () => {
    const { body } = await call('GET', '/v1/volumes/v1');
    const [a, b] = await Promise.all(
      ['c1', 'c2'].map(async (name) => (await bed.node(name).engine.rpc('nvmf_get_subsystems', { nqn: body.nqn }))[0]),
    );
    expect((a?.max_cntlid ?? 0) < (b?.min_cntlid ?? 0)).toBe(true);
    expect([a?.serial_number, a?.namespaces[0]?.nguid]).toEqual([b?.serial_number, b?.namespaces[0]?.nguid]);
    const ana = [a, b].map((entry) => entry?.listen_addresses[0]?.ana_state);
    expect(ana).toEqual(['optimized', 'inaccessible']);
  });

  it('grow when they are asked to, once, and never become smaller', async () => {
    const wish = { sizeBytes: 8 * MiB };
    const asked = await call('POST', '/v1/volumes/v1/resize', wish);
    expect(asked.status).toBe(200);
    await call('POST', '/v1/volumes/v1/resize', wish);
    const grown = async (): Promise<unknown> => {
      const { body } = await call('GET', '/v1/volumes/v1');
      return [body.sizeBytes, body.growth];
    };
    await expect.poll(grown, { timeout: 30_000 }).toEqual([8 * MiB, null]);
    const smaller = await call('POST', '/v1/volumes/v1/resize', { sizeBytes: 4 * MiB });
    expect(smaller).toMatchObject({ status: 422, body: { code: 'VOLUME_SHRINK' } });
    const odd = await call('POST', '/v1/volumes/v1/resize', { sizeBytes: 8 * MiB + 1 });
    expect(odd).toMatchObject({ status: 400, body: { code: 'INVALID_ARGUMENT' } });
    const huge = await call('POST', '/v1/volumes/v1/resize', { sizeBytes: 2 ** 40 });
    expect(huge).toMatchObject({ status: 422, body: { code: 'PLACEMENT_IMPOSSIBLE' } });
    expect(huge.body.message).toMatch(/disk .* has \d+ bytes left.*ask for at most \d+ bytes/);
    expect((await call('POST', '/v1/volumes/none/resize', wish)).status).toBe(404);
  });

  it('are exported over NBD by the node that drives them, until they are detached', async () => {
    await call('POST', '/v1/volumes/v1/attach', { nbd: { path: '/tmp/v1.sock' } });
    const uris = async (): Promise<number> => (await bed.view('v1')).paths.flatMap((path) => path.nbd).length;
    await expect.poll(uris).toBe(1);
    expect(await call('DELETE', '/v1/volumes/v1')).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    await call('POST', '/v1/volumes', { name: 'v2', sizeBytes: 4 * MiB, legs: 1 });
    const taken = await call('POST', '/v1/volumes/v2/attach', { nbd: { path: '/tmp/v1.sock', node: 'c1' } });
    expect(taken).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    await call('POST', '/v1/volumes/v1/detach', {});
    await expect.poll(uris).toBe(0);
  });

  it('are deleted with everything of theirs: replicas, exports and records', async () => {
    expect((await call('DELETE', '/v1/volumes/v1')).status).toBe(200);
    expect((await call('GET', '/v1/volumes/v1')).status).toBe(404);
    await call('DELETE', '/v1/volumes/v2');
    const lvols = async (): Promise<number> => {
      const found = await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.lvols(name)));
      return found.flat().length;
    };
    await expect.poll(lvols, { timeout: 30_000 }).toBe(0);
    const left = (): string[] =>
      bed.server
        .list('/basalt/v1/')
        .map((entry) => entry.key)
        .filter((key) => /volumes|leadership|replicas/.test(key));
    await expect.poll(left, { timeout: 30_000 }).toEqual([]);
    const again = await call('POST', '/v1/volumes', { name: 'v1', sizeBytes: 4 * MiB, legs: 1 });
    expect(again.status).toBe(201);
    await bed.redundant('v1');
    await call('DELETE', '/v1/volumes/v1');
  });
});

describe('bad input', () => {
  const good = { name: 'x', sizeBytes: 8 * MiB, legs: 1 };
  const cases: [string, unknown, number, string, string][] = [
    ['no name', { sizeBytes: 8 * MiB }, 400, 'INVALID_ARGUMENT', 'name'],
    ['a name with a slash', { ...good, name: 'a/b' }, 400, 'INVALID_ARGUMENT', 'name'],
    ['a name of 64 characters', { ...good, name: 'a'.repeat(64) }, 400, 'INVALID_ARGUMENT', 'name'],
    ['a size of 0', { ...good, sizeBytes: 0 }, 400, 'INVALID_ARGUMENT', 'sizeBytes'],
    ['a size that is not block-aligned', { ...good, sizeBytes: 8 * MiB + 512 }, 400, 'INVALID_ARGUMENT', 'sizeBytes'],
    ['a size that is no number', { ...good, sizeBytes: '8M' }, 400, 'INVALID_ARGUMENT', 'sizeBytes'],
    ['a size beyond all numbers', { ...good, sizeBytes: 2 ** 60 }, 400, 'INVALID_ARGUMENT', 'sizeBytes'],
    ['0 copies', { ...good, copies: 0 }, 400, 'INVALID_ARGUMENT', 'copies'],
    ['more copies than nodes', { ...good, copies: 4 }, 422, 'PLACEMENT_IMPOSSIBLE', 'copies'],
    ['more bytes than the disks have', { ...good, sizeBytes: 2 ** 40 }, 422, 'PLACEMENT_IMPOSSIBLE', 'sizeBytes'],
    ['0 legs', { ...good, legs: 0 }, 400, 'INVALID_ARGUMENT', 'legs'],
    [
      'a stripe that is no power of two',
      { ...good, stripeSizeBytes: 65536 + 4096 },
      400,
      'INVALID_ARGUMENT',
      'stripeSizeBytes',
    ],
    ['an unknown node', { ...good, controllers: ['c1', 'nope'] }, 400, 'INVALID_ARGUMENT', 'controllers[1]'],
    ['a disk node as a controller', { ...good, controllers: ['d1'] }, 400, 'INVALID_ARGUMENT', 'controllers[0]'],
    ['an unknown field', { ...good, colour: 'red' }, 400, 'INVALID_ARGUMENT', 'colour'],
    ['no JSON', '{', 400, 'INVALID_ARGUMENT', 'body'],
    ['an array', [], 400, 'INVALID_ARGUMENT', 'value'],
  ];

  it.each(cases)('%s is refused, names the field and changes nothing', async (_, payload, status, code, field) => {
    const before = bed.server.list('/basalt/v1/names/').length;
    const answer = await call('POST', '/v1/volumes', payload);
    expect(answer).toMatchObject({ status, body: { code, field } });
    expect(answer.body.hint.length).toBeGreaterThan(0);
    expect(answer.body.message).not.toContain('?');
    expect(bed.server.list('/basalt/v1/names/')).toHaveLength(before);
  });

  it.each<['GET' | 'POST' | 'DELETE', string, unknown, number, string]>([
    ['GET', '/v1/volumes/nope', undefined, 404, 'NOT_FOUND'],
    ['DELETE', '/v1/volumes/nope', undefined, 404, 'NOT_FOUND'],
    ['POST', '/v1/volumes/nope/attach', { host }, 404, 'NOT_FOUND'],
    ['POST', '/v1/volumes/nope/attach', { host: 'no nqn' }, 400, 'INVALID_ARGUMENT'],
    ['GET', '/v1/nodes/nope', undefined, 404, 'NOT_FOUND'],
    ['GET', '/v2/anything', undefined, 404, 'NOT_FOUND'],
  ])('%s %s answers with its code', async (method, url, payload, status, code) => {
    expect(await call(method, url, payload)).toMatchObject({ status, body: { code } });
  });

  it('from a web page, or for another host name, is refused', async () => {
    const page = await app.inject({ url: '/v1/status', headers: { host: '127.0.0.1', origin: 'http://evil.example' } });
    expect(page.statusCode).toBe(400);
    const rebound = await app.inject({ url: '/v1/status', headers: { host: 'evil.example:7420' } });
    expect(rebound.statusCode).toBe(400);
  });
});

describe('the rest of the API', () => {
  it('shows nodes, disks and the whole cluster', async () => {
    const { body } = await call('GET', '/v1/status');
    expect(body.nodes.map((node: { name: string }) => node.name)).toEqual(['c1', 'c2', 'd1', 'd2', 'd3']);
    expect(body.disks).toHaveLength(3);
    expect((await call('GET', '/v1/nodes/d1')).body).toMatchObject({ state: 'up', roles: ['disk'] });
    expect((await call('GET', '/v1/health')).body.ok).toBe(true);
  });

  it('have snapshots, asked for by name, and clones that are volumes like others', async () => {
    await call('POST', '/v1/volumes', { name: 'v7', sizeBytes: 8 * MiB, legs: 2 });
    await bed.redundant('v7');
    const path = '/v1/volumes/v7/snapshots';
    expect((await call('POST', path, { name: 'a/b' })).body).toMatchObject({ code: 'INVALID_ARGUMENT', field: 'name' });
    const asked = await call('POST', path, { name: 's1' });
    expect(asked).toMatchObject({ status: 201, body: { name: 's1', volume: 'v7' } });
    expect(await call('POST', path, { name: 's1' })).toMatchObject({ status: 200, body: { id: asked.body.id } });
    await expect.poll(async () => (await call('GET', `${path}/s1`)).body.state).toBe('ready');
    expect((await call('GET', path)).body).toMatchObject([{ name: 's1', copies: 2, problem: null }]);
    const clone = await call('POST', `${path}/s1/clone`, { name: 'v8' });
    expect(clone).toMatchObject({ status: 201, body: { name: 'v8', sizeBytes: 8 * MiB } });
    expect(await call('POST', `${path}/s1/clone`, { name: 'v8' })).toMatchObject({ status: 200 });
    expect((await call('POST', `${path}/s1/clone`, { name: 'v7' })).body).toMatchObject({ code: 'ALREADY_EXISTS' });
    await bed.redundant('v8');
    const refused = await call('DELETE', '/v1/volumes/v7');
    expect(refused).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    expect(await call('DELETE', `${path}/s1`)).toMatchObject({ status: 200, body: { deleted: 'v7@s1' } });
    expect((await call('DELETE', `${path}/s1`)).body).toMatchObject({ code: 'NOT_FOUND' });
    const none = { name: 'v9', sizeBytes: 8 * MiB, legs: 2, controllers: [] };
    await call('POST', '/v1/volumes', none);
    const unserved = await call('POST', '/v1/volumes/v9/snapshots', { name: 's1' });
    expect(unserved).toMatchObject({ status: 503, body: { code: 'VOLUME_UNAVAILABLE' } });
    for (const name of ['v7', 'v8', 'v9']) expect((await call('DELETE', `/v1/volumes/${name}`)).status).toBe(200);
  });

  it('describes every route in its OpenAPI document, which is plain JSON', async () => {
    const { body } = await call('GET', '/v1/openapi.json');
    expect(Object.keys(body.paths)).toContain('/v1/volumes/{name}/attach');
    expect(
      body.paths['/v1/volumes'].post.requestBody.content['application/json'].schema.properties.name.pattern,
    ).toBeDefined();
  });

  it('has the OpenAPI document in the tree that the routes make; BASALT_REWRITE=1 writes it anew', async () => {
    const path = fileURLToPath(new URL('../../docs/openapi.json', import.meta.url));
    const made = openApiDocument(routes, '1');
    if (process.env['BASALT_REWRITE'] === '1') writeFileSync(path, `${JSON.stringify(made, null, 2)}\n`);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(JSON.parse(JSON.stringify(made)));
  });

  it('answers with the code of the store while that is away', async () => {
    bed.server.away = true;
    const answer = await call('GET', '/v1/volumes');
    bed.server.away = false;
    expect(answer).toMatchObject({
      status: errorTable.STORE_UNREACHABLE.httpStatus,
      body: { code: 'STORE_UNREACHABLE' },
    });
  });
});
