// SPDX-License-Identifier: Apache-2.0
//
// Goal: once there are tokens, no route of the API is reached without one of a role that may; what is stored, logged and
// answered never shows one; beyond loopback nothing goes without one, nor in clear.
// Method: every route of the table with every kind of caller, on a real store in memory; listeners with TLS on loopback
// addresses, asked by the project's own client and by bare sockets.

import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { ApiClient } from '../client/api-client.js';
import { type Clock, systemClock } from '../env/clock.js';
import { keys } from '../model/keys.js';
import { type ApiRole, apiRoles, mayDo } from '../model/tokens.js';
import { TestAuthority } from '../store/testing/certificates.js';
import { type Route, roleOf } from './routes/route.js';
import { buildApp, routes, startApiServer } from './server.js';

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at field by field
  body: any;
  headers: Record<string, unknown>;
}

let bed: ClusterBed;
let app: FastifyInstance;
let wallMs = 1_000_000;
const logged: unknown[] = [];
const clock: Clock = { ...systemClock, wallMs: () => wallMs };

beforeEach(() => {
  bed = new ClusterBed();
  const log = { warn: (fields: object, message: string) => void logged.push(fields, message) };
  app = buildApp({ ...bed.api, clock, listen: '127.0.0.1:0', log });
});

afterEach(async () => {
  await app.close();
  await bed.close();
});

