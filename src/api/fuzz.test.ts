// SPDX-License-Identifier: Apache-2.0
//
// Goal: whatever is sent to the API, it answers with JSON that its schemas allow and a status of the table of errors,
// never fails inside, and serves on.
// Method: right requests of every route with random parts replaced, taken out or added; random texts in the place of
// bodies, names and queries; a cluster on fake engines below. A failure prints its seed; with BASALT_FUZZ_RUNS the number
// of runs grows.

import fc from 'fast-check';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed } from '../agents/testing/cluster-bed.js';
import { ErrorView } from '../model/api.js';
import { checker } from '../model/check.js';
import { errorTable } from '../model/errors.js';
import type { Route } from './routes/route.js';
import { buildApp, routes } from './server.js';

const runs = Number(process.env['BASALT_FUZZ_RUNS'] ?? 60);
const MiB = 2 ** 20;
const host = 'nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111';

/** Right bodies, to start from. */
const bodies: Readonly<Record<string, readonly object[]>> = {
  '/v1/volumes': [
    { name: 'v1', sizeBytes: 4 * MiB },
    { name: 'v2', sizeBytes: 8 * MiB, copies: 2, legs: 2, stripeSizeBytes: 65536, controllers: ['c1'], leaseMs: 300 },
    { name: 'v3', sizeBytes: 4 * MiB, pool: 'p1' },
  ],
  '/v1/pools': [
    { name: 'p1', redundancy: { kind: 'copies', copies: 2 } },
    { name: 'p2', redundancy: { kind: 'copies', copies: 1 }, domain: 'rack', class: 'ssd', tags: {}, pgCount: 8 },
  ],
  '/v1/pools/:name/plan': [{}, { without: ['d1'], weights: {}, bytesPerSecond: 1000 }],
  '/v1/volumes/:name/attach': [{ host }, { nbd: { path: '/run/a.sock', node: 'c1' } }],
  '/v1/volumes/:name/detach': [{}, { host }, { nbd: { path: '/run/a.sock' } }],
};

const odd = fc.oneof(
  fc.constantFrom<unknown>('', 'v1', '__proto__', 'constructor', '\0', '../..', 'a'.repeat(300), '🜁', '\ud800'),
  fc.constantFrom<unknown>(null, true, 0, -1, 0.5, 1e308, Number.MAX_SAFE_INTEGER, 2 ** 53, -0, [], {}, [[]]),
  fc.string({ maxLength: 12 }),
  fc.jsonValue({ maxDepth: 3 }),
);
const change = fc.record({
  at: fc.nat(20),
  how: fc.constantFrom('replace', 'remove', 'add' as const),
  name: fc.oneof(fc.constantFrom('__proto__', 'toString', 'name', 'copies', ''), fc.string({ maxLength: 6 })),
  value: odd,
});
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

/** All objects and arrays within a value, itself first. */
function containers(value: unknown): Record<string, unknown>[] {
  if (typeof value !== 'object' || value === null) return [];
  return [value as Record<string, unknown>, ...Object.values(value).flatMap(containers)];
}

function changed(body: object, changes: readonly Change[]): unknown {
  let root: unknown = structuredClone(body);
  for (const { at, how, name, value } of changes) {
    const places = containers(root).flatMap((parent) => Object.keys(parent).map((key) => [parent, key] as const));
    const place = places[at % (places.length + 1)];
    if (place === undefined) {
      if (how === 'replace') root = structuredClone(value);
      else if (typeof root === 'object' && root !== null) define(root, name, structuredClone(value));
    } else if (how === 'remove') {
      delete place[0][place[1]];
    } else {
      define(place[0], how === 'add' ? name : place[1], structuredClone(value));
    }
  }
  return root;
}

/** As JSON.parse would: `__proto__` is a name like any other. */
function define(on: object, name: string, value: unknown): void {
  Object.defineProperty(on, name, { value, enumerable: true, configurable: true, writable: true });
}

const name = fc.oneof(
  fc.oneof(fc.constantFrom('v1', 'v2', 'p1', 'd1', 'c1', '..', '__proto__', ' '), fc.string()).map(encodeURIComponent),
  fc.constantFrom('%', '%zz', '%00', 'a'.repeat(300), 'a/b', ''),
);
const query = fc.oneof(
  { weight: 3, arbitrary: fc.constant('') },
  fc.constantFrom('?force=true', '?force=false', '?force', '?force=true&force=true', '?a[b]=1', '?__proto__=true'),
  fc.string({ maxLength: 8 }).map((text) => `?${encodeURIComponent(text)}`),
);
const jsonText = (route: Route): fc.Arbitrary<string> =>
  fc
    .tuple(fc.constantFrom(...(bodies[route.path] ?? [{}])), fc.array(change, { maxLength: 3 }))
    .map(([body, changes]) => JSON.stringify(changed(body, changes)) ?? '');
const rawText = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.constantFrom('{', '[]', 'null', '"a"', '{"name":"v1","name":"v2"}', '{"__proto__":{"name":"v1"}}'),
  fc.constant('[').map((text) => text.repeat(100_000)),
);
const types = fc.constantFrom('application/json', 'application/json; charset=latin1', 'text/plain', '', 'a/b');

const request = fc.constantFrom(...routes).chain((route) =>
  fc.record({
    route: fc.constant(route),
    name,
    query,
    body: fc.oneof(
      { weight: 6, arbitrary: fc.record({ text: jsonText(route), type: fc.constant('application/json') }) },
      fc.record({ text: rawText, type: types }),
      fc.constant(null),
    ),
  }),
);

describe('the API, random requests', () => {
  const failures: unknown[] = [];
  let bed: ClusterBed;
  let app: FastifyInstance;

  beforeAll(async () => {
    bed = new ClusterBed();
    await Promise.all(['d1', 'd2', 'd3'].map((disk) => bed.startDiskNode(disk)));
    await bed.startController('c1');
    const log = { warn: (fields: object) => failures.push(fields) };
    app = buildApp({ ...bed.api, listen: '127.0.0.1:0', log });
  });
  afterAll(async () => {
    await app.close();
    await bed.close();
  });

  it('are answered as the schemas and the table of errors say', { timeout: 180_000 }, async () => {
    const checkError = checker(ErrorView);
    const answers = new Map(routes.map((route) => [route, checker(route.response)] as const));
    const statuses = new Set<number>(Object.values(errorTable).map((row) => row.httpStatus));
    const seen = new Set<number>();
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 6 }), async (requests) => {
        for (const { route, name: named, query: asked, body } of requests) {
          const options: InjectOptions = {
            method: route.method,
            url: route.path.replace(':name', named) + asked,
            headers: { host: '127.0.0.1', ...(body === null ? {} : { 'content-type': body.type }) },
            ...(body === null ? {} : { payload: body.text }),
          };
          const response = await app.inject(options);
          const answer: unknown = response.json();
          seen.add(response.statusCode);
          if (response.statusCode < 400) {
            answers.get(route)?.(answer);
          } else {
            const { code } = checkError(answer);
            expect(code).not.toBe('INTERNAL');
            expect(statuses).toContain(response.statusCode);
          }
          expect(failures).toEqual([]);
        }
      }),
      { numRuns: runs },
    );
    // Otherwise they were all refused at the door.
    for (const status of [200, 400, 404]) expect(seen).toContain(status);
    const health = await app.inject({ method: 'GET', url: '/v1/health', headers: { host: '127.0.0.1' } });
    expect(health.json()).toMatchObject({ ok: true });
  });
});
