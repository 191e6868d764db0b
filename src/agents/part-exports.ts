// SPDX-License-Identifier: Apache-2.0
//
// The exports of a part that this node drives: one for each front of its volume, behind a gate of its own (decision 020).
//
// Invariants:  - an export is opened after the part's members were taken over, and obeys no epoch of its front below the
//                one that the store holds then: whatever that front was ever served under is known by that time
//              - none is open while the part is not served from here

import { isEngineError } from '../engine/engine.js';
import { nqns } from '../model/keys.js';
import type { Address, VolumeObject } from '../model/objects.js';
import { slotName } from './assembly.js';
import type { ClusterLink } from './cluster-link.js';
import type { AgentContext } from './context.js';
import { listenAddress } from './listener.js';
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
  readonly address: Address;
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

  /** Those that are missing are opened, and whoever is a controller of the volume is let in. */
  open(): Promise<void> {
    const { clock } = this.#options.context;
    return withDeadline(clock, openTimeoutMs, async (signal) => {
      const volume = this.#options.link.state.get('volumes', this.#options.part.partOf ?? '');
      for (const front of volume?.fronts ?? []) {
        if (!this.#open.has(front)) await this.#openFor(front, signal);
        if (this.#open.has(front)) await this.#admit(front, volume?.controllers ?? [], signal);
      }
    });
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
    const { context, link, part, partLink, address, incarnation } = this.#options;
    const { engine } = context;
    await partLink.ensure(address, signal);
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
      await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: listenAddress(address) });
      signal.throwIfAborted();
    } catch (error) {
      await this.#delete(front);
      throw error;
    }
    this.#open.set(front, new Set());
  }

  async #admit(front: string, controllers: readonly string[], signal: AbortSignal): Promise<void> {
    const { context, link, part } = this.#options;
    const { engine, identity = noIdentity } = context;
    const nqn = nqns.partExport(part.id, front);
    const present = this.#open.get(front) ?? new Set<string>();
    const holder = link.state.get('leaderships', front)?.controller ?? null;
    const names = new Set([...controllers, ...(holder === null ? [] : [holder])]);
    const wanted = new Set([...names].flatMap((name) => identity.hostNqns(frontName(name))));
    for (const host of wanted) {
      signal.throwIfAborted();
      if (present.has(host)) continue;
      await identity.admit(engine, { nqn, host });
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
