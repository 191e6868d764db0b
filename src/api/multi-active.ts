// SPDX-License-Identifier: Apache-2.0
//
// Making and deleting volumes with several active controllers (decision 020): the parts, and what their fronts begin with.

import type { Random } from '../env/random.js';
import type { VolumeCreateRequest } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import { asPart, firstFrontLeadership, partSizeBytes, whyNotDivided } from '../reconcile/parts.js';
import type { Change, Condition } from '../store/store.js';

export interface MultiActiveWish {
  readonly request: VolumeCreateRequest;
  readonly active: number;
  readonly legs: number;
  readonly stripeSizeBytes: number;
  readonly controllers: readonly string[];
  readonly leaseMs: number;
}

/** Draws a volume as it would be drawn alone, in a cluster that looks like this. */
export type DrawVolume = (state: ClusterState, request: VolumeCreateRequest) => VolumeObject;

export interface DrawnParts {
  readonly volume: VolumeObject;
  readonly parts: readonly VolumeObject[];
  readonly fronts: readonly Leadership[];
}

/** @throws INVALID_ARGUMENT when it cannot be divided so */
export function drawParts(
  at: { state: ClusterState; random: Random; draw: DrawVolume },
  wish: MultiActiveWish,
): DrawnParts {
  const { request, active, legs, stripeSizeBytes, controllers } = wish;
  const { name, sizeBytes } = request;
  const problem = whyNotDivided({ active, legs, controllers: controllers.length });
  if (problem !== null) throw new BasaltError('INVALID_ARGUMENT', { field: 'active', problem });
  const ids = Array.from({ length: active }, () => at.random.uuid());
  const fronts = ids.map(() => at.random.uuid());
  const volumeId = at.random.uuid();
  const partBytes = partSizeBytes({ sizeBytes, stripeSizeBytes, parts: ids });
  // What one part was promised, the next one does not get.
  const scratch = at.state.copy();
  const parts = ids.map((id, index) => {
    const alone = { ...request, sizeBytes: partBytes, legs: legs / active, controllers: [...controllers] };
    const part = asPart({ ...at.draw(scratch, alone), id }, { volumeId, name, index });
    scratch.apply(keys.volume(id), codecs.volume.encode(part), 0);
    return part;
  });
  const [{ pool: _pool, route: _route, partOf: _partOf, ...first }] = parts as [VolumeObject];
  const made = { id: volumeId, name, sizeBytes, legs: [], controllers: [...controllers], parts: ids, fronts };
  return {
    volume: { ...first, ...made },
    parts,
    fronts: fronts.map((front) => firstFrontLeadership(front, { parts: ids, leaseMs: wish.leaseMs })),
  };
}

export function putsOf({ fronts }: Pick<DrawnParts, 'fronts'>): Change[] {
  return fronts.map((front) => ({
    kind: 'put' as const,
    key: keys.leadership(front.volumeId),
    value: codecs.leadership.encode(front),
  }));
}

/** With the volume go its fronts at once; its parts are deleted as volumes are, by the disk nodes that hold them. */
export function deletionOf(
  state: ClusterState,
  volume: VolumeObject,
  part: (part: VolumeObject, leadership: Leadership | null) => { volume: VolumeObject; leadership: Leadership | null },
): { conditions: Condition[]; changes: Change[] } {
  const conditions: Condition[] = [];
  const changes: Change[] = [{ kind: 'delete', key: keys.volume(volume.id) }];
  for (const front of volume.fronts ?? [])
    for (const key of [keys.leadership(front), keys.handOver(front)]) changes.push({ kind: 'delete', key });
  for (const id of volume.parts ?? []) {
    const stored = state.stored('volumes', id);
    const led = state.stored('leaderships', id);
    if (stored === null) continue;
    const next = part(stored.value, led?.value ?? null);
    changes.push({ kind: 'delete', key: keys.handOver(id) });
    conditions.push({ key: stored.key, modRevision: stored.revision });
    changes.push({ kind: 'put', key: stored.key, value: codecs.volume.encode(next.volume) });
    if (led === null || next.leadership === null) continue;
    conditions.push({ key: led.key, modRevision: led.revision });
    changes.push({ kind: 'put', key: led.key, value: codecs.leadership.encode(next.leadership) });
  }
  return { conditions, changes };
}
