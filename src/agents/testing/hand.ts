// SPDX-License-Identifier: Apache-2.0
//
// Controllers of the volume v1 that a test drives by hand, beside a bed's disk nodes and store.

import type { Engine } from '../../engine/engine.js';
import { FakeEngine } from '../../engine/fake/fake-engine.js';
import { systemClock } from '../../env/clock.js';
import { systemRandom } from '../../env/random.js';
import { keys } from '../../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../../model/objects.js';
import type { Store } from '../../store/store.js';
import { replicaResolver } from '../controller-agent.js';
import { StoreLink } from '../store-link.js';
import { VolumeController } from '../volume-controller.js';
import { bedTiming, type ClusterBed, quietLog } from './cluster-bed.js';

export interface Hand {
  readonly controller: VolumeController;
  readonly engine: FakeEngine;
  readonly slot: string;
}

/** What stands between a controller and its engine, its store. */
export interface HandWraps {
  readonly engine?: (engine: FakeEngine) => Engine;
  readonly store?: (store: Store) => Store;
}

export class Hands {
  readonly #bed: ClusterBed;
  readonly #links: StoreLink[] = [];

  constructor(bed: ClusterBed) {
    this.#bed = bed;
  }

  /** A controller that does nothing by itself. */
  async start(name: string, wraps: HandWraps = {}): Promise<Hand> {
    const engine = new FakeEngine(name, this.#bed.network);
    const store = this.#bed.connect();
    const link = new StoreLink({
      store: wraps.store?.(store) ?? store,
      clock: systemClock,
      log: quietLog,
      leaseTtlSeconds: 2,
    });
    this.#links.push(link);
    await link.open(AbortSignal.timeout(5_000));
    const volume = link.state.volumeByName('v1');
    if (volume === null) throw new Error('no volume');
    const controller = new VolumeController({
      context: { engine: wraps.engine?.(engine) ?? engine, clock: systemClock, random: systemRandom, log: quietLog },
      volume,
      name,
      leadership: link.leadership(volume.id),
      resolve: replicaResolver(link),
      publishSize: async () => {},
      onServing: async () => {},
      onChange: () => {},
      timing: bedTiming,
    });
    return { controller, engine, slot: `slot-${volume.id}` };
  }

  volume(): VolumeObject {
    const [entry] = this.#bed.server.list(keys.volumes);
    if (entry === undefined) throw new Error('no volume');
    return codecs.volume.decode(entry.value.toString(), entry.key);
  }

  /** The only one of the store. */
  leadership(): Leadership {
    const [entry] = this.#bed.server.list(keys.leaderships);
    if (entry === undefined) throw new Error('no leadership');
    return codecs.leadership.decode(entry.value.toString(), entry.key);
  }

  async close(): Promise<void> {
    for (const link of this.#links) await link.close();
  }
}

export async function write(at: Hand, block: number, fill: number): Promise<void> {
  const handle = await at.engine.openBdev(at.slot);
  try {
    await handle.write(block * 4096, new Uint8Array(4096).fill(fill));
  } finally {
    await handle.close();
  }
}
