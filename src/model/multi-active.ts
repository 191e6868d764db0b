// SPDX-License-Identifier: Apache-2.0
//
// Volumes with several active controllers (decision 020): parts, which are volumes of their own, and fronts, which are
// driven like volumes and stand on exports of the parts.
//
// Invariants:  - a host belongs to one front for as long as the volume is there, also while it is detached
//              - no two hosts are let in by different fronts when one of them has come after the other one was detached, and
//                its front may have something of it yet
//              - part i and front i prefer the same controller, and no two parts do while there are enough of them

import { createHash } from 'node:crypto';
import { BasaltError } from './errors.js';
import type { VolumeObject } from './objects.js';

/** What a controller drives: a volume, a part, or a front, which is stored nowhere as such. */
export interface DrivenVolume extends VolumeObject {
  readonly front?: { readonly volumeId: string; readonly index: number };
}

export const activeMax = 8;

/** By which a front's leadership names the export of a part. */
export function exportId(partId: string, frontId: string): string {
  const hex = createHash('sha256').update(`${partId} ${frontId}`).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join('-');
}

/** Beginning at `first`, in the same order. */
export function rotated<T>(values: readonly T[], first: number): T[] {
  const at = values.length === 0 ? 0 : first % values.length;
  return [...values.slice(at), ...values.slice(0, at)];
}

/** Of a volume that has fronts; none: it is driven itself. */
export function frontsOf(volume: VolumeObject, partSizeBytes: (volume: VolumeObject) => number): DrivenVolume[] {
  const { parts = [], fronts = [] } = volume;
  return fronts.map((id, index) => {
    const { pool: _pool, route: _route, erasure: _erasure, checksums: _checksums, ...common } = volume;
    const { encryption } = volume;
    const { parts: _parts, fronts: _fronts, hostFronts: _hostFronts, ...plain } = common;
    const slots = volume.controllers.map((_, at) => volume.controllerSlots?.[at] ?? at);
    return {
      ...plain,
      id,
      name: `${volume.name}/front${index}`,
      copies: 1,
      // As large as what it stands on: exports have no room for tails, and parts keep marks of their own.
      legSizeBytes: partSizeBytes(volume),
      legs: parts.map((part) => ({ replicas: [{ replica: exportId(part, id), disk: part, node: volume.name }] })),
      controllers: rotated(volume.controllers, index),
      controllerSlots: rotated(slots, index),
      hosts: hostsOfFront(volume, index),
      nbd: [],
      // All fronts have the volume's key: what one wrote, another one reads. Parts have none, and hold what is encrypted.
      ...(encryption === undefined
        ? {}
        : { encryption: { ...encryption, drawnFor: encryption.drawnFor ?? volume.id } }),
      front: { volumeId: volume.id, index },
    };
  });
}

export function hostsOfFront(volume: VolumeObject, front: number): string[] {
  return volume.hosts.filter((host) => frontOf(volume, host) === front);
}

function frontOf(volume: VolumeObject, host: string): number | null {
  return volume.hostFronts?.find((entry) => entry.host === host)?.front ?? null;
}

/** The front's id that a host of the volume finds it by; the volume's own where it has no fronts. */
export function frontIdOf(volume: VolumeObject, host: string): string {
  return volume.fronts?.[frontOf(volume, host) ?? 0] ?? volume.id;
}

/**
 * With these hosts and no others, each with a front: the one that it had once, or the one that the fewest hosts have that are
 * attached now. Who goes leaves its front only when that has let it go (`withoutLeft`).
 * @throws BUSY while a host comes to another front than one that has not let go a host yet: they would be beside each other
 */
export function withHosts(volume: VolumeObject, hosts: readonly string[]): VolumeObject {
  if (volume.fronts === undefined) return { ...volume, hosts: [...hosts] };
  const known = (volume.hostFronts ?? []).map(({ host, front, leaving }) => {
    const goes = !hosts.includes(host) && (leaving === true || volume.hosts.includes(host));
    return { host, front, ...(goes ? { leaving: true as const } : {}) };
  });
  const load = volume.fronts.map(
    (_, index) => known.filter((entry) => entry.front === index && hosts.includes(entry.host)).length,
  );
  for (const host of hosts) {
    if (!known.some((entry) => entry.host === host)) {
      const front = load.indexOf(Math.min(...load));
      load[front] = (load[front] ?? 0) + 1;
      known.push({ host, front });
    }
    if (!volume.hosts.includes(host)) refuseBeside(volume, known, host);
  }
  if (known.length > hostFrontsMax)
    throw new BasaltError('VOLUME_MULTI_ACTIVE', {
      name: volume.name,
      operation: `more than ${hostFrontsMax} hosts, counted over all its life,`,
    });
  return { ...volume, hosts: [...hosts], hostFronts: known };
}

type HostFront = NonNullable<VolumeObject['hostFronts']>[number];

function refuseBeside(volume: VolumeObject, known: readonly HostFront[], host: string): void {
  const front = known.find((entry) => entry.host === host)?.front;
  const before = known.find((entry) => entry.leaving === true && entry.front !== front);
  if (before === undefined) return;
  const detail = `${before.host} was detached, and the controller that serves it has not let it go yet`;
  throw new BasaltError('BUSY', { kind: 'volume', name: volume.name, detail });
}

/** Hosts that were detached, and that this front may have something of yet. */
export function leavingFrom(volume: VolumeObject, front: number): string[] {
  return (volume.hostFronts ?? [])
    .filter((entry) => entry.leaving === true && entry.front === front)
    .map((e) => e.host);
}

/** With the hosts let go. */
export function withoutLeft(volume: VolumeObject, left: readonly string[]): VolumeObject {
  const hostFronts = volume.hostFronts?.map((entry) =>
    left.includes(entry.host) ? { host: entry.host, front: entry.front } : entry,
  );
  return hostFronts === undefined ? volume : { ...volume, hostFronts };
}

/** In one object of the store, which is bounded. */
const hostFrontsMax = 1024;

/** @throws VOLUME_MULTI_ACTIVE for a volume with several active controllers, and for the parts of one */
export function refuseMultiActive(volume: VolumeObject, operation: string): void {
  if (volume.parts === undefined && volume.partOf === undefined) return;
  throw new BasaltError('VOLUME_MULTI_ACTIVE', { name: volume.name, operation });
}
