// SPDX-License-Identifier: Apache-2.0
//
// The REST server. Stateless: every request reads the store; nothing on the data path depends on it.
//
// Invariants:  - answers on loopback only, and only to requests that name a loopback host, so that a web page
//                elsewhere cannot steer it through a browser
//              - a POST with an idempotency key happens once, and has the same answer ever after
//              - every failure is {code, message, field?, hint} from the one table

import { type FastifyError, type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import type { ErrorView } from '../model/api.js';
import { isLoopback, splitHostPort } from '../model/config.js';
import { BasaltError, errorTable } from '../model/errors.js';
import { IdempotentRequests, idempotencyHeader, idempotencyKeyOf } from './idempotency.js';
import { Line } from './line.js';
import { openApiDocument } from './openapi.js';
import { cordonRoutes } from './routes/cordons.js';
import { diskRoutes } from './routes/disks.js';
import { hostRoutes } from './routes/hosts.js';
import { jobRoutes } from './routes/jobs.js';
import { keyRoutes } from './routes/keys.js';
import { nodeRoutes } from './routes/nodes.js';
import { poolRoutes } from './routes/pools.js';
import type { ApiDeps, Reply, Route } from './routes/route.js';
import { snapshotGroupRoutes } from './routes/snapshot-groups.js';
import { snapshotRoutes } from './routes/snapshots.js';
import { statusRoutes } from './routes/status.js';
import { volumeRoutes } from './routes/volumes.js';

export interface ApiServerOptions extends ApiDeps {
  /** `<loopback address>:<port>`; port 0 takes a free one. */
  readonly listen: string;
  readonly log: { warn(fields: object, message: string): void };
}

export interface ApiServer {
  /** `http://<address>:<port>` */
  readonly url: string;
  close(): Promise<void>;
}

export const routes: readonly Route[] = [
  ...volumeRoutes,
  ...snapshotRoutes,
  ...snapshotGroupRoutes,
  ...hostRoutes,
  ...nodeRoutes,
  ...diskRoutes,
  ...cordonRoutes,
  ...poolRoutes,
  ...jobRoutes,
  ...keyRoutes,
  ...statusRoutes,
];

export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { host, port } = splitHostPort(options.listen, 'listen');
  if (!isLoopback(host))
    throw new BasaltError('INVALID_ARGUMENT', { field: 'listen', problem: 'must be a loopback address' });
  const app = buildApp(options);
  try {
    const url = await app.listen({ host, port });
    return { url, close: () => app.close() };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EADDRINUSE')
      throw new BasaltError('BUSY', { kind: 'address', name: options.listen, detail: 'another process listens there' });
    throw error;
  }
}

export function buildApp(options: ApiServerOptions): FastifyInstance {
  const answerError = async (error: FastifyError | BasaltError, reply: FastifyReply): Promise<void> => {
    const view = errorView(error);
    if (view.code === 'INTERNAL') options.log.warn({ error: error.stack }, 'request failed');
    await reply.status(errorTable[view.code as keyof typeof errorTable].httpStatus).send(view);
  };
  const app = fastify({
    logger: false,
    bodyLimit: 1024 * 1024,
    // Of an NQN, each of whose characters may be three.
    routerOptions: { maxParamLength: 700 },
    forceCloseConnections: true,
    // Addresses that are none are refused before any handler.
    frameworkErrors: (error, _, reply) => void answerError(error, reply),
  });
  app.addHook('onRequest', async (request) => {
    const named = request.headers.host ?? '';
    if (!isLoopback(named.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''))) {
      throw new BasaltError('INVALID_ARGUMENT', { field: 'host header', problem: 'must name a loopback address' });
    }
    if (request.headers.origin !== undefined) {
      throw new BasaltError('INVALID_ARGUMENT', {
        field: 'origin header',
        problem: 'must be absent: web pages may not call this',
      });
    }
  });
  app.setErrorHandler(async (error: FastifyError | BasaltError, _, reply) => answerError(error, reply));
  app.setNotFoundHandler(async (request) => {
    throw new BasaltError('NOT_FOUND', { kind: 'route', name: `${request.method} ${request.url}` });
  });
  const deps = { ...options, line: options.line ?? new Line() };
  const idempotent = new IdempotentRequests(options.store);
  for (const route of routes) addRoute(app, deps, { route, idempotent });
  app.get('/v1/openapi.json', async () => openApiDocument(routes, options.version));
  return app;
}

function addRoute(
  app: FastifyInstance,
  options: ApiServerOptions,
  { route, idempotent }: { route: Route; idempotent: IdempotentRequests },
): void {
  app.route({
    method: route.method,
    url: route.path,
    handler: async (request, reply) => {
      const params = request.params as Record<string, string>;
      const flags = flagsOf(route, request.query as Record<string, unknown>);
      const { method, url, body } = request;
      const key = method === 'POST' ? idempotencyKeyOf(request.headers[idempotencyHeader]) : null;
      const run = (): Promise<Reply> => route.run(options, { params, body, flags });
      const answer = key === null ? await run() : await idempotent.run({ key, method, url, body }, run);
      await reply.status(answer.status).send(answer.body);
    },
  });
}

function flagsOf(route: Route, query: Readonly<Record<string, unknown>>): ReadonlySet<string> {
  const known = route.flags ?? [];
  for (const [name, value] of Object.entries(query)) {
    const problem = !known.includes(name)
      ? 'is not known here'
      : value !== 'true' && value !== 'false'
        ? 'must be true or false'
        : null;
    if (problem !== null) throw new BasaltError('INVALID_ARGUMENT', { field: `query.${name}`, problem });
  }
  return new Set(known.filter((name) => query[name] === 'true'));
}

export function errorView(error: FastifyError | Error): ErrorView {
  const known = toBasaltError(error);
  const field = known.fields['field'];
  return {
    code: known.code,
    message: known.message,
    ...(field === undefined ? {} : { field: String(field) }),
    hint: known.row.hint,
    fields: Object.fromEntries(
      Object.entries(known.fields).map(([name, value]) => [name, typeof value === 'bigint' ? String(value) : value]),
    ),
  };
}

function toBasaltError(error: FastifyError | Error): BasaltError {
  if (error instanceof BasaltError) return error;
  const status = (error as FastifyError).statusCode ?? 500;
  const field = ['FST_ERR_BAD_URL', 'FST_ERR_MAX_PARAM_LENGTH'].includes((error as FastifyError).code) ? 'url' : 'body';
  if (status >= 400 && status < 500)
    return new BasaltError('INVALID_ARGUMENT', { field, problem: error.message }, { cause: error });
  return new BasaltError('INTERNAL', { detail: error.message }, { cause: error });
}
