// SPDX-License-Identifier: Apache-2.0
//
// The way to the store's servers, over etcd3's connection pools: picks an endpoint that answers, sends
// one request, and says what became of it.
//
// etcd3's own fault handling is switched off: its circuit breaker would refuse calls while the store is
// back already, and its retries would repeat requests whose outcome is unknown.
//
// Invariants:  - a request is sent only on a connection that is up, so before that nothing was changed
//              - a change is sent once; only reads are repeated, within their deadline
//              - no timer and no socket is left after close()

import { setMaxListeners } from 'node:events';
import { type Client, connectivityState, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Services } from 'etcd3';
import { ConnectionPool } from 'etcd3/lib/connection-pool.js';
import type { Clock } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import { BasaltError } from '../../model/errors.js';
import { AuthToken, isStreamRefused, isTokenRefused, type StoreUser } from './auth-token.js';
import { Backoff } from './backoff.js';
import { type CallContext, type CallFailure, isTransient, toError } from './failures.js';

export type ServiceName = keyof typeof Services;

/** A bidirectional stream of one of the services. */
export interface RpcStream extends AsyncIterable<unknown> {
  write(message: object): boolean;
  cancel(): void;
  on(event: 'error', handler: (error: Error) => void): this;
}

/** PEM. */
export interface StoreCertificates {
  /** @default those that Node.js trusts */
  readonly rootCertificate?: Buffer;
  readonly privateKey?: Buffer;
  readonly certChain?: Buffer;
}

export interface ConnectionOptions {
  endpoints: readonly string[];
  credentials?: StoreCertificates;
  user?: StoreUser | null;
  clock: Clock;
  random: Random;
}

export interface Request {
  service: ServiceName;
  method: string;
  payload: object;
  operation: string;
  changes: boolean;
  /** The lease that a refusal would be about. */
  leaseId?: string | null;
  timeoutMs: number;
  signal?: AbortSignal | undefined;
}

const keepAliveIntervalMs = 10_000;
const keepAliveTimeoutMs = 5_000;
/** How long one endpoint is tried before the next, when there are several. */
const endpointPatienceMs = 500;

type Outcome = { ok: true; response: unknown } | { ok: false; failure: CallFailure };
type Method = (
  payload: object,
  metadata: Metadata,
  options: object,
  done: (error: ServiceError | null, response: unknown) => void,
) => { cancel(): void };

/** Calls go straight through. */
const noPolicy = Object.freeze({
  execute: <T>(fn: (context: { signal: AbortSignal }) => T | PromiseLike<T>): Promise<T> =>
    Promise.resolve(fn({ signal: new AbortController().signal })),
});

export class EtcdConnection {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #endpoints: readonly string[];
  readonly #pools: ConnectionPool[];
  readonly #token: AuthToken | null;
  readonly #closing = new AbortController();
  #current = 0;

