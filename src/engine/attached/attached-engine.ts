// SPDX-License-Identifier: Apache-2.0
//
// AttachedEngine: an engine in another process, reached by JSON-RPC 2.0 on its Unix socket: `basalt engine`, `engined`,
// or what speaks SPDK's methods. It lives on when this process ends, and may end while this process lives.
//
// Invariants:  - a method goes out at most once: nothing is sent again on a new connection
//              - what was under way when the connection broke is refused with `unreachable`, and its outcome is unknown
//              - close() ends the connection and nothing else: what the engine serves, it goes on serving

import { connect, type Socket } from 'node:net';
import { type Clock, systemClock, type Timer } from '../../env/clock.js';
import {
  type BdevHandle,
  type Engine,
  EngineError,
  type EngineEvent,
  engineErrorCodes,
  IllegalState,
  type Method,
  type MethodResult,
  type RpcArguments,
  type RpcOptions,
} from '../engine.js';
import { waitForAnswer } from '../rpc-wait.js';
import { type Capabilities, capabilitiesOf } from './capabilities.js';
import { JsonSplitter } from './json-splitter.js';

export interface AttachedEngineOptions {
  /** Path of the engine's socket. */
  readonly rpcPath: string;
  /** Between attempts to connect again. @default 200 */
  readonly retryMs?: number;
  readonly clock?: Clock;
}

interface Pending {
  readonly method: string;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

interface Message {
  readonly id?: number | null;
  readonly method?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: Record<string, unknown> };
}

/**
 * Connects, and asks what the engine can do.
 * @throws {EngineError} `unreachable` when nobody serves the path
 */
export async function attachEngine(options: AttachedEngineOptions): Promise<AttachedEngine> {
  const engine = new AttachedEngine(options);
  try {
    await engine.connect();
    return engine;
  } catch (error) {
    await engine.close();
    throw error;
  }
}

export class AttachedEngine implements Engine {
  readonly #path: string;
  readonly #retryMs: number;
  readonly #clock: Clock;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: EngineEvent) => void>();
  readonly #watchers = new Set<(connected: boolean) => void>();
  #socket: Socket | null = null;
  #retry: Timer | null = null;
  #capabilities: Capabilities | null = null;
  #lastId = 0;
  #connecting = false;
  #closed = false;

  constructor(options: AttachedEngineOptions) {
    this.#path = options.rpcPath;
    this.#retryMs = options.retryMs ?? 200;
    this.#clock = options.clock ?? systemClock;
  }

  get connected(): boolean {
    return this.#socket !== null;
  }

