// SPDX-License-Identifier: Apache-2.0
//
// NativeEngine: the engine in this process's addon. Defaults and error types live here; the addon has neither.

import { type Clock, systemClock } from '../../env/clock.js';
import {
  type BdevHandle,
  type BdevHandleInfo,
  type Engine,
  EngineError,
  type EngineEvent,
  EngineIoError,
  engineErrorCodes,
  IllegalState,
  type Method,
  type MethodResult,
  type RpcArguments,
} from '../engine.js';
import { waitForAnswer } from '../rpc-wait.js';
import { type AddonBdevHandle, type AddonConfig, type AddonEngine, loadAddon } from './addon.js';

export interface NativeEngineOptions {
  /** Threads of the data path. @default 1 */
  readonly reactors?: number;
  /** Cores to pin reactors to, in order. @default none */
  readonly cores?: readonly number[];
  /** @default 'adaptive': spin while there is work, sleep when there is none */
  readonly poll?: AddonConfig['poll'];
  /** @default 'automatic': io_uring where a probe proved it, threads otherwise */
  readonly poller?: AddonConfig['poller'];
  /** What the engine maps at most. @default 1 GiB */
  readonly memoryBytes?: number;
  /** Also serve JSON-RPC on this Unix socket, mode 0600. @default none */
  readonly rpcPath?: string;
  readonly clock?: Clock;
}

type Answer = { result: unknown } | { error: { code: number; message: string; data?: Record<string, unknown> } };

/** @throws {Error} when the addon is missing, or the system refuses what the engine needs */
export function createNativeEngine(options: NativeEngineOptions = {}): Engine {
  const addon = loadAddon();
  return new NativeEngine(new addon.Engine(addonConfig(options)), options.clock ?? systemClock);
}

export function addonConfig(options: NativeEngineOptions): AddonConfig {
  return {
    reactors: options.reactors ?? 1,
    cores: [...(options.cores ?? [])],
    poll: options.poll ?? 'adaptive',
    poller: options.poller ?? 'automatic',
    memoryBytes: options.memoryBytes ?? 1024 * 1024 * 1024,
    rpcPath: options.rpcPath ?? null,
  };
}

export class NativeEngine implements Engine {
  readonly #addon: AddonEngine;
  readonly #clock: Clock;
  readonly #listeners = new Set<(event: EngineEvent) => void>();
  #closing: Promise<void> | null = null;

  constructor(addon: AddonEngine, clock: Clock) {
    this.#addon = addon;
    this.#clock = clock;
    addon.onEvent((json) => {
      const event = JSON.parse(json) as EngineEvent;
      for (const listener of [...this.#listeners]) listener(event);
    });
  }

  async rpc<M extends Method>(method: M, ...args: RpcArguments<M>): Promise<MethodResult<M>> {
    this.#assertOpen();
    const [params, options = {}] = args;
    const answer = this.#addon.rpc(method, toJson(params ?? {}));
    const text = await waitForAnswer(method, answer, options, this.#clock);
    const parsed = JSON.parse(text) as Answer;
    if ('error' in parsed) {
      const { code, message, data } = parsed.error;
      throw new EngineError(code, method, message, data ?? null);
    }
    return parsed.result as MethodResult<M>;
  }

  on(_event: 'event', listener: (event: EngineEvent) => void): () => void {
    this.#assertOpen();
    // One entry per subscription, also for the same function twice.
    const entry = (event: EngineEvent): void => listener(event);
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  allocate(bytes: number): ArrayBuffer {
    this.#assertOpen();
    return this.#addon.allocate(bytes);
  }

  async openBdev(name: string): Promise<BdevHandle> {
    this.#assertOpen();
    try {
      return new NativeBdevHandle(await this.#addon.openBdev(name));
    } catch (error) {
      throw openingError(error);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#addon.close().then(() => this.#listeners.clear());
    return this.#closing;
  }

  #assertOpen(): void {
    if (this.#closing !== null) throw new IllegalState('the engine is closed');
  }
}

class NativeBdevHandle implements BdevHandle {
  readonly #addon: AddonBdevHandle;
  #info: BdevHandleInfo;
  #closing: Promise<void> | null = null;

  constructor(addon: AddonBdevHandle) {
    this.#addon = addon;
    this.#info = Object.freeze(addon.info());
  }

  /** The size may grow; of a closed handle or engine it is what was last known. */
  get info(): BdevHandleInfo {
    try {
      if (this.#closing === null) this.#info = Object.freeze(this.#addon.info());
    } catch (error) {
      if (codeOf(error) !== 'ILLEGAL_STATE') throw error;
    }
    return this.#info;
  }

  read(offsetBytes: number, into: ArrayBufferView): Promise<void> {
    return this.#run('read', () => this.#addon.read(offsetBytes, into));
  }

  write(offsetBytes: number, from: ArrayBufferView): Promise<void> {
    return this.#run('write', () => this.#addon.write(offsetBytes, from));
  }

  flush(): Promise<void> {
    return this.#run('flush', () => this.#addon.flush());
  }

  close(): Promise<void> {
    this.#closing ??= this.#addon.close();
    return this.#closing;
  }

  async #run(operation: string, start: () => Promise<void>): Promise<void> {
    if (this.#closing !== null) throw new IllegalState(`the handle of bdev ${this.info.name} is closed`);
    try {
      await start();
    } catch (error) {
      throw ioError(this.info.name, operation, error);
    }
  }
}

function toJson(params: object): string {
  return JSON.stringify(params, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function ioError(bdev: string, operation: string, error: unknown): unknown {
  if (codeOf(error) === 'ILLEGAL_STATE') return new IllegalState(`the engine of bdev ${bdev} is closed`);
  if (!(error instanceof Error) || !('status' in error) || typeof error.status !== 'number') return error;
  return new EngineIoError(bdev, operation, error.status, error.message.replace(`${operation}: `, ''));
}

/** The addon names the kind of refusal; the rest of the world knows the numbers. */
function openingError(error: unknown): unknown {
  const code = codeOf(error);
  if (code === 'ILLEGAL_STATE') return new IllegalState('the engine was closed meanwhile');
  const numbers: Record<string, number> = {
    not_found: engineErrorCodes.noDevice,
    busy: engineErrorCodes.busy,
    closed: engineErrorCodes.closed,
  };
  const number = typeof code === 'string' ? numbers[code] : undefined;
  if (number === undefined || !(error instanceof Error)) return error;
  return new EngineError(number, 'openBdev', error.message);
}
