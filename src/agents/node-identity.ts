// SPDX-License-Identifier: Apache-2.0
//
// How a node proves to other nodes that it is one: DH-HMAC-CHAP in both directions on every queue between a controller
// and a replica, with secrets derived from the node key.
//
// The secrets are 256 random bits, which nobody finds by trying, so the exchange does without Diffie-Hellman (the NULL
// group): it is part of every takeover, and must cost nothing that a host would feel. At a port for TLS each connection
// begins with a key that is derived in the same way.
//
// Invariants:  - a controller that authenticates goes by a name that says with which key: replicas admit it under each of
//                their keys, and under no name without one
//              - nobody falls back to doing without

import type { AuthenticationPolicy, KeyNames } from '../engine/descriptions.js';
import type { Engine } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import { nqns } from '../model/keys.js';
import type { NodeKey, NodeKeyRing } from '../model/node-key.js';
import { Signer } from '../model/signer.js';

/** What a controller shows a replica. */
export type Credentials = { readonly hostnqn: string } & KeyNames & AuthenticationPolicy;

/** How one connects there: an address of a node is one. */
export interface PortKind {
  readonly secure?: boolean | undefined;
}

export interface Admission extends PortKind {
  readonly nqn: string;
  readonly host: string;
}

/** What replicas and controllers need of it; `noIdentity` where nodes do not authenticate. */
export interface Identity {
  /** The names that a controller may have towards replicas. */
  hostNqns(controller: string): string[];
  /** A replica's subsystem admits a controller under one of those names. */
  admit(engine: Engine, at: Admission): Promise<void>;
  /** For a port of that kind. @throws NODE_KEY_FILE where it takes TLS, and there is no node key */
  credentials(engine: Engine, controller: string, port: PortKind): Promise<Credentials>;
  /** For what nodes leave on disks. */
  readonly signer: Signer;
}

export const noIdentity: Identity = Object.freeze({
  hostNqns: (controller: string) => [nqns.controller(controller)],
  admit: async (engine: Engine, { nqn, host }: Admission) => {
    await engine.rpc('nvmf_subsystem_add_host', { nqn, host });
  },
  credentials: async (_: Engine, controller: string, port: PortKind) => {
    if (port.secure)
      throw new BasaltError('NODE_KEY_FILE', { path: 'none', problem: 'nodes of this cluster have one' });
    return { hostnqn: nqns.controller(controller) };
  },
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

  async admit(engine: Engine, { nqn, host, secure = false }: Admission): Promise<void> {
    const key = this.#ring.keys.find((each) => host.endsWith(`:${each.id}`));
    if (key === undefined) throw new Error(`${host} is no name of a controller with a key of this node`);
    const names = await this.#addSecrets(engine, key, { hostnqn: host, secure });
    try {
      await engine.rpc('nvmf_subsystem_add_host', { nqn, host, ...names });
    } finally {
      // The subsystem keeps what it was given.
      for (const name of Object.values(names)) await engine.rpc('basalt_keyring_remove_key', { name });
    }
  }

  credentials(engine: Engine, controller: string, { secure = false }: PortKind): Promise<Credentials> {
    const ofEngine = this.#known.get(engine) ?? new Map<string, Promise<Credentials>>();
    this.#known.set(engine, ofEngine);
    const name = `${controller}${secure ? ' by TLS' : ''}`;
    const known = ofEngine.get(name);
    if (known !== undefined) return known;
    const made = this.#newCredentials(engine, controller, secure);
    ofEngine.set(name, made);
    // The next one tries again.
    made.catch(() => ofEngine.delete(name));
    return made;
  }

  async #newCredentials(engine: Engine, controller: string, secure: boolean): Promise<Credentials> {
    const key = this.#ring.newest;
    const hostnqn = nqns.controller(controller, key.id);
    return { hostnqn, ...(await this.#addSecrets(engine, key, { hostnqn, secure })), ...policy };
  }

  async #addSecrets(engine: Engine, key: NodeKey, of: { hostnqn: string; secure: boolean }): Promise<KeyNames> {
    const { hostnqn, secure } = of;
    const sequence = `node-${key.id}-${++this.#sequence}`;
    const secrets = {
      dhchap_key: key.secretOf('controller', hostnqn),
      dhchap_ctrlr_key: key.secretOf('replica', hostnqn),
      ...(secure ? { psk: key.pskOf(hostnqn) } : {}),
    };
    const names: KeyNames = {};
    for (const [field, secret] of Object.entries(secrets) as [keyof KeyNames, string][]) {
      const name = `${sequence}-${field}`;
      await engine.rpc('basalt_keyring_add_key', { name, secret });
      names[field] = name;
    }
    return names;
  }
}

const policy: Required<AuthenticationPolicy> = { dhchap_digests: ['sha256'], dhchap_dhgroups: ['null'] };
