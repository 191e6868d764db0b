// SPDX-License-Identifier: Apache-2.0
//
// What the API shows, made from the objects in the store. Pure.

import type { Static } from 'typebox';
import type { DiskView, NodeView, ReplicaView, VolumeView } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { isUndriven } from '../model/generation.js';
import { nqns } from '../model/keys.js';
import { diskClassDefault } from '../model/location.js';
import { frontsOf } from '../model/multi-active.js';
import type {
  DiskObject,
  GrowingSize,
  Leadership,
  MemberState,
  ObservedVolume,
  VolumeObject,
} from '../model/objects.js';
import { cordonOf } from '../reconcile/cordons.js';
import { volumeSize } from '../reconcile/growth.js';
import { linkOf } from '../reconcile/node-links.js';
import { partSizeBytes } from '../reconcile/parts.js';
import { promisedPerDisk } from '../reconcile/promised.js';
import { wholeSize } from '../reconcile/whole-growth.js';
import { problemOfHosts } from './hosts.js';

export function nodeView(state: ClusterState, name: string): NodeView | null {
  const node = state.get('nodes', name);
  if (node === null) return null;
  const live = state.get('lives', name);
  return {
    name,
    roles: [...node.roles],
    state: live === null ? 'down' : live.draining ? 'draining' : 'up',
    engine: live?.engine ?? null,
    internal: live?.internal ?? null,
    link: live === null ? null : linkOf(state, live),
    hosts: live?.hosts ?? null,
    location: node.location ?? {},
    cordon: state.get('cordons', `node/${name}`)?.mode ?? null,
  };
}

function diskView(state: ClusterState, disk: DiskObject, promised: ReadonlyMap<string, number>): DiskView {
  return {
    id: disk.id,
    node: disk.node,
    path: disk.path,
    state: state.get('lives', disk.node) === null ? 'down' : 'up',
    totalBytes: disk.totalBytes,
    freeBytes: disk.freeBytes,
    promisedBytes: promised.get(disk.id) ?? 0,
    buffered: disk.buffered,
    class: disk.class ?? diskClassDefault,
    tags: disk.tags ?? [],
    weight: disk.weight ?? 1,
    cordon: cordonOf(state, disk),
  };
}

export function diskViews(state: ClusterState): DiskView[] {
  const promised = promisedPerDisk(state);
  return state.all('disks').map((disk) => diskView(state, disk, promised));
}

export function volumeView(state: ClusterState, volume: VolumeObject): VolumeView {
  return volume.parts === undefined ? drivenView(state, volume) : multiActiveView(state, volume);
}

/** What users have made: parts are shown with their volume. */
export function shownVolumes(state: ClusterState): VolumeObject[] {
  return state.all('volumes').filter((volume) => volume.partOf === undefined || volume.phase === 'deleting');
}

/** From the worst to the best. */
const healths = ['unserved', 'degraded', 'resyncing', 'redundant'] as const;

function multiActiveView(state: ClusterState, volume: VolumeObject): VolumeView {
  const parts = (volume.parts ?? [])
    .flatMap((id) => state.get('volumes', id) ?? [])
    .map((part) => drivenView(state, part));
  const fronts = frontsOf(volume, partSizeBytes).map((front) => drivenView(state, front));
  const all = [...parts, ...fronts];
  const legsEach = Math.max(0, ...parts.map((part) => part.legs.length));
  const legs = Array.from({ length: legsEach }, (_, leg) => parts.flatMap((part) => part.legs.slice(leg, leg + 1)));
  const { servedBytes, wantedBytes } = wholeSize(state, volume);
  const waits = [...parts, ...fronts].find(({ growth }) => growth !== null && growth.problem !== null);
  return {
    ...drivenView(state, volume),
    growth: wantedBytes > servedBytes ? { sizeBytes: wantedBytes, problem: waits?.growth?.problem ?? null } : null,
    pool: parts[0]?.pool ?? null,
    phase: all.some(({ phase }) => phase === 'creating') ? 'creating' : 'live',
    health: healths.find((health) => all.some((each) => each.health === health)) ?? 'unserved',
    epoch: Math.max(0, ...all.map(({ epoch }) => epoch)),
    legs: legs.flat(),
    paths: [],
    fronts: fronts.map(({ nqn, hosts, controller, epoch, paths }) => ({ nqn, hosts, controller, epoch, paths })),
    parts: parts.map(({ id, controller, epoch }) => ({ id, controller, epoch })),
  };
}

