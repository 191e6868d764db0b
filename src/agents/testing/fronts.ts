// SPDX-License-Identifier: Apache-2.0
//
// Volumes with several active controllers, as hosts of one front see them: through its slot, at the node that serves it.

import type { BdevHandle } from '../../engine/engine.js';
import { systemClock } from '../../env/clock.js';
import type { VolumeView } from '../../model/api.js';
import { slotName } from '../assembly.js';
import type { ClusterBed } from './cluster-bed.js';

/** Hosts try again on a path that says it is inaccessible; so does a read, until the front is served. */
const servedAgainMs = 10_000;

export const frontId = (view: VolumeView, index: number): string => view.fronts?.[index]?.nqn.split(':').at(-1) ?? '';

/** Each front has a controller of its own. */
export function isSpread(view: VolumeView): boolean {
  const fronts = view.fronts?.map(({ controller }) => controller) ?? [];
  return fronts.every((name) => name !== null) && new Set(fronts).size === fronts.length;
}

/** `node`: another one than serves it now. */
export async function onFront<T>(
  bed: ClusterBed,
  view: VolumeView,
  at: { front: number; node?: string },
  act: (handle: BdevHandle) => Promise<T>,
): Promise<T> {
  const node = at.node ?? view.fronts?.[at.front]?.controller ?? '';
  const handle = await bed.node(node).engine.openBdev(slotName(frontId(view, at.front)));
  try {
    return await act(handle);
  } finally {
    await handle.close();
  }
}

export function writeByFront(
  bed: ClusterBed,
  view: VolumeView,
  at: { front: number; block: number; fill: number; node?: string },
): Promise<void> {
  return onFront(bed, view, at, (handle) => handle.write(at.block * 4096, new Uint8Array(4096).fill(at.fill)));
}

export async function readByFront(
  bed: ClusterBed,
  volume: string,
  at: { front: number; block: number },
): Promise<number> {
  const endMs = systemClock.now() + servedAgainMs;
  for (;;) {
    const into = new Uint8Array(4096);
    try {
      await onFront(bed, await bed.view(volume), at, (handle) => handle.read(at.block * 4096, into));
      return into[0] ?? -1;
    } catch (error) {
      if (systemClock.now() > endMs) throw error;
      await systemClock.sleep(20);
    }
  }
}
