// SPDX-License-Identifier: Apache-2.0
//
// One node: its engine's listeners, its entry in the store, and the agents of its roles.
//
// Invariants:  - the node shows itself as live only after its disks and listeners are open
//              - draining is announced before anything is handed over

import type { CompiledNode } from '../model/config.js';
import { isBasaltError } from '../model/errors.js';
import { makeIncarnation } from '../model/incarnation.js';
import { keys } from '../model/keys.js';
import { type Address, codecs, formatVersion, type LiveObject, type NodeAddress } from '../model/objects.js';
import { type PgPlanner, WorkerPlanner } from '../placement/planner.js';
import type { Store } from '../store/store.js';
import { ensureCluster } from './cluster-identity.js';
import { type AgentContext, reason } from './context.js';
import { ControllerAgent } from './controller-agent.js';
import { DiscoveryKeeper } from './discovery-keeper.js';
import { DiskAgent } from './disk-agent.js';
import { HostAccess } from './host-access.js';
import { JobAgent } from './job-agent.js';
import { openListener, openTransport } from './listener.js';
import { NodeLink } from './node-link.js';
import { assertNameFree } from './node-name.js';
import { PlacementAgent, type PlacementTiming } from './placement-agent.js';
import { Backoff } from './signal.js';
import { StoreLink } from './store-link.js';
import type { ControllerTiming } from './volume-controller.js';

export interface NodeAgentOptions {
  readonly context: AgentContext;
  readonly store: Store;
  readonly node: CompiledNode;
  readonly leaseTtlSeconds?: number;
  readonly timing?: Partial<ControllerTiming>;
  readonly placement?: Partial<PlacementTiming>;
  /** @default one that plans in a thread of its own */
  readonly planner?: PgPlanner;
}

export const liveTtlSeconds = 5;

export class NodeAgent {
  readonly #options: NodeAgentOptions;
  readonly #link: StoreLink;
  readonly #ttlSeconds: number;
  readonly #stop = new AbortController();
  #disks: DiskAgent | null = null;
  #controllers: ControllerAgent | null = null;
  #discovery: DiscoveryKeeper | null = null;
  #placement: PlacementAgent | null = null;
  #jobs: JobAgent | null = null;
  #live: LiveObject | null = null;
  #linkNqn: string | null = null;

  constructor(options: NodeAgentOptions) {
    this.#options = options;
    const { clock, log } = options.context;
    this.#ttlSeconds = options.leaseTtlSeconds ?? liveTtlSeconds;
    this.#link = new StoreLink({ store: options.store, clock, log, leaseTtlSeconds: this.#ttlSeconds });
  }

  get link(): StoreLink {
    return this.#link;
  }

  get controllers(): ControllerAgent | null {
    return this.#controllers;
  }

  get live(): LiveObject | null {
    return this.#live;
  }

