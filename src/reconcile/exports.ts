// SPDX-License-Identifier: Apache-2.0
//
// The host-facing side of one volume on one controller node: subsystem, namespace, access list, listener, NBD.

/** A path either serves its host or tells it to look elsewhere. */
export type AnaStateWanted = 'optimized' | 'inaccessible';

export interface DesiredExport {
  readonly hosts: readonly string[];
  readonly ana: AnaStateWanted;
  /** Paths of Unix sockets that this node is asked to serve NBD on. */
  readonly nbd: readonly string[];
}

export interface ObservedExport {
  readonly subsystem: boolean;
  readonly namespace: boolean;
  readonly listener: boolean;
  readonly ana: AnaStateWanted | null;
  readonly hosts: readonly string[];
  readonly nbd: readonly string[];
}

export const noExport: ObservedExport = Object.freeze({
  subsystem: false,
  namespace: false,
  listener: false,
  ana: null,
  hosts: [],
  nbd: [],
});

export type ExportAction =
  | { readonly do: 'create-subsystem' }
  | { readonly do: 'add-namespace' }
  | { readonly do: 'add-host'; readonly host: string }
  | { readonly do: 'remove-host'; readonly host: string }
  | { readonly do: 'add-listener' }
  | { readonly do: 'set-ana'; readonly ana: AnaStateWanted }
  | { readonly do: 'start-nbd'; readonly path: string }
  | { readonly do: 'stop-nbd'; readonly path: string }
  | { readonly do: 'delete-subsystem' };

/** `desired` null: nothing of the volume may be left here. */
export function planExport(desired: DesiredExport | null, observed: ObservedExport): ExportAction[] {
  const actions: ExportAction[] = [];
  for (const path of observed.nbd)
    if (desired === null || !desired.nbd.includes(path)) actions.push({ do: 'stop-nbd', path });
  if (desired === null) {
    if (observed.subsystem) actions.push({ do: 'delete-subsystem' });
    return actions;
  }
  if (!observed.subsystem) actions.push({ do: 'create-subsystem' });
  if (!observed.namespace) actions.push({ do: 'add-namespace' });
  for (const host of observed.hosts) if (!desired.hosts.includes(host)) actions.push({ do: 'remove-host', host });
  for (const host of desired.hosts) if (!observed.hosts.includes(host)) actions.push({ do: 'add-host', host });
  if (!observed.listener) actions.push({ do: 'add-listener' });
  if (observed.ana !== desired.ana) actions.push({ do: 'set-ana', ana: desired.ana });
  for (const path of desired.nbd) if (!observed.nbd.includes(path)) actions.push({ do: 'start-nbd', path });
  return actions;
}
