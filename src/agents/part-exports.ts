// SPDX-License-Identifier: Apache-2.0
//
// The exports of a part that this node drives: one for each front of its volume, behind a gate of its own (decision 020).
//
// Invariants:  - an export is opened after the part's members were taken over, and obeys no epoch of its front below the
//                one that the store holds then: whatever that front was ever served under is known by that time
//              - none is open while the part is not served from here

import { isEngineError } from '../engine/engine.js';
import { nqns } from '../model/keys.js';
import type { NodeAddress, VolumeObject } from '../model/objects.js';
import { slotName } from './assembly.js';
import type { ClusterLink } from './cluster-link.js';
import type { AgentContext } from './context.js';
import { listenerAt } from './listener.js';
import { noIdentity } from './node-identity.js';
import type { NodeLink } from './node-link.js';
import { withDeadline } from './signal.js';

export interface PartExportsOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly incarnation: string;
  readonly part: VolumeObject;
  readonly partLink: NodeLink;
  /** Where controllers reach this node. */
  readonly address: NodeAddress;
}

const openTimeoutMs = 2_000;

/** What the front of a controller goes by towards parts; its members that are replicas have another name. */
export function frontName(node: string): string {
  return `${node}:front`;
}

export class PartExports {
  readonly #options: PartExportsOptions;
  /** By front: the hosts that its export lets in. */
  readonly #open = new Map<string, Set<string>>();
  /** Those that are to go, or to be made anew. */
  readonly #closing = new Set<string>();

  constructor(options: PartExportsOptions) {
    this.#options = options;
  }

  /**
   * Those that are missing are opened, and whoever is a controller of the volume is let in, as far as that goes: no front
   * waits for what stands in another one's way. @throws what did so
   */
  open(): Promise<void> {
    const { context, link, part } = this.#options;
    return withDeadline(context.clock, openTimeoutMs, async (signal) => {
      const volume = link.state.get('volumes', part.partOf ?? '');
      const openFor = async (front: string): Promise<void> => {
        if (!this.#open.has(front)) await this.#openFor(front, signal);
        if (this.#open.has(front)) await this.#admit(front, volume?.controllers ?? [], signal);
      };
      const linking = await Promise.allSettled([this.#ensureLink(signal)]);
      const opening = await Promise.allSettled((volume?.fronts ?? []).map(openFor));
      for (const outcome of [...opening, ...linking]) if (outcome.status === 'rejected') throw outcome.reason;
    });
  }

  /** Each time: it may not have been to be had before, and nodes join. */
  async #ensureLink(signal: AbortSignal): Promise<void> {
    const { partLink, address } = this.#options;
    await partLink.ensure(address, signal);
    if (partLink.nqn === null && !partLink.isUnknown) throw new Error('the link for parts is not to be had yet');
  }

  /** None counts as open from here on, also where its deletion fails: whoever opens it next makes its gate anew. */
  async close(): Promise<void> {
    for (const front of this.#open.keys()) this.#closing.add(front);
    this.#open.clear();
    for (const front of [...this.#closing]) {
      await this.#delete(front);
      this.#closing.delete(front);
    }
  }

  async #openFor(front: string, signal: AbortSignal): Promise<void> {
    const { context, link, part, address, incarnation } = this.#options;
    const { engine } = context;
    // Not as the watch shows it: that may be older than what the front was served under.
    const stored = await link.leadership(front).read(signal);
    // It went with its volume.
    if (stored === null) return;
    const epoch = Math.max(1, stored.value.epoch);
    const nqn = nqns.partExport(part.id, front);
    await this.#delete(front);
    try {
      const names = { serial_number: incarnation, model_number: 'Basalt part', max_namespaces: 1, internal: true };
      await engine.rpc('nvmf_create_subsystem', { nqn, ...names, ana_reporting: false });
      const namespace = { bdev_name: slotName(part.id), nsid: 1, uuid: part.id, one_writer: true, gate_epoch: epoch };
      await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace });
      await engine.rpc('nvmf_subsystem_add_listener', { nqn, ...listenerAt(address) });
      signal.throwIfAborted();
    } catch (error) {
      await this.#delete(front);
      throw error;
    }
    this.#open.set(front, new Set());
  }

  async #admit(front: string, controllers: readonly string[], signal: AbortSignal): Promise<void> {
    const { context, link, part, address } = this.#options;
    const { engine, identity = noIdentity } = context;
    const nqn = nqns.partExport(part.id, front);
    const present = this.#open.get(front) ?? new Set<string>();
    const holder = link.state.get('leaderships', front)?.controller ?? null;
    const names = new Set([...controllers, ...(holder === null ? [] : [holder])]);
    const wanted = new Set([...names].flatMap((name) => identity.hostNqns(frontName(name))));
    for (const host of wanted) {
      signal.throwIfAborted();
      if (present.has(host)) continue;
      await identity.admit(engine, { nqn, host, secure: address.secure });
      present.add(host);
    }
    for (const host of [...present]) {
      if (wanted.has(host)) continue;
      await engine.rpc('nvmf_subsystem_remove_host', { nqn, host });
      present.delete(host);
    }
  }

  async #delete(front: string): Promise<void> {
    const nqn = nqns.partExport(this.#options.part.id, front);
    await this.#options.context.engine.rpc('nvmf_delete_subsystem', { nqn }).catch((error: unknown) => {
      if (!isEngineError(error, 'notFound')) throw error;
    });
  }
}
