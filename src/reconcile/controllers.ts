// SPDX-License-Identifier: Apache-2.0
//
// Which nodes may serve a volume, and which ids each of them hands out to hosts.
//
// Invariants:  - no two controllers of a volume share a range of controller ids, also while one leaves and another comes
//              - a controller that stays keeps its range: hosts are connected under it

import type { ClusterState } from '../model/cluster-state.js';
import { controllersPerVolumeMax } from '../model/keys.js';
import type { VolumeObject } from '../model/objects.js';

type Controllers = Pick<VolumeObject, 'controllers' | 'controllerSlots'>;

function slotsOf(volume: Controllers): number[] {
  return volume.controllers.map((_, index) => volume.controllerSlots?.[index] ?? index);
}

/** The number of the node's range; 0 for a node that is none of them. */
export function controllerSlot(volume: Controllers, node: string): number {
  return slotsOf(volume)[volume.controllers.indexOf(node)] ?? 0;
}

/** With the node as the last choice; null: it cannot have more. */
export function withController(volume: VolumeObject, node: string): VolumeObject | null {
  if (volume.controllers.includes(node)) return volume;
  if (volume.controllers.length >= controllersPerVolumeMax) return null;
  const slots = slotsOf(volume);
  // Not one that was given up lately: hosts may still be connected under it.
  let slot = (Math.max(-1, ...slots) + 1) % controllersPerVolumeMax;
  while (slots.includes(slot)) slot = (slot + 1) % controllersPerVolumeMax;
  return { ...volume, controllers: [...volume.controllers, node], controllerSlots: [...slots, slot] };
}

export function withoutController(volume: VolumeObject, node: string): VolumeObject {
  const slots = slotsOf(volume);
  const stays = volume.controllers.map((name) => name !== node);
  return {
    ...volume,
    controllers: volume.controllers.filter((_, index) => stays[index]),
    controllerSlots: slots.filter((_, index) => stays[index]),
  };
}

/** Controller nodes that can take on volumes, the least loaded first. */
export function controllerNodes(state: ClusterState): string[] {
  const load = new Map<string, number>();
  for (const volume of state.all('volumes'))
    for (const name of volume.controllers) load.set(name, (load.get(name) ?? 0) + 1);
  return state
    .all('nodes')
    .filter(({ name, roles }) => roles.includes('controller') && state.get('lives', name)?.draining === false)
    .map(({ name }) => name)
    .filter((name) => state.get('cordons', `node/${name}`) === null)
    .sort((a, b) => (load.get(a) ?? 0) - (load.get(b) ?? 0) || (a < b ? -1 : 1));
}
