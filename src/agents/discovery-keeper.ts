// SPDX-License-Identifier: Apache-2.0
//
// What discovery on a controller node names beside its own volumes: the discovery services of the other controller nodes,
// so that a host that knows one node finds all of them. They are named to the hosts of the cluster only, which this node's
// engine is told for that, also where it serves none of their volumes.
//
// Invariants:  - hosts that are connected hear of each change; one that changes nothing is no news to them
//              - a host is sent from plain listeners to plain ones, and from TLS to TLS (the engine's rule)

import type { Referral } from '../engine/descriptions.js';
import type { Engine } from '../engine/engine.js';
import type { ClusterState } from '../model/cluster-state.js';
import { nqns } from '../model/keys.js';
import type { Address } from '../model/objects.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { type AgentContext, RateLimitedLog } from './context.js';
import { listenAddress } from './listener.js';
import { ReconcileLoop } from './reconcile-loop.js';

/** Of the engine. */
export const referralsMax = 256;

export interface DiscoveryKeeperOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
}

export interface Told {
  /** By address and port. */
  readonly referrals: ReadonlyMap<string, Required<Referral>>;
  readonly hosts: ReadonlySet<string>;
}

export interface Telling {
  readonly add: readonly Required<Referral>[];
  readonly remove: readonly Required<Referral>[];
  readonly addHosts: readonly string[];
  readonly removeHosts: readonly string[];
}

const watchedKinds = ['lives', 'volumes', 'observedVolumes'] as const;
/** A host that waits for news can wait so long; a swarm of changes costs a few looks. */
const restMs = 500;

/** What shall be told on `node`. */
export function wantedOf(state: ClusterState, node: string): Told {
  const referrals = new Map<string, Required<Referral>>();
  const name = (address: Address, secure: boolean): void => {
    const { traddr, trsvcid } = address;
    if (referrals.size < referralsMax)
      referrals.set(`${traddr} ${trsvcid}`, { address: listenAddress({ traddr, trsvcid }), secure_channel: secure });
  };
  const others = state
    .all('lives')
    .filter((live) => live.name !== node && live.kind === 'node' && live.hosts !== null)
    .sort((one, other) => (one.name < other.name ? -1 : 1));
  for (const { hosts } of others) if (hosts !== null) name(hosts, hosts.secure === true);
  const names = new Set(others.map((live) => live.name));
  for (const { node: at, tlsAddress } of state.all('observedVolumes'))
    if (tlsAddress !== undefined && names.has(at)) name(tlsAddress, true);
  return { referrals, hosts: new Set(state.all('volumes').flatMap((volume) => volume.hosts)) };
}

export function planTelling(wanted: Told, told: Told): Telling {
  const same = (key: string, referral: Referral): boolean =>
    told.referrals.get(key)?.secure_channel === referral.secure_channel;
  const kept = (key: string, referral: Referral): boolean =>
    wanted.referrals.get(key)?.secure_channel === referral.secure_channel;
  return {
    add: [...wanted.referrals].filter(([key, referral]) => !same(key, referral)).map(([, referral]) => referral),
    remove: [...told.referrals].filter(([key, referral]) => !kept(key, referral)).map(([, referral]) => referral),
    addHosts: [...wanted.hosts].filter((host) => !told.hosts.has(host)),
    removeHosts: [...told.hosts].filter((host) => !wanted.hosts.has(host)),
  };
}

export class DiscoveryKeeper {
  readonly #options: DiscoveryKeeperOptions;
  readonly #loop: ReconcileLoop;
  readonly #told = { referrals: new Map<string, Required<Referral>>(), hosts: new Set<string>() };
  #unsubscribe: (() => void) | null = null;

  constructor(options: DiscoveryKeeperOptions) {
    this.#options = options;
    const { clock, log } = options.context;
    this.#loop = new ReconcileLoop({
      name: 'discovery keeper',
      clock,
      log: new RateLimitedLog(log, clock),
      pass: () => this.#pass(),
      restMs,
    });
  }

  start(): void {
    this.#unsubscribe = onChangeOf(this.#options.link, watchedKinds, () => this.#loop.wake());
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
  }

  async #pass(): Promise<void> {
    const { link, node, context } = this.#options;
    const { add, remove, addHosts, removeHosts } = planTelling(wantedOf(link.state, node), this.#told);
    const { engine } = context;
    for (const referral of remove) {
      await engine.rpc('nvmf_discovery_remove_referral', referral);
      this.#told.referrals.delete(keyOf(referral));
    }
    for (const referral of add) {
      await engine.rpc('nvmf_discovery_add_referral', referral);
      this.#told.referrals.set(keyOf(referral), referral);
    }
    await this.#tellHosts(engine, addHosts, removeHosts);
  }

  async #tellHosts(engine: Engine, add: readonly string[], remove: readonly string[]): Promise<void> {
    const nqn = nqns.discovery;
    for (const host of remove) {
      await engine.rpc('nvmf_subsystem_remove_host', { nqn, host });
      this.#told.hosts.delete(host);
    }
    for (const host of add) {
      await engine.rpc('nvmf_subsystem_add_host', { nqn, host });
      this.#told.hosts.add(host);
    }
  }
}

function keyOf({ address }: Referral): string {
  return `${address.traddr} ${address.trsvcid}`;
}
