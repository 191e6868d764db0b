// SPDX-License-Identifier: Apache-2.0
//
// The disk node's part in snapshots: it removes what is left over of them on its disks, tells which copies are gone, and
// makes the replicas of clones. Cutting is not its part: that is a command of the volume's controller to the replica.
//
// Invariants:  - an lvol is removed only when the store names it as a leftover
//              - a copy that is not on its disk is not counted any more
//              - a snapshot is judged as it was before the disk was looked at, and changed only if it still is so: what was
//                cut since is not on the list

import type { Engine } from '../engine/engine.js';
import type { Stored } from '../model/cluster-state.js';
import { codecs } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import { type DiskAction, lvolPath } from '../reconcile/disk-node.js';
import { type DiskLvols, leftoversOn, planKept } from '../reconcile/snapshots.js';
import type { ClusterLink } from './cluster-link.js';
import type { AgentContext } from './context.js';
import type { OpenDisk } from './disks.js';

export interface KeeperOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  /** Lvols that this node is making at the moment: nobody removes them meanwhile. */
  readonly busy?: () => ReadonlySet<string>;
}

export class SnapshotKeeper {
  readonly #options: KeeperOptions;
  /** What this process removed: names are never used again. */
  readonly #removed = new Set<string>();

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Returns what failed: one disk does not keep the others waiting. */
  async pass(disks: readonly OpenDisk[], signal: AbortSignal): Promise<unknown[]> {
    const failures: unknown[] = [];
    for (const disk of disks) {
      signal.throwIfAborted();
      await this.#keepOn(disk, signal).catch((error: unknown) => failures.push(error));
    }
    return failures;
  }

  async #keepOn(disk: OpenDisk, signal: AbortSignal): Promise<void> {
    const { context, link } = this.#options;
    const { uuid, name } = disk.lvstore;
    const concerned = link.state
      .all('snapshots')
      .filter((snapshot) => concerns(snapshot, uuid))
      .flatMap(({ id }) => link.state.stored('snapshots', id) ?? []);
    if (concerned.length === 0) return;
    // Before the look: what was being made then may have come since.
    const busy = new Set(this.#options.busy?.() ?? []);
    const lvols = await context.engine.rpc('bdev_lvol_get_lvols', { lvs_uuid: uuid });
    const seen = { disk: uuid, epochs: new Map(lvols.map((lvol) => [lvol.name, BigInt(lvol.epoch)])) };
    for (const stored of concerned) {
      signal.throwIfAborted();
      await this.#keep({ stored, seen, lvstore: name, busy }, signal);
    }
  }

  async #keep(
    at: { stored: Stored<SnapshotObject>; seen: DiskLvols; lvstore: string; busy: ReadonlySet<string> },
    signal: AbortSignal,
  ): Promise<void> {
    const { context, link } = this.#options;
    const { stored, seen, lvstore, busy } = at;
    for (const { lvol } of leftoversOn(stored.value, seen)) {
      if (busy.has(lvol)) continue;
      await context.engine.rpc('bdev_lvol_delete', {
        name: lvolPath({ lvstore, replica: lvol }),
        ...obeying(seen.epochs.get(lvol) ?? 0n),
      });
      this.#removed.add(lvol);
    }
    const next = planKept(stored.value, seen, this.#removed, busy);
    if (next === stored.value) return;
    const copies = (snapshot: SnapshotObject | null): number => snapshot?.cut?.copies.length ?? 0;
    if (next !== null && copies(next) < copies(stored.value)) {
      const { name, volumeId } = stored.value;
      const fields = { snapshot: name, volume: volumeId, disk: seen.disk, copies: copies(next) };
      context.log.warn(fields, 'a copy of a snapshot is gone: it has fewer than its volume keeps');
    }
    const expect = [{ key: stored.key, revision: stored.revision }];
    const change =
      next === null ? { remove: [stored.key] } : { put: [{ key: stored.key, text: codecs.snapshot.encode(next) }] };
    // What lost against another disk's change is planned again: that change wakes the agent.
    await link.commit({ expect, ...change }, signal);
  }
}

function concerns(snapshot: SnapshotObject, disk: string): boolean {
  const copies = snapshot.phase === 'ready' ? (snapshot.cut?.copies ?? []) : [];
  return [...snapshot.leftovers, ...copies].some((entry) => entry.disk === disk);
}

/** What nobody drives any more is changed under the epoch that it obeys. */
function obeying(epoch: bigint): { epoch?: string } {
  return epoch === 0n ? {} : { epoch: epoch.toString() };
}

export async function cloneLvol(engine: Engine, action: Extract<DiskAction, { do: 'clone-lvol' }>): Promise<void> {
  const { replica, source } = action;
  const lvols = await engine.rpc('bdev_lvol_get_lvols', { lvs_uuid: replica.disk });
  const epoch = lvols.find((lvol) => lvol.name === source)?.epoch ?? '0';
  await engine.rpc('bdev_lvol_clone', {
    snapshot_name: lvolPath({ lvstore: replica.lvstore, replica: source }),
    clone_name: replica.replica,
    clone_uuid: replica.replica,
    ...obeying(BigInt(epoch)),
  });
}
