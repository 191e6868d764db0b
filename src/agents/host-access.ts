// SPDX-License-Identifier: Apache-2.0
//
// Who may connect to a volume on this node, and how they prove who they are: keys of hosts out of the store, unwrapped
// for as long as it takes to hand them to the engine, and the listener of those that come by TLS.
//
// Invariants:  - a host whose keys cannot be had is not admitted; one that was admitted keeps the keys that it had
//              - a key stands in the engine's keyring only while a host gets it

import type { KeyNames } from '../engine/descriptions.js';
import type { Engine } from '../engine/engine.js';
import type { KeySource } from '../model/cluster-key.js';
import { BasaltError } from '../model/errors.js';
import { type HostKeyKind, hostKeyKinds, unwrapHostKeys } from '../model/hosts.js';
import { keys, nqns } from '../model/keys.js';
import type { Address, VolumeObject } from '../model/objects.js';
import { type HostWish, unreadableKeys } from '../reconcile/exports.js';
import type { ClusterLink } from './cluster-link.js';
import { listenAddress } from './listener.js';

export interface HostAccessOptions {
  readonly engine: Engine;
  readonly link: ClusterLink;
  readonly keys: KeySource | null;
  /** Makes the port to which hosts come by TLS, of discovery at first, and says where it is. @throws BUSY */
  readonly openTls: () => Promise<Address>;
  /** None comes in another way. */
  readonly tlsOnly: boolean;
}

/** What the engine's methods call it. */
const fields: Record<HostKeyKind, keyof KeyNames> = {
  dhchapKey: 'dhchap_key',
  dhchapCtrlrKey: 'dhchap_ctrlr_key',
  tlsPsk: 'psk',
};

export class HostAccess {
  readonly #options: HostAccessOptions;
  #tls: Promise<Address> | null = null;
  #tlsAddress: Address | null = null;
  #sequence = 0;

  constructor(options: HostAccessOptions) {
    this.#options = options;
  }

  /** Who is to be let in here. A volume's view says of the others why they are not (`src/api/hosts.ts`). */
  wishes(hosts: readonly string[]): HostWish[] {
    const { link, tlsOnly } = this.#options;
    const { state } = link;
    const wishes = hosts.map((nqn) => {
      if (state.unreadable.has(keys.host(nqn))) return { nqn, version: unreadableKeys, tls: false };
      const host = state.get('hosts', nqn);
      return { nqn, version: host?.version ?? null, tls: host?.tlsPsk !== undefined };
    });
    return wishes.filter(({ tls, version }) => tls || !tlsOnly || version === unreadableKeys);
  }

  /** @throws CLUSTER_KEY_MISSING, CLUSTER_KEY_FILE, HOST_KEY_DAMAGED: then nothing has changed for the host */
  async add(volume: VolumeObject, wish: HostWish): Promise<void> {
    const { engine } = this.#options;
    await this.#withKeys(wish, (names) =>
      engine.rpc('nvmf_subsystem_add_host', { nqn: nqns.volume(volume.id), host: wish.nqn, ...names }),
    );
  }

  /** For the next connections; a key for TLS is changed, but not taken away. @throws as `add` */
  async setKeys(volume: VolumeObject, wish: HostWish): Promise<void> {
    const { engine } = this.#options;
    const at = { nqn: nqns.volume(volume.id), host: wish.nqn };
    await this.#withKeys(wish, async (names) => {
      await engine.rpc('nvmf_subsystem_set_keys', { ...at, ...names });
      // The kind that is not named stays: with a psk alone, what the host authenticated with before.
      if (names.psk !== undefined && names.dhchap_key === undefined) await engine.rpc('nvmf_subsystem_set_keys', at);
    });
  }

  /** Opened when the first host needs it. Where it is; the port is the same for all volumes. @throws BUSY */
  async tlsListener(): Promise<Address> {
    this.#tls ??= this.#options.openTls().catch((error: unknown) => {
      this.#tls = null;
      throw error;
    });
    this.#tlsAddress = await this.#tls;
    return this.#tlsAddress;
  }

  async addTlsListener(volume: VolumeObject): Promise<void> {
    const listen_address = listenAddress(await this.tlsListener());
    const params = { nqn: nqns.volume(volume.id), listen_address, secure_channel: true };
    await this.#options.engine.rpc('nvmf_subsystem_add_listener', params);
  }

  /** Null: it was not needed yet. */
  get tlsAddress(): Address | null {
    return this.#tlsAddress;
  }

  async #withKeys(wish: HostWish, act: (names: KeyNames) => Promise<unknown>): Promise<void> {
    const { engine } = this.#options;
    const host = await this.#hostOf(wish);
    const names: KeyNames = {};
    const added: string[] = [];
    try {
      for (const kind of hostKeyKinds) {
        const secret = host[kind];
        if (secret === undefined) continue;
        const name = `host-${wish.version}-${++this.#sequence}-${kind}`;
        await engine.rpc('basalt_keyring_add_key', { name, secret });
        added.push(name);
        names[fields[kind]] = name;
      }
      await act(names);
    } finally {
      // Whoever was admitted with it keeps it.
      for (const name of added) await engine.rpc('basalt_keyring_remove_key', { name });
    }
  }

  async #hostOf(wish: HostWish): Promise<ReturnType<typeof unwrapHostKeys>> {
    const { link, keys: source } = this.#options;
    if (wish.version === null) return {};
    const host = link.state.get('hosts', wish.nqn);
    // It changed since the plan was made: the next one knows.
    if (host === null || host.version !== wish.version) {
      const problem = link.state.unreadable.get(keys.host(wish.nqn)) ?? 'its keys changed meanwhile';
      throw new BasaltError('HOST_NOT_ADMITTED', { nqn: wish.nqn, problem });
    }
    return unwrapHostKeys((await source?.ring()) ?? null, host);
  }
}