async function call(
  method: 'GET' | 'POST' | 'DELETE' | 'HEAD',
  url: string,
  at: { token?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const headers = {
    host: '127.0.0.1',
    ...(at.token === undefined ? {} : { authorization: `Bearer ${at.token}` }),
    ...(at.body === undefined ? {} : { 'content-type': 'application/json' }),
    ...at.headers,
  };
  const payload = at.body === undefined ? {} : { payload: JSON.stringify(at.body) };
  const response = await app.inject({ method, url, headers, ...payload });
  const body = response.body === '' ? null : response.json();
  return { status: response.statusCode, body, headers: response.headers };
}

async function make(name: string, role: ApiRole, more: { token?: string; expiresInS?: number } = {}): Promise<string> {
  const { token, ...rest } = more;
  const body = { name, role, ...rest };
  const made = await call('POST', '/v1/tokens', { body, ...(token === undefined ? {} : { token }) });
  expect(made.status, JSON.stringify(made.body)).toBe(201);
  return made.body.token;
}

const urlOf = (route: Route): string => route.path.replaceAll(/:\w+/g, 'nothing');
const everyRoute = (): [string, Route][] => routes.map((route) => [`${route.method} ${route.path}`, route]);

describe('API tokens', () => {
  it('are not asked for on loopback before there is one, and by every route from then on', async () => {
    expect((await call('GET', '/v1/volumes')).status).toBe(200);
    const admin = await make('root', 'admin');
    for (const [name, route] of everyRoute()) {
      const none = await call(route.method, urlOf(route));
      expect([name, none.status, none.body.code]).toEqual([name, 401, 'UNAUTHENTICATED']);
      expect(none.headers['www-authenticate']).toBe('Bearer');
    }
    for (const url of ['/v1/openapi.json', '/v1/none', '/'])
      expect([url, (await call('GET', url)).status]).toEqual([url, 401]);
    expect((await call('GET', '/v1/openapi.json', { token: admin })).status).toBe(200);
    expect((await call('GET', '/v1/none', { token: admin })).status).toBe(404);
  });

  it('reach with each role exactly the routes that ask for no more', async () => {
    const admin = await make('root', 'admin');
    const tokens = {
      viewer: await make('v', 'viewer', { token: admin }),
      operator: await make('o', 'operator', { token: admin }),
      admin: await make('a', 'admin', { token: admin }),
    };
    for (const [name, route] of everyRoute()) {
      for (const role of apiRoles) {
        const answer = await call(route.method, urlOf(route), { token: tokens[role] });
        const allowed = mayDo(role, roleOf(route));
        expect([name, role, answer.status === 403, answer.body?.code === 'FORBIDDEN']).toEqual([
          name,
          role,
          !allowed,
          !allowed,
        ]);
        expect([name, role, answer.status]).not.toEqual([name, role, 401]);
      }
    }
  });

  it('of viewers change nothing, and keys, pools and tokens are for admins', () => {
    const open = everyRoute().filter(([, route]) => roleOf(route) === 'viewer' && route.method !== 'GET');
    expect(open.map(([name]) => name)).toEqual([]);
    const admins = everyRoute().filter(([, route]) => roleOf(route) === 'admin');
    for (const path of ['/v1/keys/rotate', '/v1/tokens', '/v1/hosts', '/v1/pools'])
      expect(admins.map(([name]) => name)).toContain(`POST ${path}`);
  });

  it('are also asked of a HEAD request', async () => {
    await make('root', 'admin');
    expect((await call('HEAD', '/v1/volumes')).status).toBe(401);
  });

  it('end when they are revoked, or at their time, and are no others', async () => {
    const admin = await make('root', 'admin');
    const short = await make('short', 'viewer', { token: admin, expiresInS: 10 });
    const gone = await make('gone', 'viewer', { token: admin });
    const get = async (token: string): Promise<number> => (await call('GET', '/v1/volumes', { token })).status;
    expect([await get(short), await get(gone)]).toEqual([200, 200]);
    wallMs += 10_000;
    expect((await call('DELETE', '/v1/tokens/gone', { token: admin })).body).toEqual({ revoked: 'gone' });
    expect([await get(short), await get(gone)]).toEqual([401, 401]);
    const [head, name, secret = ''] = admin.split('/');
    const wrong = [
      `${head}/${name}/${secret.slice(0, -2)}AA`,
      `${head}/other/${secret}`,
      secret,
      '',
      `${admin} `,
      `${admin}x`,
    ];
    for (const token of wrong.filter((text) => text.trim() !== admin))
      expect([token, await get(token)]).toEqual([token, 401]);
    const basic = await call('GET', '/v1/volumes', { headers: { authorization: `Basic ${admin}` } });
    expect(basic.status).toBe(401);
    const again = await make('gone', 'viewer', { token: admin });
    expect([await get(gone), await get(again)]).toEqual([401, 200]);
  });

  it('begin and end with one of an admin that never expires, so that nobody is locked out', async () => {
    const first = await call('POST', '/v1/tokens', { body: { name: 'a', role: 'operator' } });
    expect(first).toMatchObject({ status: 400, body: { code: 'INVALID_ARGUMENT', field: 'role' } });
    const expiring = await call('POST', '/v1/tokens', { body: { name: 'a', role: 'admin', expiresInS: 60 } });
    expect(expiring).toMatchObject({ status: 400, body: { field: 'expiresInS' } });
    const admin = await make('root', 'admin');
    await make('late', 'admin', { token: admin, expiresInS: 60 });
    const last = await call('DELETE', '/v1/tokens/root', { token: admin });
    expect(last).toMatchObject({ status: 409, body: { code: 'BUSY' } });
    await make('root2', 'admin', { token: admin });
    expect((await call('DELETE', '/v1/tokens/root', { token: admin })).status).toBe(200);
    expect((await call('GET', '/v1/volumes')).status).toBe(401);
  });

  it('may all go again, one after the other', async () => {
    const admin = await make('root', 'admin');
    await make('v', 'viewer', { token: admin });
    for (const name of ['v', 'root'])
      expect((await call('DELETE', `/v1/tokens/${name}`, { token: admin })).status).toBe(200);
    expect((await call('GET', '/v1/volumes')).status).toBe(200);
  });

  it('leave an admin when two are revoked at once by each other', async () => {
    const one = await make('one', 'admin');
    const two = await make('two', 'admin', { token: one });
    await make('v', 'viewer', { token: one });
    const both = await Promise.all([
      call('DELETE', '/v1/tokens/two', { token: one }),
      call('DELETE', '/v1/tokens/one', { token: two }),
    ]);
    expect(both.filter((answer) => answer.status === 200)).toHaveLength(1);
  });

  it('count as there when they cannot be read, and let nobody in', async () => {
    await bed.connect().put(keys.token('new'), JSON.stringify({ format: 2, name: 'new' }));
    expect((await call('GET', '/v1/volumes')).status).toBe(401);
    const token = `basalt1/new/${'A'.repeat(43)}`;
    expect((await call('GET', '/v1/volumes', { token })).status).toBe(401);
  });

  it('are nowhere but in the answer that made them', async () => {
    const admin = await make('root', 'admin');
    const answers = [
      await call('GET', '/v1/tokens', { token: admin }),
      await call('POST', '/v1/tokens', { token: admin, body: { name: 'root', role: 'admin' } }),
      await call('POST', '/v1/tokens', { token: admin, body: { name: admin, role: 'admin' } }),
      await call('GET', '/v1/volumes', { token: `${admin}x` }),
    ];
    expect(answers.map((answer) => answer.status)).toEqual([200, 409, 400, 401]);
    const secret = admin.split('/')[2] ?? '';
    const hex = Buffer.from(secret, 'base64url').toString('hex');
    const everything = [
      bed.server.list('').map((entry) => `${entry.key} ${entry.value.toString()}`),
      answers,
      logged,
    ].map((part) => JSON.stringify(part));
    expect(everything[0]).toContain(keys.token('root'));
    for (const part of everything) {
      expect(part).not.toContain(secret);
      expect(part).not.toContain(hex);
    }
  });

  it('are not made under an idempotency key, with which the answer would be stored', async () => {
    const headers = { 'idempotency-key': 'k' };
    const answer = await call('POST', '/v1/tokens', { headers, body: { name: 'root', role: 'admin' } });
    expect(answer).toMatchObject({ status: 400, body: { code: 'INVALID_ARGUMENT', field: 'idempotency-key header' } });
    expect(bed.server.list(keys.tokens)).toEqual([]);
  });
});

describe('a listener with TLS', () => {
  let folder: string;
  let authority: TestAuthority;
  let tls: { listen: string; cert: Buffer; key: Buffer };
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'basalt-api-tls-'));
    authority = await TestAuthority.create(folder, 'authority');
    const { cert, key } = await authority.sign('api');
    tls = { listen: '127.0.0.1:0', cert: readFileSync(cert), key: readFileSync(key) };
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('asks for a token also while there is none, and speaks TLS 1.3 only', async () => {
    const log = { warn: () => {} };
    const server = await startApiServer({ ...bed.api, listen: '127.0.0.1:0', tls, log });
    try {
      const ca = readFileSync(authority.ca, 'utf8');
      const endpoint = server.tlsUrl ?? '';
      const plain = new ApiClient({ endpoint: server.url });
      const stranger = new ApiClient({ endpoint, ca });
      await expect(stranger.volumes()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
      const { token } = await plain.createToken({ name: 'root', role: 'admin' });
      await expect(stranger.volumes()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
      await expect(plain.volumes()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
      const admin = new ApiClient({ endpoint, ca, token });
      expect(await admin.volumes()).toEqual([]);
      const viewer = await admin.createToken({ name: 'v', role: 'viewer' });
      const looking = new ApiClient({ endpoint, ca, token: viewer.token });
      await expect(looking.createVolume({ name: 'v1', sizeBytes: 4096 })).rejects.toMatchObject({ code: 'FORBIDDEN' });
      // Who does not know the authority does not talk to it, and shows it nothing.
      await expect(new ApiClient({ endpoint, token }).volumes()).rejects.toMatchObject({ code: 'API_UNREACHABLE' });

      const port = Number(new URL(endpoint).port);
      const old = connectTls({ host: '127.0.0.1', port, ca, maxVersion: 'TLSv1.2' });
      const [refusal] = await once(old, 'error');
      expect(String(refusal)).toMatch(/protocol version/);
      const bare = connectTcp(port, '127.0.0.1');
      bare.on('error', () => {});
      const said: Buffer[] = [];
      bare.on('data', (piece: Buffer) => said.push(piece));
      bare.write('GET /v1/volumes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
      await once(bare, 'close');
      expect(Buffer.concat(said).toString('latin1')).not.toContain('HTTP/');
    } finally {
      await server.close();
    }
  });

  it('leaves nothing behind when its address is taken', async () => {
    const log = { warn: () => {} };
    const first = await startApiServer({ ...bed.api, listen: '127.0.0.1:0', log });
    const taken = { ...tls, listen: new URL(first.url).host };
    const second = startApiServer({ ...bed.api, listen: '127.0.0.1:0', tls: taken, log });
    await expect(second).rejects.toMatchObject({ code: 'BUSY' });
    await first.close();
  });
});

describe('a client', () => {
  const token = `basalt1/root/${'A'.repeat(43)}`;
  it('shows a token to nobody in clear but on this machine', () => {
    expect(() => new ApiClient({ endpoint: 'http://10.0.0.1:7420', token })).toThrow(/https:/);
    expect(() => new ApiClient({ endpoint: '10.0.0.1:7420', token })).toThrow(/https:/);
    for (const endpoint of ['https://10.0.0.1:1', 'http://127.0.0.1:1', 'localhost:1', 'http://[::1]:1'])
      expect(new ApiClient({ endpoint, token }).endpoint).toContain('1');
  });

  it('refuses what is no token without showing it', () => {
    const make = (): ApiClient => new ApiClient({ endpoint: '127.0.0.1:1', token: 'hunter2' });
    expect(make).toThrow('is no API token');
    expect(make).not.toThrow(/hunter2/);
  });
});