  /** Resolves when the node is shown as live. @throws what a disk is refused for */
  async start(signal: AbortSignal): Promise<void> {
    const { context, store, node, timing } = this.#options;
    const isDisk = node.roles.includes('disk');
    const isController = node.roles.includes('controller');
    const clusterId = await ensureCluster(store, context, signal);
    await this.#link.open(signal);
    await openTransport(context.engine, node.trustedNetwork);
    // Before anybody can connect.
    if (node.discovery !== 'open') await context.engine.rpc('nvmf_set_config', { discovery_access: node.discovery });
    await assertNameFree(this.#link.state, { ...context, name: node.name, ttlSeconds: this.#ttlSeconds }, signal);
    const nodeLink = isDisk ? new NodeLink({ context, link: this.#link }) : null;
    const at = (port: number): NodeAddress => ({
      traddr: node.address,
      trsvcid: String(port),
      ...(node.secure ? { secure: true } : {}),
    });
    const internal =
      nodeLink === null ? null : await openListener(context.engine, await nodeLink.open(at(node.internalPort), signal));
    const hosts = isController ? await openListener(context.engine, at(node.hostPort)) : null;
    const incarnation = makeIncarnation(context.boot ?? null, context.random);
    if (internal !== null && nodeLink !== null) {
      this.#disks = new DiskAgent({
        context,
        link: this.#link,
        node: node.name,
        clusterId,
        disks: node.disks,
        internal,
        nodeLink,
        incarnation,
      });
      await this.#disks.start();
    }
    if (hosts !== null) {
      const access = new HostAccess({
        engine: context.engine,
        link: this.#link,
        keys: context.keys ?? null,
        openTls: () => this.#openTls(hosts),
        tlsOnly: node.secure,
      });
      const common = { context, link: this.#link, node: node.name, hosts, internal, incarnation, access };
      this.#controllers = new ControllerAgent({ ...common, ...(timing === undefined ? {} : { timing }) });
      await this.#controllers.letWatchersIn(signal).catch((error: unknown) => {
        signal.throwIfAborted();
        context.log.warn({ node: node.name, error: reason(error) }, 'nodes cannot watch this one yet; trying on');
      });
    }
    await this.#register({ internal, hosts, incarnation, link: nodeLink?.nqn ?? null }, signal);
    if (hosts !== null) {
      this.#controllers?.start();
      if (node.discovery !== 'off') {
        this.#discovery = new DiscoveryKeeper({ context, link: this.#link, node: node.name });
        this.#discovery.start();
      }
    }
    this.#placement = new PlacementAgent({
      context,
      link: this.#link,
      node: node.name,
      planner: this.#options.planner ?? new WorkerPlanner(),
      timing: this.#options.placement ?? {},
    });
    this.#placement.start();
    this.#jobs = new JobAgent({ context, link: this.#link, live: () => this.#live });
    this.#jobs.start();
    context.log.info({ node: node.name, internal, hosts, incarnation }, 'node is up');
  }

  /** Tells the cluster, then gives away every volume that this node drives. */
  async drain(): Promise<void> {
    await this.#announce(true).catch(() => {});
    await this.#jobs?.release(this.#stop.signal).catch(() => {});
    await this.#controllers?.handOver();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('node stopped'));
    await this.#placement?.stop();
    await this.#jobs?.stop();
    await this.#discovery?.stop();
    await this.#controllers?.stop();
    await this.#disks?.stop();
    await this.#link.close();
  }

  /** Hosts' own port, unless there is to be another one for TLS. */
  async #openTls(hosts: NodeAddress): Promise<Address> {
    const { context, node } = this.#options;
    const traddr = node.tlsAddress ?? node.address;
    const ports = [null, Number(hosts.trsvcid)];
    const isSame = hosts.secure === true && traddr === hosts.traddr && ports.includes(node.tlsPort);
    const wanted = { traddr, trsvcid: String(node.tlsPort ?? 0), secure: true } as const;
    const { trsvcid } = isSame ? hosts : await openListener(context.engine, wanted);
    return { traddr, trsvcid };
  }

  async #register(
    at: { internal: NodeAddress | null; hosts: NodeAddress | null; incarnation: string; link: string | null },
    signal: AbortSignal,
  ): Promise<void> {
    const { context, node } = this.#options;
    const { version } = await context.engine.rpc('spdk_get_version', {});
    const { internal, hosts, incarnation } = at;
    const roles = [...node.roles];
    const common = { format: formatVersion, name: node.name, roles } as const;
    const entry = { ...common, location: node.location };
    const put = [{ key: keys.node(node.name), text: codecs.node.encode(entry) }];
    this.#linkNqn = at.link;
    const engine = context.disks === undefined ? version : `${version}; ${context.disks.description}`;
    this.#live = { ...common, kind: 'node', incarnation, engine, internal, hosts, draining: false };
    const backoff = new Backoff({ clock: context.clock, minMs: 50, maxMs: 1_000 });
    for (;;) {
      try {
        await this.#link.commit({ put }, signal);
        return await this.#announce(false);
      } catch (error) {
        // A store that went away since it was read is no reason to end.
        signal.throwIfAborted();
        if (!isBasaltError(error)) throw error;
        context.log.warn({ node: node.name, error: reason(error) }, 'store does not take the node; trying on');
        await backoff.wait(signal);
      }
    }
  }

  async #announce(draining: boolean): Promise<void> {
    if (this.#live === null) return;
    this.#live = { ...this.#live, draining };
    const { format, name, incarnation } = this.#live;
    const live = { key: keys.live(name), text: codecs.live.encode(this.#live), leased: true };
    const nqn = this.#linkNqn;
    const link = nqn === null ? null : codecs.nodeLink.encode({ format, name, incarnation, nqn });
    // Both at once: its link is not known of a process that is not, nor the other way round. Replicas are there already,
    // and controllers that find one of the two would connect to each of them.
    const put = link === null ? [live] : [{ key: keys.nodeLink(name), text: link }, live];
    await this.#link.commit({ put }, this.#stop.signal);
  }
}