  constructor(options: ConnectionOptions) {
    if (options.endpoints.length === 0)
      throw new BasaltError('INVALID_ARGUMENT', { field: 'store.endpoints', problem: 'must name at least one' });
    this.#clock = options.clock;
    this.#random = options.random;
    this.#endpoints = options.endpoints;
    this.#token = options.user == null ? null : new AuthToken(options.user);
    // Every call in flight listens to it.
    setMaxListeners(0, this.#closing.signal);
    this.#pools = options.endpoints.map((hosts) => makePool(hosts, options));
  }

  get endpoint(): string {
    return this.#endpoints[this.#current]!;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Aborts with close(). */
  get closingSignal(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * The answer of one request.
   * @throws {BasaltError} as failures.ts says; CANCELLED or STORE_CLOSED only if nothing was sent.
   */
  async request<T>(request: Request): Promise<T> {
    const deadlineMs = this.#clock.now() + request.timeoutMs;
    const backoff = new Backoff(this.#random);
    for (;;) {
      const client = await this.ready(request.service, { ...request, deadlineMs });
      const outcome = await this.#send(client, request, deadlineMs);
      if (outcome.ok) return outcome.response as T;
      const renewed = this.#renews(outcome.failure, client.metadata);
      const context: CallContext = { ...request, endpoint: this.endpoint };
      const waitMs = backoff.nextMs();
      if (
        !(renewed || isTransient(outcome.failure, context)) ||
        request.signal?.aborted ||
        this.closed ||
        this.#clock.now() + waitMs >= deadlineMs
      ) {
        throw this.#cancelled(request) ?? toError(outcome.failure, context);
      }
      if (!renewed) this.#rotate();
      await this.#pause(waitMs, request);
    }
  }

  /** What a stream was ended with: when the store does not take the token any more, the next one has another. */
  streamEnded(reason: string): void {
    if (isStreamRefused(reason)) this.#token?.forget(null);
  }

  /** Whether the token was refused, so that asking again with another one is right: nothing was done, nothing changed. */
  #renews(failure: CallFailure, metadata: Metadata): boolean {
    const [token] = metadata.get('token');
    if (this.#token === null || token === undefined || !isTokenRefused(failure)) return false;
    this.#token.forget(String(token));
    return true;
  }

  async #metadata(wait: { deadlineMs: number; signal?: AbortSignal | undefined }): Promise<Metadata> {
    const metadata = new Metadata();
    if (this.#token === null) return metadata;
    const timeoutMs = Math.max(1, wait.deadlineMs - this.#clock.now());
    const token = await this.#token.get(async ({ username, password }) => {
      const payload = { name: username, password };
      const ask = { service: 'Auth', method: 'authenticate', payload, changes: false, timeoutMs } as const;
      return (await this.request<{ token: string }>({ ...ask, operation: `authentication as ${username}` })).token;
    });
    metadata.set('token', token);
    return metadata;
  }

  /** A client of `service` whose connection is up. @throws {BasaltError} STORE_UNREACHABLE, CANCELLED, STORE_CLOSED */
  async ready(
    service: ServiceName,
    wait: { operation: string; deadlineMs: number; signal?: AbortSignal | undefined },
  ): Promise<{ client: Client; metadata: Metadata }> {
    for (;;) {
      this.#throwIfEnded(wait);
      const remainingMs = wait.deadlineMs - this.#clock.now();
      if (remainingMs <= 0)
        throw new BasaltError('STORE_UNREACHABLE', {
          endpoint: this.endpoint,
          detail: 'no connection within the deadline',
        });
      const client = await this.#pools[this.#current]!.withConnection(service, (found) => found.client);
      const patienceMs = this.#pools.length > 1 ? Math.min(remainingMs, endpointPatienceMs) : remainingMs;
      if (await this.#connected(client, patienceMs, wait.signal))
        return { client, metadata: service === 'Auth' ? new Metadata() : await this.#metadata(wait) };
      this.#rotate();
    }
  }

  async stream(
    service: ServiceName,
    method: string,
    wait: { operation: string; deadlineMs: number; signal?: AbortSignal },
  ): Promise<RpcStream> {
    const { client, metadata } = await this.ready(service, wait);
    const open = (client as unknown as Record<string, (metadata: Metadata) => RpcStream>)[method]!;
    const stream = open.call(client, metadata);
    // The failure is seen by whoever iterates; without a listener of its own it would end the process.
    stream.on('error', (error) => this.streamEnded(error.message));
    return stream;
  }

  close(): void {
    this.#closing.abort(new BasaltError('STORE_CLOSED'));
    for (const pool of this.#pools) pool.close();
  }

  #send(target: { client: Client; metadata: Metadata }, request: Request, deadlineMs: number): Promise<Outcome> {
    const remainingMs = Math.max(1, deadlineMs - this.#clock.now());
    return new Promise((resolve) => {
      const method = (target.client as unknown as Record<string, Method>)[request.method]!;
      const options = { deadline: this.#clock.wallMs() + remainingMs };
      const signals = [request.signal, this.#closing.signal];
      const cancel = (): void => call.cancel();
      const call = method.call(target.client, request.payload, target.metadata, options, (error, response) => {
        for (const signal of signals) signal?.removeEventListener('abort', cancel);
        resolve(
          error === null
            ? { ok: true, response }
            : { ok: false, failure: { code: error.code ?? status.UNKNOWN, details: error.details ?? error.message } },
        );
      });
      for (const signal of signals) signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  #connected(client: Client, patienceMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const channel = client.getChannel();
    if (channel.getConnectivityState(true) === connectivityState.READY) return Promise.resolve(true);
    return new Promise((resolve) => {
      const finish = (connected: boolean): void => {
        timer.cancel();
        for (const each of [signal, this.#closing.signal]) each?.removeEventListener('abort', ended);
        resolve(connected);
      };
      const ended = (): void => finish(false);
      const timer = this.#clock.setTimer(patienceMs, ended);
      for (const each of [signal, this.#closing.signal]) each?.addEventListener('abort', ended, { once: true });
      client.waitForReady(this.#clock.wallMs() + patienceMs, (error) => finish(error === undefined || error === null));
    });
  }

  async #pause(waitMs: number, request: Request): Promise<void> {
    const signals = [this.#closing.signal, ...(request.signal === undefined ? [] : [request.signal])];
    await this.#clock.sleep(waitMs, AbortSignal.any(signals)).catch(() => {});
    this.#throwIfEnded(request);
  }

  #throwIfEnded(wait: { operation: string; signal?: AbortSignal | undefined }): void {
    const error = this.#cancelled({ ...wait, changes: false });
    if (error !== null) throw error;
  }

  /** Why a request that changed nothing ended early, if that was asked for. */
  #cancelled(request: { operation: string; changes: boolean; signal?: AbortSignal | undefined }): BasaltError | null {
    if (request.changes) return null;
    if (this.closed) return new BasaltError('STORE_CLOSED');
    if (!request.signal?.aborted) return null;
    return new BasaltError('CANCELLED', { operation: request.operation }, { cause: request.signal.reason });
  }

  #rotate(): void {
    this.#current = (this.#current + 1) % this.#pools.length;
  }
}

function makePool(hosts: string, { credentials }: ConnectionOptions): ConnectionPool {
  return new ConnectionPool({
    hosts,
    // Its types want all three.
    ...(credentials === undefined ? {} : { credentials: credentials as Required<StoreCertificates> }),
    faultHandling: { host: () => noPolicy as never, global: noPolicy as never },
    grpcOptions: {
      // No retry policy from outside; without one gRPC repeats only what was certainly not processed.
      'grpc.service_config_disable_resolution': 1,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      'grpc.keepalive_time_ms': keepAliveIntervalMs,
      'grpc.keepalive_timeout_ms': keepAliveTimeoutMs,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    },
  });
}
