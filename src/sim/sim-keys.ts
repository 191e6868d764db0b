// SPDX-License-Identifier: Apache-2.0
//
// The cluster's keys in a simulated cluster, in one file that every node reads, and somebody who changes the cluster key
// while everything else goes wrong.
//
// Rules:  - in the end every encrypted volume is wrapped by the key that the store names, and served
//         - what a change was asked for is answered

import { rotateClusterKey } from '../api/encryption.js';
import type { EncryptionDeps, KeyStore } from '../api/wrapping-key.js';
import type { SeededRandom } from '../env/seeded-random.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import { ClusterKey, clusterKeyBytes, KeyRing, unwrapDataKey } from '../model/cluster-key.js';
import type { ClusterState } from '../model/cluster-state.js';
import type { VolumeObject } from '../model/objects.js';
import { askUntilAnswered } from './asking.js';
import type { RareEvents } from './rare-events.js';

export class SimKeys implements KeyStore {
  readonly #random: SeededRandom;
  #ring: KeyRing;
  #isChanging = false;

  constructor(random: SeededRandom) {
    this.#random = random;
    this.#ring = new KeyRing([this.#draw()]);
  }

  #draw(): ClusterKey {
    return new ClusterKey(this.#random.bytes(clusterKeyBytes));
  }

  ring(): Promise<KeyRing> {
    return Promise.resolve(this.#ring);
  }

  add(): Promise<ClusterKey> {
    const key = this.#draw();
    this.#ring = new KeyRing([...this.#ring.keys, key]);
    return Promise.resolve(key);
  }

  remove(ids: ReadonlySet<string>): Promise<void> {
    this.#ring = new KeyRing(this.#ring.keys.filter(({ id }) => !ids.has(id)));
    return Promise.resolve();
  }

  /** One change after the other. */
  get isChanging(): boolean {
    return this.#isChanging;
  }

  change(deps: EncryptionDeps, clock: Pick<VirtualClock, 'sleep'>, rareEvents: RareEvents): void {
    this.#isChanging = true;
    void askUntilAnswered(clock, {}, async () => {
      await rotateClusterKey(deps);
      rareEvents.reach('cluster_key_changed');
    }).then(() => {
      this.#isChanging = false;
    });
  }

  unrest(state: ClusterState): string | null {
    if (this.#isChanging) return 'no answer about the cluster key';
    const current = state.get('clusterKeys', 'current')?.keyId ?? null;
    // A volume that was made of another one while that was wrapped anew keeps its key until the next change.
    const held = new Set(this.#ring.keys.map(({ id }) => id));
    const lost = state.all('volumes').find(({ encryption }) => encryption !== undefined && !held.has(encryption.keyId));
    if (lost !== undefined) return `volume ${lost.name} needs a cluster key that nobody has`;
    return current === null || held.has(current) ? null : `nobody has the cluster key ${current}`;
  }

  /** @throws CLUSTER_KEY_MISSING, VOLUME_KEY_DAMAGED */
  dataKeyOf({ id, name, encryption }: VolumeObject): Buffer {
    if (encryption === undefined) throw new Error(`volume ${name} is not encrypted`);
    return unwrapDataKey(this.#ring, { id, name, encryption });
  }
}
