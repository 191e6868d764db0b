// SPDX-License-Identifier: Apache-2.0
//
// The REST server. Stateless: every request reads the store; nothing on the data path depends on it.
//
// Invariants:  - beyond loopback it answers over TLS only, and only those who show a token
//              - on loopback it answers only requests that name a loopback host, so that a web page elsewhere cannot
//                steer it through a browser; once there are tokens, every request needs one here too
//              - an address that shows wrong tokens again and again is held off for a while (token-guard.ts)
//              - no route is reached but by a role that may: a new one is an admin's until it says otherwise
//              - a POST with an idempotency key happens once, and has the same answer ever after
//              - every failure is {code, message, field?, hint} from the one table

import { createServer as createTlsServer } from 'node:https';
import {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  fastify,
} from 'fastify';
import { systemClock } from '../env/clock.js';
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
import { type ApiDeps, type Reply, type Route, roleOf } from './routes/route.js';
import { snapshotGroupRoutes } from './routes/snapshot-groups.js';
import { snapshotRoutes } from './routes/snapshots.js';
import { statusRoutes } from './routes/status.js';
import { tokenRoutes } from './routes/tokens.js';
import { volumeRoutes } from './routes/volumes.js';
import { TokenGuard } from './token-guard.js';
import { type Caller, callerOf, requireRole } from './tokens.js';

export interface ApiServerOptions extends ApiDeps {
  /** `<loopback address>:<port>`; port 0 takes a free one. */
  readonly listen: string;
  /** Where it also answers, on any address, over TLS. @default nowhere */
  readonly tls?: TlsListener | null;
  readonly log: { warn(fields: object, message: string): void };
  /** @default the server's own */
  readonly guard?: TokenGuard;
}

