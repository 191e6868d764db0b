// SPDX-License-Identifier: Apache-2.0
//
// The host-facing side of one volume on one controller node: subsystem, namespace, access list, listeners, NBD.

import { isReserved, type ReservationState } from '../model/reservations.js';

/** A path either serves its host or tells it to look elsewhere. */
export type AnaStateWanted = 'optimized' | 'inaccessible';

/** Instead of a version: its object cannot be read. Nothing opens for that host, and what is open for it stays. */
export const unreadableKeys = 'unreadable';

export interface HostWish {
  readonly nqn: string;
  /** Of its keys; null: it has none and is admitted by its name. */
  readonly version: string | null;
  /** It comes by TLS and not otherwise. */
  readonly tls: boolean;
}

export interface DesiredExport {
  /** Hosts without TLS may come; otherwise there is a listener for TLS, whoever comes. */
  readonly plain: boolean;
  readonly hosts: readonly HostWish[];
  readonly ana: AnaStateWanted;
  /** Paths of Unix sockets that this node is asked to serve NBD on. */
  readonly nbd: readonly string[];
  /** What hosts have reserved. NBD clients have no identity: they are let in only while nothing is. */
  readonly reservation: ReservationState;
}

export interface ObservedExport {
  readonly subsystem: boolean;
  readonly namespace: boolean;
  readonly listener: boolean;
  readonly ana: AnaStateWanted | null;
  /** The listener of hosts that come by TLS; it is there while there are such hosts. */
  readonly tlsListener: boolean;
  readonly tlsAna: AnaStateWanted | null;
  readonly hosts: readonly HostWish[];
  readonly nbd: readonly string[];
  /** Which version of the reservations is in force (reservationName); null: none yet. */
  readonly reservation: string | null;
}

/** Tells two states of the reservations apart. */
export function reservationName({ version, change }: ReservationState): string {
  return `${version} ${change}`;
}

export const noExport: ObservedExport = Object.freeze({
  subsystem: false,
  namespace: false,
  listener: false,
  ana: null,
  tlsListener: false,
  tlsAna: null,
  hosts: [],
  nbd: [],
  reservation: null,
});

export type ExportAction =
  | { readonly do: 'create-subsystem' }
  | { readonly do: 'add-namespace' }
  | { readonly do: 'set-reservation'; readonly reservation: ReservationState }
  | { readonly do: 'add-host'; readonly host: HostWish }
  | { readonly do: 'set-keys'; readonly host: HostWish }
  | { readonly do: 'remove-host'; readonly host: string }
  | { readonly do: 'add-listener' }
  | { readonly do: 'set-ana'; readonly ana: AnaStateWanted }
  | { readonly do: 'add-tls-listener' }
  | { readonly do: 'set-tls-ana'; readonly ana: AnaStateWanted }
  | { readonly do: 'remove-tls-listener' }
  | { readonly do: 'start-nbd'; readonly path: string }
  | { readonly do: 'stop-nbd'; readonly path: string }
  | { readonly do: 'delete-subsystem' };

/** What may fail for one host or path and has nothing to do with the others; the other steps build on each other. */
export const ownFailures: ReadonlySet<ExportAction['do']> = new Set([
  'add-host',
  'set-keys',
  'add-tls-listener',
  'set-tls-ana',
  'start-nbd',
]);

/** `desired` null: nothing of the volume may be left here. */
export function planExport(desired: DesiredExport | null, observed: ObservedExport): ExportAction[] {
  const actions: ExportAction[] = [];
  const nbd = desired === null || isReserved(desired.reservation) ? [] : desired.nbd;
  for (const path of observed.nbd) if (!nbd.includes(path)) actions.push({ do: 'stop-nbd', path });
  if (desired === null) {
    if (observed.subsystem) actions.push({ do: 'delete-subsystem' });
    return actions;
  }
  if (!observed.subsystem) actions.push({ do: 'create-subsystem' });
  if (!observed.namespace) actions.push({ do: 'add-namespace' });
  // Before any path tells its hosts that it serves them.
  if (observed.reservation !== reservationName(desired.reservation))
    actions.push({ do: 'set-reservation', reservation: desired.reservation });
  const hosts = desired.hosts.map((host) => asAdmitted(host, observed.hosts));
  actions.push(...planHosts(hosts, observed.hosts));
  if (desired.plain && !observed.listener) actions.push({ do: 'add-listener' });
  if (desired.plain && observed.ana !== desired.ana) actions.push({ do: 'set-ana', ana: desired.ana });
  actions.push(...planTls({ ...desired, hosts }, observed));
  for (const path of nbd) if (!observed.nbd.includes(path)) actions.push({ do: 'start-nbd', path });
  return actions;
}

/** Nobody knows what an object says that cannot be read: whoever is admitted already is wished as it is. */
function asAdmitted(host: HostWish, observed: readonly HostWish[]): HostWish {
  if (host.version !== unreadableKeys) return host;
  return observed.find(({ nqn }) => nqn === host.nqn) ?? host;
}

function planHosts(desired: readonly HostWish[], observed: readonly HostWish[]): ExportAction[] {
  const actions: ExportAction[] = [];
  for (const { nqn } of observed)
    if (!desired.some((host) => host.nqn === nqn)) actions.push({ do: 'remove-host', host: nqn });
  for (const host of desired) {
    const present = observed.find(({ nqn }) => nqn === host.nqn);
    if (present === undefined) {
      actions.push({ do: 'add-host', host });
    } else if (present.tls && !host.tls) {
      // An engine takes no key for TLS away from a host that it admits: that is another admission.
      actions.push({ do: 'remove-host', host: host.nqn }, { do: 'add-host', host });
    } else if (present.version !== host.version || present.tls !== host.tls) {
      actions.push({ do: 'set-keys', host });
    }
  }
  return actions;
}

function planTls(desired: DesiredExport, observed: ObservedExport): ExportAction[] {
  if (desired.plain && !desired.hosts.some((host) => host.tls))
    return observed.tlsListener ? [{ do: 'remove-tls-listener' }] : [];
  const actions: ExportAction[] = [];
  if (!observed.tlsListener) actions.push({ do: 'add-tls-listener' });
  if (observed.tlsAna !== desired.ana) actions.push({ do: 'set-tls-ana', ana: desired.ana });
  return actions;
}
