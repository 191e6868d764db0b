// SPDX-License-Identifier: Apache-2.0
//
// What a disk node must do so that its engine holds and exports the replicas that the store wants, and no others.
//
// Invariants:  - an lvol is made only for a replica that was never reported ready: a lost one is reported, not replaced
//                by an empty one
//              - a clone's replica begins empty only when it is counted no more, and so gets everything by a copy
//              - an lvol only grows: what it has beyond what is wanted of it harms nobody
//              - an lvol is deleted only when its volume is being deleted, under that volume's last epoch

export interface DesiredReplica {
  readonly replica: string;
  /** The lvol that it begins as; absent: empty. */
  readonly source?: string;
  /** Of one with a source: somebody takes it for holding everything. Otherwise it may begin empty, and is copied. */
  readonly counted?: boolean;
  readonly volumeId: string;
  readonly leg: number;
  readonly lvstore: string;
  readonly disk: string;
  readonly sizeBytes: number;
  readonly checksums?: true;
  /** The volume's, which changes of the lvol are made under. */
  readonly epoch: number;
  /** Controllers' NQNs that may connect. */
  readonly hosts: readonly string[];
  /** Set when the volume is being deleted. */
  readonly deleteEpoch: number | null;
  /** What the store says was reported about it. */
  readonly reported: 'ready' | 'missing' | null;
  readonly reportedBytes: number;
  readonly reportedProblem: string | null;
}

export interface ObservedSubsystem {
  readonly replica: string;
  readonly hosts: readonly string[];
  readonly hasNamespace: boolean;
  readonly hasListener: boolean;
}

export interface ObservedDiskNode {
  /** Size of every lvol on the node's disks, by `lvstore/lvol`. */
  readonly lvols: ReadonlyMap<string, number>;
  readonly subsystems: readonly ObservedSubsystem[];
}

export type DiskAction =
  | { readonly do: 'create-lvol'; readonly replica: DesiredReplica }
  | { readonly do: 'clone-lvol'; readonly replica: DesiredReplica; readonly source: string }
  | { readonly do: 'grow-lvol'; readonly replica: DesiredReplica }
  | { readonly do: 'report'; readonly replica: DesiredReplica; readonly state: 'ready' | 'missing' }
  | { readonly do: 'create-subsystem'; readonly replica: DesiredReplica }
  | { readonly do: 'add-namespace'; readonly replica: DesiredReplica }
  | { readonly do: 'add-listener'; readonly replica: DesiredReplica }
  | { readonly do: 'add-host'; readonly replica: string; readonly host: string }
  | { readonly do: 'remove-host'; readonly replica: string; readonly host: string }
  | { readonly do: 'delete-subsystem'; readonly replica: string }
  | { readonly do: 'delete-lvol'; readonly replica: DesiredReplica; readonly epoch: number }
  | { readonly do: 'forget'; readonly replica: DesiredReplica };

export function lvolPath(replica: { lvstore: string; replica: string }): string {
  return `${replica.lvstore}/${replica.replica}`;
}

/** In the order in which they are to be carried out. */
export function planDiskNode(desired: readonly DesiredReplica[], observed: ObservedDiskNode): DiskAction[] {
  const wanted = desired.filter((entry) => entry.deleteEpoch === null);
  const serving = new Set(wanted.filter((entry) => entry.reported !== 'missing').map((entry) => entry.replica));
  const actions: DiskAction[] = [];
  for (const subsystem of observed.subsystems) {
    if (!serving.has(subsystem.replica)) actions.push({ do: 'delete-subsystem', replica: subsystem.replica });
  }
  for (const replica of desired) {
    if (replica.deleteEpoch !== null) actions.push(...planRemoval(replica, replica.deleteEpoch, observed));
  }
  const present = new Map(observed.subsystems.map((subsystem) => [subsystem.replica, subsystem]));
  for (const replica of wanted) actions.push(...planReplica(replica, observed, present.get(replica.replica)));
  return actions;
}

function planRemoval(replica: DesiredReplica, epoch: number, observed: ObservedDiskNode): DiskAction[] {
  if (observed.lvols.has(lvolPath(replica)))
    return [
      { do: 'delete-lvol', replica, epoch },
      { do: 'forget', replica },
    ];
  return [{ do: 'forget', replica }];
}

function planReplica(
  replica: DesiredReplica,
  observed: ObservedDiskNode,
  subsystem: ObservedSubsystem | undefined,
): DiskAction[] {
  const exists = observed.lvols.has(lvolPath(replica));
  if (!exists && replica.reported !== null) {
    const gone: DiskAction[] = subsystem === undefined ? [] : [{ do: 'delete-subsystem', replica: replica.replica }];
    return replica.reported === 'missing' ? gone : [...gone, { do: 'report', replica, state: 'missing' }];
  }
  const actions: DiskAction[] = [];
  const { source } = replica;
  const hasSource = source !== undefined && observed.lvols.has(lvolPath({ ...replica, replica: source }));
  if (!exists && source !== undefined && (hasSource || replica.counted !== false))
    actions.push({ do: 'clone-lvol', replica, source });
  else if (!exists) actions.push({ do: 'create-lvol', replica });
  actions.push(...planExport(replica, subsystem));
  // Last: one that cannot grow is served as it is.
  if ((observed.lvols.get(lvolPath(replica)) ?? replica.sizeBytes) < replica.sizeBytes)
    actions.push({ do: 'grow-lvol', replica });
  const told = replica.reportedBytes >= replica.sizeBytes && replica.reportedProblem === null;
  if (replica.reported !== 'ready' || !told) actions.push({ do: 'report', replica, state: 'ready' });
  return actions;
}

/** The listener comes last: nobody connects to a subsystem that is half made. */
function planExport(replica: DesiredReplica, present: ObservedSubsystem | undefined): DiskAction[] {
  const actions: DiskAction[] = [];
  const hosts = present?.hosts ?? [];
  if (present === undefined) actions.push({ do: 'create-subsystem', replica });
  for (const host of replica.hosts) {
    if (!hosts.includes(host)) actions.push({ do: 'add-host', replica: replica.replica, host });
  }
  for (const host of hosts) {
    if (!replica.hosts.includes(host)) actions.push({ do: 'remove-host', replica: replica.replica, host });
  }
  if (present?.hasNamespace !== true) actions.push({ do: 'add-namespace', replica });
  if (present?.hasListener !== true) actions.push({ do: 'add-listener', replica });
  return actions;
}