  /** What the engine promises, as of the last time it was asked. @throws {IllegalState} before the first connection */
  get capabilities(): Capabilities {
    if (this.#capabilities === null) throw new IllegalState('the engine was never connected');
    return this.#capabilities;
  }

  /** Called with true after each new connection, and with false when it is lost. Returns the end of it. */
  onConnection(listener: (connected: boolean) => void): () => void {
    const entry = (connected: boolean): void => listener(connected);
    this.#watchers.add(entry);
    return () => void this.#watchers.delete(entry);
  }

  rpc<M extends Method>(method: M, ...args: RpcArguments<M>): Promise<MethodResult<M>> {
    const [params, options] = args;
    return this.call(method, params ?? {}, options) as Promise<MethodResult<M>>;
  }

  /** A method that only some engines have. */
  call(method: string, params: object, options: RpcOptions = {}): Promise<unknown> {
    if (this.#closed) return Promise.reject(new IllegalState('the engine is closed'));
    return waitForAnswer(method, this.#send(method, params), options, this.#clock);
  }

  on(_event: 'event', listener: (event: EngineEvent) => void): () => void {
    if (this.#closed) throw new IllegalState('the engine is closed');
    const entry = (event: EngineEvent): void => listener(event);
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  /** Ordinary memory: there is none that both processes reach. */
  allocate(bytes: number): ArrayBuffer {
    return new ArrayBuffer(bytes);
  }

  openBdev(name: string): Promise<BdevHandle> {
    const message = `bdev ${name} is in another process: export it, and connect to it`;
    return Promise.reject(new EngineError(engineErrorCodes.unsupported, 'open', message));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    this.#lose(new IllegalState('the engine is closed'));
    this.#listeners.clear();
    this.#watchers.clear();
  }

  /** For attachEngine(): the first connection, which is not tried again. */
  async connect(): Promise<void> {
    this.#connecting = true;
    try {
      const socket = await opened(this.#path);
      if (this.#closed) {
        socket.destroy();
        throw new IllegalState('the engine is closed');
      }
      this.#adopt(socket);
      await this.#introduce();
    } catch (error) {
      // Also where it answers, and not as an engine does.
      this.#lose(error as Error);
      throw error;
    } finally {
      this.#connecting = false;
    }
    tell(this.#watchers, true);
  }

  #adopt(socket: Socket): void {
    const splitter = new JsonSplitter();
    this.#socket?.destroy();
    this.#socket = socket;
    const lost = (): void => {
      if (this.#socket === socket) this.#lose(unreachable('connection', `the engine at ${this.#path} went away`));
    };
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      try {
        for (const text of splitter.push(chunk)) this.#take(JSON.parse(text) as Message);
      } catch {
        // No engine speaks so.
        socket.destroy();
      }
    });
    // 'close' follows, whatever the error was.
    socket.on('error', () => {});
    socket.on('close', lost);
  }

  /** An engine that came back may be another one: newer, older, or of another kind. */
  async #introduce(): Promise<void> {
    const [methods, { version }] = await Promise.all([
      this.#send('rpc_get_methods', {}) as Promise<string[]>,
      this.#send('spdk_get_version', {}) as Promise<{ version: string }>,
    ]);
    this.#capabilities = capabilitiesOf(version, methods);
    if (this.#capabilities.has('events')) await this.#send('basalt_subscribe', {});
  }

  #send(method: string, params: object): Promise<unknown> {
    const socket = this.#socket;
    if (socket === null) return Promise.reject(unreachable(method, `no engine serves ${this.#path}`));
    const id = ++this.#lastId;
    // SPDK refuses even empty parameters for methods that have none.
    const some = Object.keys(params).length > 0 ? { params } : {};
    const text = JSON.stringify({ jsonrpc: '2.0', id, method, ...some }, (_key, value: unknown) =>
      typeof value === 'bigint' ? value.toString() : value,
    );
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { method, resolve, reject });
      socket.write(text);
    });
  }

  #take(message: Message): void {
    if (message.method !== undefined) {
      const event = { method: message.method, params: message.params } as EngineEvent;
      tell(this.#listeners, event);
      return;
    }
    const pending = typeof message.id === 'number' ? this.#pending.get(message.id) : undefined;
    if (pending === undefined) throw new Error('an answer to nothing that was asked');
    this.#pending.delete(message.id as number);
    const { error } = message;
    if (error === undefined) pending.resolve(message.result);
    else pending.reject(new EngineError(error.code, pending.method, error.message, error.data ?? null));
  }

  #lose(reason: Error): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.destroy();
    for (const { method, reject } of this.#pending.values()) {
      reject(this.#closed ? reason : unreachable(method, `${reason.message}; what it began may still happen`));
    }
    this.#pending.clear();
    if (socket === null || this.#closed || this.#connecting) return;
    tell(this.#watchers, false);
    this.#again();
  }

  #again(): void {
    this.#retry = this.#clock.setTimer(this.#retryMs, () => {
      this.connect().catch(() => {
        if (!this.#closed) this.#again();
      });
    });
  }
}

/** What a listener throws is the program's, as if it had been called by nobody: the connection has no part in it. */
function tell<T>(listeners: ReadonlySet<(value: T) => void>, value: T): void {
  for (const listener of [...listeners]) queueMicrotask(() => listener(value));
}

function opened(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const failed = (error: Error): void => reject(unreachable('connect', `${path}: ${error.message}`));
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}

function unreachable(method: string, message: string): EngineError {
  return new EngineError(engineErrorCodes.unreachable, method, message);
}
