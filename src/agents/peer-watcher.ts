// SPDX-License-Identifier: Apache-2.0
//
// Watches the controller nodes that share volumes with this one, over connections that the engine keeps. A broken
// connection is a reason to try a takeover, never a proof of anything; so is one that is refused.
//
// A peer that is not connected is looked for again at once when the store shows a sign of life of it: a network that has
// healed is noticed, or that the peer died after it gave the sign.

import type { Timer } from '../env/clock.js';
import type { NodeAddress } from '../model/objects.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { frontName } from './part-exports.js';
import { watchParams } from './peer-watch.js';
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
  /** What the store had shown of the peer when it was looked for. */
  readonly sign: Sign;
  readonly sinceMs: number;
}

interface Sign {
  readonly live: number;
  /** The newest of the leadership objects that name it. */
  readonly leadership: number;
}

interface Wanted {
  readonly target: string;
  readonly address: NodeAddress;
  readonly sign: Sign;
}

const restMs = 50;
export const peerKeepAliveMs = 500;
/** From one look-out to the next one of the same peer: a connection takes its time on a busy machine. */
const lookAgainMs = 500;
/**
 * So often a refusal counts, until the peer was connected again: where something between two controllers refuses for the
 * other, they would take volumes from one another for ever.
 */
const refusalsMax = 3;

export class PeerWatcher {
  readonly #options: PeerWatcherOptions;
  readonly #loop: ReconcileLoop;
  /** By node. */
  readonly #watched = new Map<string, Watched>();
  readonly #connected = new Set<string>();
  readonly #lost = new Map<string, number>();
  readonly #gone = new Map<string, number>();
  readonly #refusals = new Map<string, number>();
  #again: Timer | null = null;
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

  /** By node: that refused a connection, made after leadership objects up to this revision were known to name it. */
  get gone(): ReadonlyMap<string, number> {
    return this.#gone;
  }

  get connected(): ReadonlySet<string> {
    return this.#connected;
  }

  start(): void {
    this.#unsubscribe = this.#options.context.engine.on('event', (event) => {
      if (event.method === 'peer_connected') this.#note(event.params.name, 'connected');
      else if (event.method === 'peer_lost') this.#note(event.params.name, 'lost');
      else if (event.method === 'peer_refused') this.#note(event.params.name, 'refused');
    });
    this.#loop.start();
  }

  wake(): void {
    this.#loop.wake();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    this.#again?.cancel();
    for (const watched of this.#watched.values()) await this.#unwatch(watched.name);
    this.#watched.clear();
  }

  #note(watchName: string, what: 'connected' | 'lost' | 'refused'): void {
    for (const [node, watched] of this.#watched) {
      if (watched.name !== watchName) continue;
      if (what === 'connected') {
        this.#connected.add(node);
        this.#lost.delete(node);
        this.#gone.delete(node);
        this.#refusals.delete(node);
      } else if (what === 'lost' && this.#connected.delete(node)) {
        this.#lost.set(node, this.#options.context.clock.now());
        this.#options.context.log.warn({ peer: node }, 'connection to a controller node broke');
        this.#loop.wake();
      } else if (what === 'refused') this.#noteRefusal(node, watched);
      this.#options.onChange();
    }
  }

  #noteRefusal(node: string, watched: Watched): void {
    const count = (this.#refusals.get(node) ?? 0) + 1;
    if (count > refusalsMax) return;
    this.#refusals.set(node, count);
    this.#gone.set(node, watched.sign.leadership);
    this.#options.context.log.warn({ peer: node }, 'a controller node refuses connections');
  }

  async #pass(): Promise<void> {
    const wanted = this.#wanted();
    for (const [node, watched] of [...this.#watched]) {
      const now = wanted.get(node);
      if (now?.target === watched.target) continue;
      this.#connected.delete(node);
      for (const known of [this.#lost, this.#gone, this.#refusals]) known.delete(node);
      await this.#forget(node, watched);
      this.#options.onChange();
    }
    for (const [node, watched] of [...this.#watched]) {
      const now = wanted.get(node);
      if (now !== undefined && this.#isDue(node, watched, now)) await this.#forget(node, watched);
    }
    const failures: unknown[] = [];
    for (const [node, { target, address, sign }] of wanted) {
      if (this.#watched.has(node)) continue;
      const name = `peer-${node}-${++this.#sequence}`;
      this.#watched.set(node, { name, target, sign, sinceMs: this.#options.context.clock.now() });
      try {
        const { context } = this.#options;
        const at = { address, as: frontName(this.#options.node), keepAliveMs: peerKeepAliveMs };
        await context.engine.rpc('basalt_peer_watch', { name, ...(await watchParams(context, at)) });
      } catch (error) {
        // The other peers are watched all the same.
        this.#watched.delete(node);
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** It is not connected, and has given a sign of life since it was looked for. */
  #isDue(node: string, watched: Watched, { sign }: Wanted): boolean {
    if (this.#connected.has(node)) return false;
    if (sign.live === watched.sign.live && sign.leadership === watched.sign.leadership) return false;
    const { clock } = this.#options.context;
    const restMs = watched.sinceMs + lookAgainMs - clock.now();
    if (restMs <= 0) return true;
    this.#again?.cancel();
    this.#again = clock.setTimer(restMs, () => this.#loop.wake());
    return false;
  }

  async #forget(node: string, { name }: Watched): Promise<void> {
    this.#watched.delete(node);
    await this.#unwatch(name);
  }

  /** A node that left the store's view keeps its watch: losing the lease is not losing the process. */
  #wanted(): Map<string, Wanted> {
    const { link, node } = this.#options;
    const wanted = new Map<string, Wanted>();
    for (const volume of link.state.all('volumes')) {
      if (!volume.controllers.includes(node)) continue;
      const leaderships = [volume.id, ...(volume.fronts ?? [])].flatMap(
        (id) => link.state.stored('leaderships', id) ?? [],
      );
      for (const peer of volume.controllers) {
        const live = peer === node ? null : link.state.lastLive(peer);
        if (live?.hosts == null) continue;
        const held = leaderships.filter(({ value }) => value.controller === peer).map(({ revision }) => revision);
        const before = wanted.get(peer)?.sign.leadership ?? 0;
        wanted.set(peer, {
          target: `${live.incarnation} ${live.hosts.traddr}:${live.hosts.trsvcid}`,
          address: live.hosts,
          sign: { live: link.state.stored('lives', peer)?.revision ?? 0, leadership: Math.max(before, ...held) },
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
