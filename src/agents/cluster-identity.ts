// SPDX-License-Identifier: Apache-2.0
//
// The cluster's id: drawn by whoever comes first, the same for everyone ever after.

import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion } from '../model/objects.js';
import { compareAndSwap, type Store } from '../store/store.js';
import { type Logger, RateLimitedLog, reason } from './context.js';
import { Backoff } from './signal.js';

export async function ensureCluster(
  store: Store,
  world: { clock: Clock; random: Random; log: Logger },
  signal: AbortSignal,
): Promise<string> {
  const backoff = new Backoff({ clock: world.clock, minMs: 50, maxMs: 1_000 });
  const log = new RateLimitedLog(world.log, world.clock);
  for (;;) {
    try {
      const { entry } = await store.get(keys.cluster, { signal });
      if (entry !== null) return codecs.cluster.decode(entry.value.toString(), keys.cluster).id;
      const value = codecs.cluster.encode({
        format: formatVersion,
        id: world.random.uuid(),
        createdAtMs: Math.floor(world.clock.wallMs()),
      });
      // Whatever came of it, the next reading tells.
      await compareAndSwap(store, { key: keys.cluster, modRevision: 0, value }, { signal });
    } catch (error) {
      signal.throwIfAborted();
      log.warn('cluster', { error: reason(error) }, 'store cannot be asked for the cluster; trying on');
      await backoff.wait(signal);
    }
  }
}
