// SPDX-License-Identifier: Apache-2.0
//
// Goal: wrong tokens are told of and get few tries, at the cost of nobody else. Method: the server's app as it answers
// strangers, asked from addresses of choice on a clock of choice.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { type Clock, systemClock } from '../env/clock.js';
import { TestAuthority } from '../store/testing/certificates.js';
import { buildApp, type TlsListener } from './server.js';
import { originOf, TokenGuard, tokenGuardLimits } from './token-guard.js';

interface Logged {
  readonly message: string;
  readonly address?: string;
  readonly token?: string | null;
  readonly failures?: number;
  readonly skipped?: number;
}

let folder: string;
let tls: TlsListener;
let bed: ClusterBed;
let beyond: FastifyInstance;
let loopback: FastifyInstance;
let nowMs = 0;
let logged: Logged[];
const clock: Clock = { ...systemClock, now: () => nowMs };

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-guard-'));
  const { cert, key } = await (await TestAuthority.create(folder, 'authority')).sign('api');
  tls = { listen: '127.0.0.1:0', cert: readFileSync(cert), key: readFileSync(key) };
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeEach(() => {
  bed = new ClusterBed();
  logged = [];
  const log = { warn: (fields: object, message: string) => void logged.push({ ...fields, message }) };
  const guard = new TokenGuard(clock, log);
  const options = { ...bed.api, clock, guard, listen: '127.0.0.1:0', log };
  [beyond, loopback] = [buildApp(options, tls), buildApp(options)];
});

afterEach(async () => {
  await beyond.close();
  await loopback.close();
  await bed.close();
});

const wrong = (index: number): string => `basalt1/guess/${String(index).padStart(43, 'A')}`;

async function get(from: string, token: string | null, app = beyond): Promise<{ status: number; after: unknown }> {
  const headers = { host: '127.0.0.1', ...(token === null ? {} : { authorization: `Bearer ${token}` }) };
  const answer = await app.inject({ method: 'GET', url: '/v1/volumes', headers, remoteAddress: from });
  return { status: answer.statusCode, after: answer.headers['retry-after'] };
}

async function make(name: string, token?: string): Promise<string> {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const headers = { host: '127.0.0.1', ...authorization };
  const made = await loopback.inject({ method: 'POST', url: '/v1/tokens', headers, payload: { name, role: 'admin' } });
  expect(made.statusCode).toBe(201);
  return made.json().token;
}

/** As many wrong ones as it takes, and one more, which is not judged any more. */
async function guessUntilHeld(from: string): Promise<void> {
  for (let i = 0; i < tokenGuardLimits.failuresMax; i++) expect((await get(from, wrong(i))).status).toBe(401);
  expect((await get(from, wrong(99))).status).toBe(429);
}

it('an address that shows wrong tokens again and again is held off, and heard again after a while', async () => {
  const admin = await make('root');
  await guessUntilHeld('10.0.0.1');
  // Not even the right one is tried, or guessing would go on.
  expect(await get('10.0.0.1', admin)).toEqual({ status: 429, after: '60' });
  nowMs += tokenGuardLimits.heldMs - 500;
  expect(await get('10.0.0.1', admin)).toEqual({ status: 429, after: '1' });
  nowMs += 500;
  expect((await get('10.0.0.1', admin)).status).toBe(200);
  expect((await get('10.0.0.1', wrong(0))).status).toBe(401);
});

it('nobody else is: not other addresses, nor who showed a right token from there before', async () => {
  const admin = await make('root');
  const second = await make('second', admin);
  expect((await get('10.0.0.1', admin)).status).toBe(200);
  await guessUntilHeld('10.0.0.1');
  expect((await get('10.0.0.2', admin)).status).toBe(200);
  expect((await get('10.0.0.1', admin)).status).toBe(200);
  expect((await get('10.0.0.1', second)).status).toBe(429);
  // A token that ends is none that was right.
  const headers = { host: '127.0.0.1', authorization: `Bearer ${second}` };
  await loopback.inject({ method: 'DELETE', url: '/v1/tokens/root', headers });
  expect((await get('10.0.0.1', admin)).status).toBe(401);
  expect((await get('10.0.0.1', admin)).status).toBe(429);
});

it('on loopback nobody is, where all users of a machine have one address', async () => {
  const admin = await make('root');
  for (let i = 0; i < 5 * tokenGuardLimits.failuresMax; i++)
    expect((await get('127.0.0.1', wrong(i), loopback)).status).toBe(401);
  expect((await get('127.0.0.1', admin, loopback)).status).toBe(200);
});

it('mistakes that are long ago do not count, nor do requests without a token', async () => {
  await make('root');
  for (let i = 0; i < 3 * tokenGuardLimits.failuresMax; i++) {
    expect((await get('10.0.0.1', wrong(i))).status).toBe(401);
    expect((await get('10.0.0.1', null)).status).toBe(401);
    nowMs += tokenGuardLimits.windowMs / (tokenGuardLimits.failuresMax - 1) + 1;
  }
});

it('wrong tokens are logged with their address and name, once a second, and never whole', async () => {
  const admin = await make('root');
  const almost = `${admin.slice(0, -3)}AAA`;
  for (let i = 0; i < 5; i++) await get('10.0.0.1', almost);
  expect(logged).toMatchObject([{ address: '10.0.0.1', token: 'root', failures: 1 }]);
  await get('10.0.0.2', 'hunter2');
  expect(logged[1]).toMatchObject({ address: '10.0.0.2', token: null, failures: 1 });
  nowMs += 1000;
  await get('10.0.0.1', almost);
  expect(logged[2]).toMatchObject({ address: '10.0.0.1', failures: 6, skipped: 4 });
  await guessUntilHeld('10.0.0.3');
  expect(logged.at(-1)).toMatchObject({ address: '10.0.0.3', message: expect.stringContaining('held off') });
  for (const secret of [almost.split('/')[2] ?? '', 'hunter2']) expect(JSON.stringify(logged)).not.toContain(secret);
});

it('addresses of one machine are one', () => {
  expect(originOf('::ffff:10.0.0.1')).toBe('10.0.0.1');
  expect(originOf('10.0.0.1')).toBe('10.0.0.1');
  for (const address of ['2001:db8:0:7::1', '2001:db8:0:7:1:2:3:4', '2001:DB8::7:0:0:0:9'])
    expect(originOf(address), address).toBe('2001:db8:0:7::/64');
  expect(originOf('::1')).toBe('0:0:0:0::/64');
  expect(originOf('fe80::1%eth0')).toBe('fe80:0:0:0::/64');
});
