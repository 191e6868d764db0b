// SPDX-License-Identifier: Apache-2.0
//
// The embedded store as a process sees it: a directory, and an endpoint that speaks etcd v3.
//
// Invariants:  - it listens on a loopback address and nowhere else
//              - close() ends all calls, finishes what is being written and frees the directory

import { isIPv4 } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../../env/clock.js';
import { type Random, systemRandom } from '../../env/random.js';
import { BasaltError } from '../../model/errors.js';
import { type Logger, silentLogger } from '../logger.js';
import { Core, type StoreLimits, storeLimits } from './core.js';
import { loadEtcdServices } from './messages.js';
import { addServices } from './services.js';

export interface EmbeddedStoreOptions {
  /** Made when missing. One process at a time. */
  directory: string;
  /** A loopback address, '127.0.0.1' or '::1'. */
  host: string;
  /** 0 takes a free port. */
  port: number;
  logger?: Logger;
  clock?: Clock;
  random?: Random;
  limits?: Partial<StoreLimits>;
}

export interface EmbeddedStore {
  /** For clients: 'http://host:port'. */
  readonly endpoint: string;
  /** A second call waits for the first. */
  close(): Promise<void>;
}

/** What gRPC itself lets in: the largest request plus its envelope. */
const messageOverheadBytes = 512 * 1024;

/**
 * Opens the directory and serves it.
 * @throws {BasaltError} STORE_ADDRESS_REFUSED, STORE_DIRECTORY_LOCKED, STORE_FORMAT_UNKNOWN, STORE_DAMAGED, STORE_LISTEN_FAILED
 */
export async function startEmbeddedStore(options: EmbeddedStoreOptions): Promise<EmbeddedStore> {
  const { directory, host, port } = options;
  if (!isLoopback(host)) throw new BasaltError('STORE_ADDRESS_REFUSED', { host });
  const logger = options.logger ?? silentLogger;
  const core = await Core.open({
    directory,
    logger,
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    limits: { ...storeLimits, ...options.limits },
  });
  const limits = { ...storeLimits, ...options.limits };
  const server = new Server({
    'grpc.max_receive_message_length': limits.requestBytesMax + messageOverheadBytes,
    'grpc.max_send_message_length': -1,
    'grpc.so_reuseport': 0,
  });
  addServices(server, loadEtcdServices(), core, limits.requestBytesMax, logger);
  const address = host.includes(':') ? `[${host}]` : host;
  let boundPort: number;
  try {
    boundPort = await bind(server, `${address}:${port}`);
  } catch (error) {
    await core.close();
    throw error;
  }
  logger.info({ directory, port: boundPort, revision: core.published }, 'store: serving');
  return new RunningStore(`http://${address}:${boundPort}`, server, core);
}

class RunningStore implements EmbeddedStore {
  readonly endpoint: string;
  readonly #server: Server;
  readonly #core: Core;
  #closing: Promise<void> | null = null;

  constructor(endpoint: string, server: Server, core: Core) {
    this.endpoint = endpoint;
    this.#server = server;
    this.#core = core;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#server.forceShutdown();
    await this.#core.close();
  }
}

function isLoopback(host: string): boolean {
  return host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(new BasaltError('STORE_LISTEN_FAILED', { address, detail: error.message }, { cause: error }));
    });
  });
}
