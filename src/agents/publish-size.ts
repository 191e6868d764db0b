// SPDX-License-Identifier: Apache-2.0

import { codecs } from '../model/objects.js';
import { planGrown } from '../reconcile/growth.js';
import { planWholeGrown, whyNotGrown } from '../reconcile/whole-growth.js';
import type { ClusterLink } from './cluster-link.js';

/**
 * Puts the size that is served now into the volume's object: what is read by those who do not drive it.
 * @throws when the object changed meanwhile: to be tried again
 */
export async function publishSize(
  link: ClusterLink,
  volumeId: string,
  at: { servedBytes: number; signal: AbortSignal },
): Promise<void> {
  const stored = link.state.stored('volumes', volumeId);
  const grown = stored === null ? null : planGrown(stored.value, at.servedBytes);
  if (stored === null || grown === null) return;
  const expect = [{ key: stored.key, revision: stored.revision }];
  const done = await link.commit({ expect, put: [{ key: stored.key, text: codecs.volume.encode(grown) }] }, at.signal);
  if (!done) throw new Error(`volume ${grown.name} changed meanwhile`);
}

/**
 * The same of a front: the volume is as large as its smallest front, and the last one to grow says so.
 * @throws when others have to grow yet, or the object changed meanwhile: to be tried again
 */
export async function publishWholeSize(
  link: ClusterLink,
  volumeId: string,
  at: { servedBytes: number; signal: AbortSignal },
): Promise<void> {
  const { state } = link;
  const stored = state.stored('volumes', volumeId);
  if (stored === null || stored.value.sizeBytes >= at.servedBytes) return;
  const waits = whyNotGrown(state, stored.value, at.servedBytes);
  if (waits !== null) throw new Error(waits);
  const grown = planWholeGrown(state, stored.value, at.servedBytes);
  const expect = [{ key: stored.key, revision: stored.revision }];
  const done = await link.commit({ expect, put: [{ key: stored.key, text: codecs.volume.encode(grown) }] }, at.signal);
  if (!done) throw new Error(`volume ${grown.name} changed meanwhile`);
}
