// SPDX-License-Identifier: Apache-2.0
//
// A disk node's link (decision 017): the internal subsystem by which each controller reaches all replicas of the node
// over one association. It lets in controllers under the names and keys that replicas admit them under; a replica is
// attached only by whom its own subsystem admits, so what a controller may reach is not changed by it.
//
// Invariants:  - it is the first to listen on its address, and has let in by then whom the node knows: a controller that comes
//                while the node starts finds either nobody or the link, and does not connect to replicas one by one
//              - without it (an engine that has none) the node serves its replicas all the same: controllers then connect
//                to each of them

import { isEngineError, type SubsystemDescription } from '../engine/engine.js';
import { nqns } from '../model/keys.js';
import type { NodeAddress } from '../model/objects.js';
import { linkControllers } from '../reconcile/node-links.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, reason } from './context.js';
import { listenerAt, openListener } from './listener.js';
import { type Identity, noIdentity } from './node-identity.js';

export interface NodeLinkOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  /** Of another link of the node, for other subsystems than replicas'; by default the one for replicas. */
  readonly nqn?: string;
  /** What a controller goes by there; by default its name. */
  readonly nameOf?: (controller: string) => string;
}

export class NodeLink {
  readonly #options: NodeLinkOptions;
  readonly #identity: Identity;
  /** Where it listens. */
  #internal: NodeAddress | null = null;
  #secure = false;
  /** As the engine has them; null: it has to be asked. */
  #hosts: Set<string> | null = null;
  #seen = '';
  /** Some are let in only because they drive a volume: when they no longer do so, they go. */
  #holds = false;
  #unknown = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: NodeLinkOptions) {
    this.#options = options;
    this.#identity = options.context.identity ?? noIdentity;
  }

  /** Null: there is none. */
  get nqn(): string | null {
    return this.#internal === null ? null : this.#nqn;
  }

  get #nqn(): string {
    return this.#options.nqn ?? nqns.nodeLink;
  }

  /** It listens there, or cannot be had, and has let in whom the node knows. Whoever asks meanwhile waits for the same. */
  ensure(address: NodeAddress, signal: AbortSignal): Promise<void> {
    const run = async (): Promise<void> => {
      signal.throwIfAborted();
      if (this.#internal === null) await this.open(address, signal);
      await this.pass(false, signal);
    };
    const next = this.#turn.then(run, run);
    this.#turn = next.catch(() => {});
    return next;
  }

  /** The engine refused to make one when it was asked last, for what it was asked and not for how it is. */
  get isUnknown(): boolean {
    return this.#unknown;
  }

  /**
   * Resolves when it listens there, or is known not to be had: then nobody does yet. `trsvcid` "0" takes a free port; the
   * result names it. @throws BUSY when the port is taken
   */
  async open(address: NodeAddress, signal: AbortSignal): Promise<NodeAddress> {
    const { engine, log } = this.#options.context;
    this.#secure = address.secure === true;
    try {
      await this.#make(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isEngineError(error)) throw error;
      this.#unknown = isEngineError(error, 'invalidParams') || isEngineError(error, 'methodNotFound');
      log.warn({ error: reason(error) }, 'no node link: controllers connect to each replica');
      return address;
    }
    this.#internal = (await this.#listens(address)) ?? (await openListener(engine, address, this.#nqn));
    return this.#internal;
  }

  /** Lets in who has joined, and no longer who has left. `whole`: the engine may not have what it had. */
  async pass(whole: boolean, signal: AbortSignal): Promise<void> {
    if (this.#internal === null) return;
    if (!whole) return this.#admit(signal);
    this.#hosts = null;
    await this.#make(signal);
    const listener = { nqn: this.#nqn, ...listenerAt(this.#internal) };
    await this.#options.context.engine.rpc('nvmf_subsystem_add_listener', listener).catch(unlessExists);
  }

  /** What an engine has of it already is kept: connections go by it. */
  async #make(signal: AbortSignal): Promise<void> {
    const { engine } = this.#options.context;
    const names = { model_number: 'Basalt node link', max_namespaces: 1, internal: true, node_link: true };
    await engine.rpc('nvmf_create_subsystem', { nqn: this.#nqn, ...names }).catch(unlessExists);
    await this.#admit(signal);
  }

  async #admit(signal: AbortSignal): Promise<void> {
    const { state } = this.#options.link;
    const { engine } = this.#options.context;
    const { nameOf = (name: string): string => name } = this.#options;
    if (this.#version() === this.#seen && this.#hosts !== null) return;
    const nqn = this.#nqn;
    const { present: known, driving } = linkControllers(state);
    this.#holds = driving.length > 0;
    const seen = this.#version();
    const wanted = new Set([...known, ...driving].flatMap((name) => this.#identity.hostNqns(nameOf(name))));
    const present = this.#hosts ?? (await this.#ask());
    // After a failure nobody knows.
    this.#hosts = null;
    for (const host of wanted) {
      signal.throwIfAborted();
      if (present.has(host)) continue;
      await this.#identity.admit(engine, { nqn, host, secure: this.#secure });
      present.add(host);
    }
    for (const host of [...present]) {
      signal.throwIfAborted();
      if (wanted.has(host)) continue;
      await engine.rpc('nvmf_subsystem_remove_host', { nqn, host });
      present.delete(host);
    }
    this.#hosts = present;
    this.#seen = seen;
  }

  /** Of what the list follows from. Who drives what changes with each volume that is made, and seldom matters here. */
  #version(): string {
    const { state } = this.#options.link;
    const known = `${state.version('nodes')} ${state.version('lives')}`;
    return this.#holds ? `${known} ${state.version('leaderships')}` : known;
  }

  async #ask(): Promise<Set<string>> {
    return new Set((await this.#subsystem())?.hosts.map((host) => host.nqn));
  }

  /** Null: not there. */
  async #listens({ traddr, trsvcid, ...kind }: NodeAddress): Promise<NodeAddress | null> {
    const listeners = (await this.#subsystem())?.listen_addresses ?? [];
    const found = listeners.find((each) => each.traddr === traddr && ['0', each.trsvcid].includes(trsvcid));
    return found === undefined ? null : { traddr, trsvcid: found.trsvcid, ...kind };
  }

  async #subsystem(): Promise<SubsystemDescription | undefined> {
    const [found] = await this.#options.context.engine.rpc('nvmf_get_subsystems', { nqn: this.#nqn });
    return found;
  }
}

function unlessExists(error: unknown): void {
  if (!isEngineError(error, 'exists')) throw error;
}
