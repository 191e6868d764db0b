// SPDX-License-Identifier: Apache-2.0
//
// Watches the controller nodes that share volumes with this one, over connections that the engine keeps. A broken
// connection is a reason to try a takeover, never a proof of anything.

import type { Address } from '../model/objects.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { ReconcileLoop } from './reconcile-loop.js';

export interface PeerWatcherOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  readonly onChange: () => void;
}

interface Watched {
  readonly name: string;
  readonly target: string;
}

const restMs = 50;
export const peerKeepAliveMs = 500;

export class PeerWatcher {
  readonly #options: PeerWatcherOptions;
  readonly #loop: ReconcileLoop;
  /** By node. */
  readonly #watched = new Map<string, Watched>();
  readonly #connected = new Set<string>();
  readonly #lost = new Map<string, number>();
  #unsubscribe: (() => void) | null = null;
  #sequence = 0;

  constructor(options: PeerWatcherOptions) {
    this.#options = options;
    const { clock, log } = options.context;
    this.#loop = new ReconcileLoop({
      name: 'peer watcher',
      clock,
      log: new RateLimitedLog(log, clock),
      pass: () => this.#pass(),
      restMs,
    });
  }

  /** By node: when its connection broke. */
  get lost(): ReadonlyMap<string, number> {
    return this.#lost;
  }

  get connected(): ReadonlySet<string> {
    return this.#connected;
  }

  start(): void {
    this.#unsubscribe = this.#options.context.engine.on('event', (event) => {
      if (event.method === 'peer_connected') this.#note(event.params.name, true);
      else if (event.method === 'peer_lost') this.#note(event.params.name, false);
    });
    this.#loop.start();
  }

  wake(): void {
    this.#loop.wake();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    for (const watched of this.#watched.values()) await this.#unwatch(watched.name);
    this.#watched.clear();
  }

  #note(watchName: string, connected: boolean): void {
    for (const [node, watched] of this.#watched) {
      if (watched.name !== watchName) continue;
      if (connected) {
        this.#connected.add(node);
        this.#lost.delete(node);
      } else if (this.#connected.delete(node)) {
        this.#lost.set(node, this.#options.context.clock.now());
        this.#options.context.log.warn({ peer: node }, 'connection to a controller node broke');
      }
      this.#options.onChange();
    }
  }

  async #pass(): Promise<void> {
    const wanted = this.#wanted();
    for (const [node, watched] of [...this.#watched]) {
      if (wanted.get(node)?.target === watched.target) continue;
      this.#watched.delete(node);
      this.#connected.delete(node);
      this.#lost.delete(node);
      await this.#unwatch(watched.name);
      this.#options.onChange();
    }
    const failures: unknown[] = [];
    for (const [node, { target, address }] of wanted) {
      if (this.#watched.has(node)) continue;
      const name = `peer-${node}-${++this.#sequence}`;
      this.#watched.set(node, { name, target });
      try {
        await this.#options.context.engine.rpc('basalt_peer_watch', {
          name,
          ...address,
          keep_alive_ms: peerKeepAliveMs,
        });
      } catch (error) {
        // The other peers are watched all the same.
        this.#watched.delete(node);
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** A node that left the store's view keeps its watch: losing the lease is not losing the process. */
  #wanted(): Map<string, { target: string; address: Address }> {
    const { link, node } = this.#options;
    const wanted = new Map<string, { target: string; address: Address }>();
    for (const volume of link.state.all('volumes')) {
      if (!volume.controllers.includes(node)) continue;
      for (const peer of volume.controllers) {
        const live = peer === node ? null : link.state.lastLive(peer);
        if (live?.hosts == null) continue;
        wanted.set(peer, {
          target: `${live.incarnation} ${live.hosts.traddr}:${live.hosts.trsvcid}`,
          address: live.hosts,
        });
      }
    }
    return wanted;
  }

  async #unwatch(name: string): Promise<void> {
    await this.#options.context.engine.rpc('basalt_peer_unwatch', { name }).catch((error) => {
      this.#options.context.log.debug({ name, error: reason(error) }, 'peer was not watched');
    });
  }
}