function drivenView(state: ClusterState, volume: VolumeObject): VolumeView {
  const leadership = state.get('leaderships', volume.id);
  const observed = observedOf(state, volume);
  const active = observed.find((entry) => entry.state === 'active' && entry.epoch === leadership?.epoch) ?? null;
  const legs = volume.legs.map(({ replicas }, leg) =>
    replicas.map(({ replica, disk, node }) => ({
      replica,
      disk,
      node,
      state: memberState(leadership, active, { leg, replica }),
    })),
  );
  const embedded =
    leadership !== null &&
    leadership.controller !== null &&
    state.get('lives', leadership.controller)?.kind === 'embedded';
  const size = volumeSize(volume, leadership);
  return {
    id: volume.id,
    name: volume.name,
    sizeBytes: size.servedBytes,
    growth: size.wantedBytes > size.servedBytes ? growthOf(state, volume, { size, active, embedded }) : null,
    blockSizeBytes: volume.blockSizeBytes,
    stripeSizeBytes: volume.stripeSizeBytes,
    copies: volume.copies,
    ...(volume.erasure === undefined ? {} : { erasure: volume.erasure }),
    pool: volume.pool === undefined ? null : (state.get('pools', volume.pool)?.name ?? null),
    phase: phaseOf(state, volume, leadership),
    health: healthOf(legs, active, embedded),
    nqn: nqns.volume(volume.id),
    epoch: leadership?.epoch ?? 0,
    controller: leadership?.controller ?? null,
    controllers: [...volume.controllers],
    hosts: [...volume.hosts],
    nbd: [...volume.nbd],
    encryptedBy: volume.encryption?.keyId ?? null,
    checksums: volume.checksums === true,
    origin: volume.origin === undefined ? null : `${volume.origin.volume}@${volume.origin.snapshot}`,
    legs,
    paths: observed.map(({ node, state: said, epoch, address, tlsAddress = null, nbd, problem }) => {
      // A controller that was killed has not said so yet: whoever has an older epoch serves nothing.
      const fenced = said === 'active' && epoch !== leadership?.epoch;
      const now = { state: fenced ? ('fenced' as const) : said, nbd: fenced ? [] : nbd };
      return { node, epoch, address, tlsAddress, ...now, problem: problem ?? problemOfHosts(state, volume, node) };
    }),
  };
}

/** By node. Looked up, not searched for: there are as many as volumes times controllers. */
function observedOf(state: ClusterState, volume: VolumeObject): ObservedVolume[] {
  const nodes = new Set([...volume.controllers, ...state.all('lives').map((live) => live.name)]);
  return [...nodes].sort().flatMap((node) => state.get('observedVolumes', `${volume.id}/${node}`) ?? []);
}

/** What a growth waits for, exactly: replicas first, since the controller can only wait for them. */
function growthOf(
  state: ClusterState,
  volume: VolumeObject,
  at: { size: GrowingSize; active: ObservedVolume | null; embedded: boolean },
): VolumeView['growth'] {
  const replicas = volume.legs
    .flatMap((leg) => leg.replicas)
    .flatMap(({ replica, node }) => {
      const problem = state.get('observedReplicas', replica)?.problem;
      return problem === undefined ? [] : [`replica ${replica} on ${node}: ${problem}`];
    });
  const unserved = at.active === null && !at.embedded ? 'no controller serves the volume' : null;
  const problem = replicas.length > 0 ? replicas.join('; ') : (at.active?.growth ?? unserved);
  return { sizeBytes: at.size.wantedBytes, problem };
}

function memberState(
  leadership: Leadership | null,
  active: ObservedVolume | null,
  at: { leg: number; replica: string },
): MemberState {
  const inSync = leadership?.legs[at.leg]?.inSync.some((entry) => entry.replica === at.replica) ?? false;
  if (inSync) return 'in_sync';
  const seen = active?.legs[at.leg]?.find((entry) => entry.replica === at.replica)?.state;
  return seen === 'joining' ? 'joining' : 'out';
}

function phaseOf(state: ClusterState, volume: VolumeObject, leadership: Leadership | null): VolumeView['phase'] {
  if (volume.phase === 'deleting') return 'deleting';
  if (!isUndriven(leadership?.epoch ?? 0)) return 'live';
  const made = volume.legs.every((leg) =>
    leg.replicas.every((entry) => state.get('observedReplicas', entry.replica)?.state === 'ready'),
  );
  return made ? 'live' : 'creating';
}

function healthOf(
  legs: Static<typeof ReplicaView>[][],
  active: ObservedVolume | null,
  embedded: boolean,
): VolumeView['health'] {
  if (active === null && !embedded) return 'unserved';
  const states = legs.flat().map((entry) => entry.state);
  if (states.includes('joining') || active?.resyncing === true) return 'resyncing';
  return states.every((entry) => entry === 'in_sync') ? 'redundant' : 'degraded';
}
