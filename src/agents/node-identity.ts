// SPDX-License-Identifier: Apache-2.0
//
// How a node proves to other nodes that it is one: DH-HMAC-CHAP in both directions on every queue between a controller
// and a replica, with secrets derived from the node key.
//
// The secrets are 256 random bits, which nobody finds by trying, so the exchange does without Diffie-Hellman (the NULL
// group): it is part of every takeover, and must cost nothing that a host would feel.
//
// Invariants:  - a controller that authenticates goes by a name that says with which key: replicas admit it under each of
//                their keys, and under no name without one
//              - nobody falls back to doing without

import type { AuthenticationPolicy, KeyNames } from '../engine/descriptions.js';
import type { Engine } from '../engine/engine.js';
import { nqns } from '../model/keys.js';
import type { NodeKey, NodeKeyRing } from '../model/node-key.js';
import { Signer } from '../model/signer.js';

/** What a controller shows a replica. */
export type Credentials = { readonly hostnqn: string } & KeyNames & AuthenticationPolicy;

/** What replicas and controllers need of it; `noIdentity` where nodes do not authenticate. */
export interface Identity {
  /** The names that a controller may have towards replicas. */
  hostNqns(controller: string): string[];
  /** A replica's subsystem admits a controller under one of those names. */
  admit(engine: Engine, at: { nqn: string; host: string }): Promise<void>;
  credentials(engine: Engine, controller: string): Promise<Credentials>;
  /** For what nodes leave on disks. */
  readonly signer: Signer;
}

export const noIdentity: Identity = Object.freeze({
  hostNqns: (controller: string) => [nqns.controller(controller)],
  admit: async (engine: Engine, at: { nqn: string; host: string }) => {
    await engine.rpc('nvmf_subsystem_add_host', at);
  },
  credentials: (_: Engine, controller: string) => Promise.resolve({ hostnqn: nqns.controller(controller) }),
  signer: new Signer(null),
});

export class NodeIdentity implements Identity {
  readonly signer: Signer;
  readonly #ring: NodeKeyRing;
  /** By engine and controller: their secrets are in the engine's keyring from then on. */
  readonly #known = new WeakMap<Engine, Map<string, Promise<Credentials>>>();
  #sequence = 0;

  constructor(ring: NodeKeyRing) {
    this.#ring = ring;
    this.signer = new Signer(ring);
  }

  hostNqns(controller: string): string[] {
    return this.#ring.keys.map((key) => nqns.controller(controller, key.id));
  }

  async admit(engine: Engine, { nqn, host }: { nqn: string; host: string }): Promise<void> {
    const key = this.#ring.keys.find((each) => host.endsWith(`:${each.id}`));
    if (key === undefined) throw new Error(`${host} is no name of a controller with a key of this node`);
    const names = await this.#addSecrets(engine, key, host);
    try {
      await engine.rpc('nvmf_subsystem_add_host', { nqn, host, ...names });
    } finally {
      // The subsystem keeps what it was given.
      for (const name of Object.values(names)) await engine.rpc('basalt_keyring_remove_key', { name });
    }
  }

  credentials(engine: Engine, controller: string): Promise<Credentials> {
    const ofEngine = this.#known.get(engine) ?? new Map<string, Promise<Credentials>>();
    this.#known.set(engine, ofEngine);
    const known = ofEngine.get(controller);
    if (known !== undefined) return known;
    const made = this.#newCredentials(engine, controller);
    ofEngine.set(controller, made);
    // The next one tries again.
    made.catch(() => ofEngine.delete(controller));
    return made;
  }

  async #newCredentials(engine: Engine, controller: string): Promise<Credentials> {
    const key = this.#ring.newest;
    const hostnqn = nqns.controller(controller, key.id);
    return { hostnqn, ...(await this.#addSecrets(engine, key, hostnqn)), ...policy };
  }

  async #addSecrets(engine: Engine, key: NodeKey, hostnqn: string): Promise<Required<Omit<KeyNames, 'psk'>>> {
    const name = `node-${key.id}-${++this.#sequence}`;
    const names = { dhchap_key: `${name}-controller`, dhchap_ctrlr_key: `${name}-replica` };
    await engine.rpc('basalt_keyring_add_key', {
      name: names.dhchap_key,
      secret: key.secretOf('controller', hostnqn),
    });
    await engine.rpc('basalt_keyring_add_key', {
      name: names.dhchap_ctrlr_key,
      secret: key.secretOf('replica', hostnqn),
    });
    return names;
  }
}

const policy: Required<AuthenticationPolicy> = { dhchap_digests: ['sha256'], dhchap_dhgroups: ['null'] };
