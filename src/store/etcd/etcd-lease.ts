// SPDX-License-Identifier: Apache-2.0
//
// A granted lease and its renewal: every third of the TTL, over a stream that is opened again when it
// breaks.
//
// Invariants:  - held only while a renewal sent less than a TTL ago was answered
//              - onLost is called at most once, and never after revoke() or release()
//              - no timer is left once the lease is not held

import type { Clock, Timer } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import { BasaltError } from '../../model/errors.js';
import type { Logger } from '../logger.js';
import type { CallOptions, Lease } from '../store.js';
import { Backoff } from './backoff.js';
import type { EtcdConnection, RpcStream } from './connection.js';

interface EtcdLeaseOptions {
  id: string;
  ttlSeconds: number;
  /** When the grant was sent. */
  sentMs: number;
  connection: EtcdConnection;
  clock: Clock;
  random: Random;
  logger: Logger;
  onLost: ((error: BasaltError) => void) | null;
  onEnded: () => void;
  revoke: (options: CallOptions) => Promise<void>;
}

export class EtcdLease implements Lease {
  readonly id: string;
  readonly ttlSeconds: number;
  readonly #config: EtcdLeaseOptions;
  readonly #ending = new AbortController();
  readonly #backoff: Backoff;
  #state: Lease['state'] = 'held';
  #renewedMs: number;
  #deadline: Timer | null = null;
  /** Gives up on a stream that does not answer, in time for another try. */
  #patience: Timer | null = null;

  constructor(config: EtcdLeaseOptions) {
    this.id = config.id;
    this.ttlSeconds = config.ttlSeconds;
    this.#config = config;
    this.#renewedMs = config.sentMs;
    this.#backoff = new Backoff(config.random);
  }

  get state(): Lease['state'] {
    return this.#state;
  }

  start(): void {
    this.#armDeadline();
    void this.#keepAlive();
  }

  async revoke(options: CallOptions = {}): Promise<void> {
    this.release();
    await this.#config.revoke(options);
  }

  release(): void {
    this.#end('ended');
  }

  get #ttlMs(): number {
    return this.ttlSeconds * 1000;
  }

  async #keepAlive(): Promise<void> {
    const { clock, logger } = this.#config;
    const { signal } = this.#ending;
    while (this.#state === 'held') {
      try {
        await this.#renewOverOneStream();
      } catch (error) {
        if (this.#state === 'held') logger.debug({ err: error, lease: this.id }, 'store: lease renewal interrupted');
      }
      if (this.#state === 'held') await clock.sleep(this.#backoff.nextMs(), signal).catch(() => {});
    }
  }

  async #renewOverOneStream(): Promise<void> {
    const { connection, clock } = this.#config;
    const { signal } = this.#ending;
    const stream = await connection.stream('Lease', 'leaseKeepAlive', {
      operation: `renewal of lease ${this.id}`,
      deadlineMs: this.#renewedMs + this.#ttlMs,
      signal,
    });
    const cancel = (): void => stream.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      let sentMs = this.#send(stream);
      for await (const message of stream) {
        this.#patience?.cancel();
        if (!this.#take(message as { TTL: string }, sentMs)) return;
        await clock.sleep(Math.max(0, sentMs + this.#ttlMs / 3 - clock.now()), signal);
        sentMs = this.#send(stream);
      }
    } finally {
      this.#patience?.cancel();
      signal.removeEventListener('abort', cancel);
      cancel();
    }
  }

  #send(stream: RpcStream): number {
    const sentMs = this.#config.clock.now();
    stream.write({ ID: this.id });
    this.#patience?.cancel();
    this.#patience = this.#config.clock.setTimer(this.#ttlMs / 3, () => stream.cancel());
    return sentMs;
  }

  /** Returns whether the lease still exists. */
  #take(answer: { TTL: string }, sentMs: number): boolean {
    if (Number(answer.TTL) <= 0) {
      this.#lose();
      return false;
    }
    this.#renewedMs = sentMs;
    this.#backoff.reset();
    this.#armDeadline();
    return this.#state === 'held';
  }

  #armDeadline(): void {
    const { clock } = this.#config;
    this.#deadline?.cancel();
    if (this.#state !== 'held') return;
    this.#deadline = clock.setTimer(this.#renewedMs + this.#ttlMs - clock.now(), () => this.#lose());
  }

  #lose(): void {
    if (this.#state !== 'held') return;
    this.#end('lost');
    this.#config.logger.warn({ lease: this.id }, 'store: lease lost');
    this.#config.onLost?.(new BasaltError('STORE_LEASE_LOST', { leaseId: this.id }));
  }

  #end(state: 'lost' | 'ended'): void {
    if (this.#state !== 'held') return;
    this.#state = state;
    this.#deadline?.cancel();
    this.#deadline = null;
    this.#ending.abort();
    this.#config.onEnded();
  }
}
