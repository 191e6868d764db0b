// SPDX-License-Identifier: Apache-2.0
//
// Whether another node has gone on with a volume that was granted to it, as far as the store tells.

import type { ClusterLink } from './cluster-link.js';

export interface Followed {
  readonly volumeId: string;
  readonly to: string;
  /** The one that was granted. */
  readonly epoch: number;
}

/** Resolves true when it serves, or the volume has changed hands again; false when the signal aborts before. */
export function followed(link: ClusterLink, at: Followed, signal: AbortSignal): Promise<boolean> {
  const has = (): boolean => {
    const leadership = link.state.get('leaderships', at.volumeId);
    if (leadership !== null && leadership.epoch > at.epoch) return true;
    const seen = link.state.get('observedVolumes', `${at.volumeId}/${at.to}`);
    return seen?.state === 'active' && seen.epoch >= at.epoch;
  };
  return new Promise((resolve) => {
    const end = (found: boolean): void => {
      stop();
      signal.removeEventListener('abort', aborted);
      resolve(found);
    };
    const aborted = (): void => end(has());
    const stop = link.onChange(() => {
      if (has()) end(true);
    });
    signal.addEventListener('abort', aborted, { once: true });
    if (has() || signal.aborted) aborted();
  });
}