export interface TlsListener {
  readonly listen: string;
  /** PEM. */
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface ApiServer {
  /** `http://<address>:<port>` */
  readonly url: string;
  /** `https://<address>:<port>` */
  readonly tlsUrl: string | null;
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
  ...tokenRoutes,
  ...statusRoutes,
];

/** What strangers may hold of a TLS listener, and for how long. */
const strangers = { handshakeMsMax: 10_000, requestMsMax: 30_000, connectionsMax: 1_024 };

export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { host } = splitHostPort(options.listen, 'listen');
  if (!isLoopback(host))
    throw new BasaltError('INVALID_ARGUMENT', { field: 'listen', problem: 'must be a loopback address' });
  const guard = new TokenGuard(options.clock ?? systemClock, options.log);
  const shared = { ...options, guard, line: options.line ?? new Line() };
  const apps: FastifyInstance[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(apps.map((app) => app.close()));
  };
  const listen = async (at: string, tls: TlsListener | null): Promise<string> => {
    const app = buildApp(shared, tls);
    apps.push(app);
    const url = await listenOn(app, at);
    return tls === null ? url : url.replace(/^http:/, 'https:');
  };
  try {
    const url = await listen(options.listen, null);
    const { tls = null } = options;
    return { url, tlsUrl: tls === null ? null : await listen(tls.listen, tls), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function listenOn(app: FastifyInstance, listen: string): Promise<string> {
  const { host, port } = splitHostPort(listen, 'listen');
  try {
    return await app.listen({ host, port });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EADDRINUSE')
      throw new BasaltError('BUSY', { kind: 'address', name: listen, detail: 'another process listens there' });
    throw error;
  }
}

/** `tls`: the listener is one that strangers reach. */
export function buildApp(options: ApiServerOptions, tls: TlsListener | null = null): FastifyInstance {
  const answerError = async (error: FastifyError | BasaltError, reply: FastifyReply): Promise<void> => {
    const view = errorView(error);
    if (view.code === 'INTERNAL') options.log.warn({ error: error.stack }, 'request failed');
    if (view.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Bearer');
    if (view.code === 'TOO_MANY_ATTEMPTS') reply.header('retry-after', String(view.fields?.['retryAfterS']));
    await reply.status(errorTable[view.code as keyof typeof errorTable].httpStatus).send(view);
  };
  const app = fastify({
    logger: false,
    bodyLimit: 1024 * 1024,
    // Of an NQN, each of whose characters may be three.
    routerOptions: { maxParamLength: 700 },
    forceCloseConnections: true,
    ...(tls === null ? {} : { requestTimeout: strangers.requestMsMax, ...overTls(tls) }),
    // Addresses that are none are refused before any handler.
    frameworkErrors: (error, _, reply) => void answerError(error, reply),
  });
  const callers = new WeakMap<FastifyRequest, Caller>();
  const guard = options.guard ?? new TokenGuard(options.clock ?? systemClock, options.log);
  const world = { store: options.store, clock: options.clock ?? systemClock };
  app.addHook('onRequest', async (request) => {
    refuseWebPages(request, tls === null);
    const { authorization } = request.headers;
    const judge = (): Promise<Caller> => callerOf(world, authorization, { anybody: tls === null });
    callers.set(request, await guard.ask({ address: request.ip, authorization, strangers: tls !== null }, judge));
  });
  app.setErrorHandler(async (error: FastifyError | BasaltError, _, reply) => answerError(error, reply));
  app.setNotFoundHandler(async (request) => {
    throw new BasaltError('NOT_FOUND', { kind: 'route', name: `${request.method} ${request.url}` });
  });
  const deps = { ...options, line: options.line ?? new Line() };
  const idempotent = new IdempotentRequests(options.store);
  for (const route of routes) addRoute(app, deps, { route, idempotent, callers });
  app.get('/v1/openapi.json', async () => openApiDocument(routes, options.version));
  return app;
}

/** Fastify's way to a server that is made elsewhere. */
function overTls({ cert, key }: TlsListener): FastifyServerOptions {
  return {
    serverFactory: (handler) => {
      const server = createTlsServer(
        { cert, key, minVersion: 'TLSv1.3', handshakeTimeout: strangers.handshakeMsMax },
        handler,
      );
      server.maxConnections = strangers.connectionsMax;
      return server as unknown as ReturnType<NonNullable<FastifyServerOptions['serverFactory']>>;
    },
  };
}

function refuseWebPages(request: FastifyRequest, loopback: boolean): void {
  const named = (request.headers.host ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  if (loopback && !isLoopback(named))
    throw new BasaltError('INVALID_ARGUMENT', { field: 'host header', problem: 'must name a loopback address' });
  if (request.headers.origin !== undefined)
    throw new BasaltError('INVALID_ARGUMENT', {
      field: 'origin header',
      problem: 'must be absent: web pages may not call this',
    });
}

interface Served {
  readonly route: Route;
  readonly idempotent: IdempotentRequests;
  readonly callers: WeakMap<FastifyRequest, Caller>;
}

function addRoute(app: FastifyInstance, options: ApiServerOptions, { route, idempotent, callers }: Served): void {
  app.route({
    method: route.method,
    url: route.path,
    onRequest: async (request) => {
      const caller = callers.get(request);
      if (caller === undefined) throw new BasaltError('INTERNAL', { detail: 'a request that nobody asked about' });
      requireRole(caller, roleOf(route), `${route.method} ${route.path}`);
    },
    handler: async (request, reply) => {
      const params = request.params as Record<string, string>;
      const flags = flagsOf(route, request.query as Record<string, unknown>);
      const { method, url, body } = request;
      const key = method === 'POST' ? idempotencyKeyOf(request.headers[idempotencyHeader]) : null;
      if (key !== null && route.secretAnswer === true)
        throw new BasaltError('INVALID_ARGUMENT', {
          field: `${idempotencyHeader} header`,
          problem: 'does not go with this request, whose answer is a secret and kept nowhere',
        });
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
