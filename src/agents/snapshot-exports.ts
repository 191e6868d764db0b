// SPDX-License-Identifier: Apache-2.0
//
// Copies of snapshots on this node's disks that other disk nodes make theirs of: exported for as long as the store names
// them as sources. Nobody writes them, so nobody has to be kept from it.

import type { SubsystemDescription } from '../engine/engine.js';
import { nqns } from '../model/keys.js';
import type { NodeAddress } from '../model/objects.js';
import { lvolPath } from '../reconcile/disk-node.js';
import { type CopyExport, copyExports } from '../reconcile/snapshot-copies.js';
import type { ClusterLink } from './cluster-link.js';
import type { AgentContext } from './context.js';
import type { OpenDisk } from './disks.js';
import { listenerAt } from './listener.js';
import { noIdentity } from './node-identity.js';

export interface ExportsOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly internal: NodeAddress;
}

const prefix = nqns.snapshotCopy('');

export class SnapshotExports {
  readonly #options: ExportsOptions;
  /** What this process exports: nothing is asked of the engine while there is nothing to do. */
  #present = new Set<string>();

  constructor(options: ExportsOptions) {
    this.#options = options;
  }

  async pass(disks: readonly OpenDisk[], signal: AbortSignal): Promise<void> {
    const { context, link } = this.#options;
    const wanted = copyExports(link.state, new Set(disks.map((disk) => disk.lvstore.uuid)));
    if (wanted.length === 0 && this.#present.size === 0) return;
    const subsystems = await context.engine.rpc('nvmf_get_subsystems', {});
    const present = subsystems.filter((entry) => entry.nqn.startsWith(prefix));
    for (const { nqn } of present) {
      signal.throwIfAborted();
      if (!wanted.some((each) => nqns.snapshotCopy(each.lvol) === nqn))
        await context.engine.rpc('nvmf_delete_subsystem', { nqn });
    }
    for (const each of wanted) {
      signal.throwIfAborted();
      const disk = disks.find((entry) => entry.lvstore.uuid === each.disk);
      const known = present.find((entry) => entry.nqn === nqns.snapshotCopy(each.lvol));
      if (disk !== undefined) await this.#export(each, disk, known ?? null);
    }
    this.#present = new Set(wanted.map((each) => each.lvol));
  }

  /** The listener comes last: nobody connects to a subsystem that is half made. */
  async #export(wanted: CopyExport, disk: OpenDisk, present: SubsystemDescription | null): Promise<void> {
    const { context, internal } = this.#options;
    const { engine } = context;
    const nqn = nqns.snapshotCopy(wanted.lvol);
    const names = { model_number: 'Basalt snapshot', max_namespaces: 1, internal: true };
    if (present === null) await engine.rpc('nvmf_create_subsystem', { nqn, ...names });
    const { identity = noIdentity } = context;
    const hosts = present?.hosts.map((host) => host.nqn) ?? [];
    const readers = wanted.readers.flatMap((node) => identity.hostNqns(node));
    for (const host of readers)
      if (!hosts.includes(host)) await identity.admit(engine, { nqn, host, secure: internal.secure });
    for (const host of hosts)
      if (!readers.includes(host)) await engine.rpc('nvmf_subsystem_remove_host', { nqn, host });
    if ((present?.namespaces.length ?? 0) === 0) {
      const bdev_name = lvolPath({ lvstore: disk.lvstore.name, replica: wanted.lvol });
      await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name, nsid: 1, reservations: false } });
    }
    if ((present?.listen_addresses.length ?? 0) === 0)
      await engine.rpc('nvmf_subsystem_add_listener', { nqn, ...listenerAt(internal) });
  }
}
