// SPDX-License-Identifier: Apache-2.0
//
// Makes copies of snapshots on this node's disks, one after the other, out of those of other nodes: begun as a clone of
// what the disk has that is most like it, made equal to the source, flushed, and closed for writing. Only then does the
// store say that it is a copy.
//
// Whoever dies at any of these steps leaves an lvol that the store names as being made; the next process of the disk goes
// on with it, and what is equal already is not written again.
//
// A source that cannot be read makes place for the next one where that happens; for a while it is asked last.
//
// Invariants:  - an lvol is made only while the store names it, and written only until it is closed for writing
//              - a name in `busy` may come to exist at any moment: who removes what is left over waits for it

import { isEngineError } from '../engine/engine.js';
import type { Timer } from '../env/clock.js';
import type { Stored } from '../model/cluster-state.js';
import { nqns } from '../model/keys.js';
import { codecs, type NodeAddress } from '../model/objects.js';
import type { SnapshotCopy, SnapshotMaking, SnapshotObject } from '../model/snapshots.js';
import { lvolPath } from '../reconcile/disk-node.js';
import {
  basesOf,
  copyLvol,
  isReady,
  isSame,
  nodeOfCopy,
  planMade,
  planMaking,
  planSource,
  type ReadySnapshot,
  sourcesOf,
} from '../reconcile/snapshot-copies.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import type { OpenDisk } from './disks.js';
import { noIdentity } from './node-identity.js';
import { ReconcileLoop } from './reconcile-loop.js';

export interface CopierOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  readonly disks: () => readonly OpenDisk[];
  /** A name is in `busy` no more. */
  readonly onFree: () => void;
}

interface Making {
  readonly stored: Stored<SnapshotObject> & { readonly value: ReadySnapshot };
  readonly entry: SnapshotMaking;
  readonly disk: OpenDisk;
  readonly lvol: string;
}

const blockBytes = 4096;
/** Between two of these, I/O of others, other snapshots and an end come in. */
const stepBlocks = 2048;
const restMs = 20;
const retryMinMs = 50;
const retryMaxMs = 60_000;
/** Whoever exports a copy hears of it when this node does: as long as attempts are this close it may not have done so yet. */
const earlyRestMs = 1_000;
/** So long a copy that could not be read is asked only where there is no other way. */
const doubtMs = 60_000;
/** For what must be known to have ended: giving up early would leave it to happen later. */
const patientMs = 600_000;

const watchedKinds = ['snapshots', 'volumes', 'leaderships', 'lives'] as const;

export class SnapshotCopier {
  readonly #options: CopierOptions;
  readonly #loop: ReconcileLoop;
  readonly #log: RateLimitedLog;
  readonly #busy = new Set<string>();
  /** What could not be made, and when it is tried again. */
  readonly #failed = new Map<string, { restMs: number; notBeforeMs: number }>();
  /** Lvols of copies that could not be read, and until when that is counted. */
  readonly #doubted = new Map<string, number>();
  #timer: Timer | null = null;
  #unsubscribe: (() => void) | null = null;

  constructor(options: CopierOptions) {
    this.#options = options;
    const { clock } = options.context;
    const log = new RateLimitedLog(options.context.log, clock);
    this.#log = log;
    this.#loop = new ReconcileLoop({
      name: 'snapshot copier',
      clock,
      log,
      pass: (signal) => this.#pass(signal),
      restMs,
    });
  }

  /** Lvols that are being made. */
  get busy(): ReadonlySet<string> {
    return this.#busy;
  }

  start(): void {
    this.#unsubscribe = onChangeOf(this.#options.link, watchedKinds, () => {
      if (this.#options.link.state.all('snapshots').length > 0) this.#loop.wake();
    });
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    this.#timer?.cancel();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const making = this.#next();
    // Either changes the store, which shows it: then the next one is due.
    if (making === null) await this.#claim(signal);
    else await this.#make(making, signal);
  }

  /** What the store says that is being made here; what failed waits for its time. */
  #next(): Making | null {
    const { link, disks, context } = this.#options;
    this.#timer?.cancel();
    this.#timer = null;
    let dueMs = Number.POSITIVE_INFINITY;
    for (const { id } of link.state.all('snapshots')) {
      const stored = link.state.stored('snapshots', id);
      if (stored === null || !isReady(stored.value)) continue;
      const { value } = stored;
      for (const entry of value.making ?? []) {
        const disk = disks().find((each) => each.lvstore.uuid === entry.disk);
        if (disk === undefined) continue;
        const lvol = copyLvol(value, entry.replica);
        const notBeforeMs = this.#failed.get(lvol)?.notBeforeMs ?? 0;
        if (notBeforeMs <= context.clock.now()) return { stored: { ...stored, value }, entry, disk, lvol };
        dueMs = Math.min(dueMs, notBeforeMs);
      }
    }
    if (dueMs === Number.POSITIVE_INFINITY) this.#failed.clear();
    else this.#timer = context.clock.setTimer(dueMs - context.clock.now(), () => this.#loop.wake());
    return null;
  }

  /** One more, newest first: what it begins as is then most like it. The watch shows it, and it is made. */
  async #claim(signal: AbortSignal): Promise<void> {
    const { link, disks } = this.#options;
    const { state } = link;
    const newestFirst = state.all('snapshots').sort((a, b) => (b.cutAtMs ?? 0) - (a.cutAtMs ?? 0));
    for (const { id } of newestFirst) {
      for (const disk of disks()) {
        const stored = state.stored('snapshots', id);
        const next = stored === null ? null : planMaking(state, stored.value, disk.lvstore.uuid);
        if (stored === null || next === null) continue;
        await this.#put(stored, next, signal);
        return;
      }
    }
  }

  #put(stored: Stored<SnapshotObject>, next: SnapshotObject, signal: AbortSignal): Promise<boolean> {
    const expect = [{ key: stored.key, revision: stored.revision }];
    const put = [{ key: stored.key, text: codecs.snapshot.encode(next) }];
    return this.#options.link.commit({ expect, put }, signal);
  }

  async #make(making: Making, signal: AbortSignal): Promise<void> {
    const { context, link } = this.#options;
    const { stored, entry, lvol } = making;
    const better = planSource(link.state, stored.value, entry);
    if (better !== stored.value) {
      await this.#put(stored, better, signal);
      return;
    }
    this.#busy.add(lvol);
    try {
      const written = await this.#bringAbout(making, signal);
      await this.#record(making, signal);
      const { name, volumeId } = stored.value;
      context.log.info({ snapshot: name, volume: volumeId, disk: entry.disk, written }, 'a copy of a snapshot is made');
      this.#failed.delete(lvol);
    } catch (error) {
      signal.throwIfAborted();
      if (this.#isWanted(making)) this.#postpone(making, error);
    } finally {
      // Whoever ends here has given up waiting: it may come to exist yet.
      if (!signal.aborted) {
        this.#busy.delete(lvol);
        this.#options.onFree();
      }
    }
  }

  /** A disk that is full, or a source that is away, keeps nobody busy. */
  #postpone({ lvol, stored, entry }: Making, error: unknown): void {
    const { clock } = this.#options.context;
    const restMs = Math.min(retryMaxMs, 2 * (this.#failed.get(lvol)?.restMs ?? retryMinMs / 2));
    this.#failed.set(lvol, { restMs, notBeforeMs: clock.now() + restMs });
    const fields = { snapshot: stored.value.name, disk: entry.disk, error: reason(error) };
    this.#log.warn(`copy ${lvol}`, fields, 'a copy of a snapshot waits');
    this.#loop.wake();
  }

  /** Blocks that were written. */
  async #bringAbout(making: Making, signal: AbortSignal): Promise<number> {
    const { engine } = this.#options.context;
    const { disk, lvol, stored } = making;
    const name = lvolPath({ lvstore: disk.lvstore.name, replica: lvol });
    const lvols = await engine.rpc('bdev_lvol_get_lvols', { lvs_uuid: disk.lvstore.uuid }, { signal });
    const present = lvols.find((each) => each.name === lvol);
    if (present?.is_read_only === true) return 0;
    const blocks = (stored.value.shape?.legSizeBytes ?? 0) / blockBytes;
    const patient = { timeoutMs: patientMs, signal };
    const byName = new Map(lvols.map((each) => [each.name, each]));
    const known = present?.num_blocks ?? (await this.#begin(making, byName, signal));
    if (known !== blocks)
      await engine.rpc('bdev_lvol_resize', { name, size_in_mib: (blocks * blockBytes) / 2 ** 20 }, patient);
    const written = await this.#fill(making, { name, blocks }, signal);
    await engine.rpc('bdev_lvol_set_read_only', { name }, patient);
    return written;
  }

  /** Returns its blocks. */
  async #begin(
    making: Making,
    lvols: ReadonlyMap<string, { readonly num_blocks: number; readonly epoch: string }>,
    signal: AbortSignal,
  ): Promise<number> {
    const { context, link } = this.#options;
    const { disk, lvol, stored, entry } = making;
    const patient = { timeoutMs: patientMs, signal };
    const lvstore = disk.lvstore.name;
    for (const base of basesOf(link.state, stored.value, entry)) {
      const found = lvols.get(base);
      if (found === undefined) continue;
      const epoch = found.epoch === '0' ? {} : { epoch: found.epoch };
      const clone = { snapshot_name: lvolPath({ lvstore, replica: base }), clone_name: lvol, ...epoch };
      try {
        await context.engine.rpc('bdev_lvol_clone', clone, patient);
        return found.num_blocks;
      } catch (error) {
        // Too many layers: another one will do, and none as well.
        if (!isEngineError(error, 'unsupported')) throw error;
        context.log.debug({ lvol, base, error: reason(error) }, 'a copy does not begin as what is most like it');
      }
    }
    const sizeBytes = stored.value.shape?.legSizeBytes ?? 0;
    const volume = link.state.get('volumes', stored.value.volumeId);
    const checksums = volume?.checksums === undefined ? {} : { checksums: true };
    const shape = { size_in_mib: sizeBytes / 2 ** 20, thin_provision: true, ...checksums };
    const empty = { lvol_name: lvol, lvs_name: lvstore, ...shape };
    await context.engine.rpc('bdev_lvol_create', empty, patient);
    return sizeBytes / blockBytes;
  }

  async #fill(making: Making, to: { name: string; blocks: number }, signal: AbortSignal): Promise<number> {
    const { engine } = this.#options.context;
    const ways = sourcesOf(this.#options.link.state, making.stored.value, making.entry, this.#doubtful());
    const [first] = ways;
    if (first === undefined) throw new Error('too few copies of it can be read');
    const longest = Math.max(...ways.map((way) => way.length));
    const names = Array.from({ length: longest }, (_, index) => `copy-${making.lvol}-${index}`);
    const used = { recomputed: `recomputed-${making.lvol}`, names };
    let source: string | null = null;
    let way = 0;
    let failedCount = 0;
    let written = 0;
    try {
      for (let block = 0; block < to.blocks; ) {
        signal.throwIfAborted();
        if (!this.#isWanted(making)) throw new Error('it is wanted no more');
        const from = ways[way] ?? first;
        try {
          source ??= await this.#open(making, { from, ...used }, signal);
          const range = { offset_blocks: block, num_blocks: Math.min(stepBlocks, to.blocks - block) };
          const flush = block + stepBlocks >= to.blocks;
          const copy = { source, target: to.name, ...range, flush };
          written += (await engine.rpc('basalt_bdev_copy', copy, { timeoutMs: patientMs, signal })).written_blocks;
          block += stepBlocks;
          failedCount = 0;
        } catch (error) {
          signal.throwIfAborted();
          if (source === null && this.#isEarly(making)) throw error;
          const [only] = from;
          if (only !== undefined && from.length === 1) this.#doubt(making, only);
          // What is the target's fault ends here as well, after all of them.
          if (++failedCount === ways.length) throw error;
          way = (way + 1) % ways.length;
          source = null;
          const fields = { snapshot: making.stored.value.name, disk: making.entry.disk, block, error: reason(error) };
          this.#log.warn(`source ${making.lvol}`, fields, 'a copy of a snapshot goes on from others');
        }
      }
      return written;
    } finally {
      await this.#forget(making, used, signal);
    }
  }

  #isEarly({ lvol }: Making): boolean {
    return (this.#failed.get(lvol)?.restMs ?? 0) < earlyRestMs;
  }

  #doubt({ stored }: Making, copy: SnapshotCopy): void {
    this.#doubted.set(copyLvol(stored.value, copy.replica), this.#options.context.clock.now() + doubtMs);
  }

  #doubtful(): Set<string> {
    const now = this.#options.context.clock.now();
    for (const [lvol, untilMs] of this.#doubted) if (untilMs <= now) this.#doubted.delete(lvol);
    return new Set(this.#doubted.keys());
  }

  /** The bdev that shows what those copies make up. */
  async #open(
    making: Making,
    way: { from: readonly SnapshotCopy[]; recomputed: string; names: readonly string[] },
    signal: AbortSignal,
  ): Promise<string> {
    const { from, recomputed, names } = way;
    // Left by the way before, or by an attempt whose answer never came.
    await this.#forget(making, { recomputed, names }, signal);
    const connecting = from.map((copy, index) => this.#connect(making, { copy, name: names[index] ?? '' }, signal));
    const connected = await Promise.allSettled(connecting);
    const sources = connected.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const refused = connected.find((each) => each.status === 'rejected');
    if (refused !== undefined && this.#isEarly(making)) throw refused.reason;
    for (const [index, copy] of from.entries()) if (connected[index]?.status === 'rejected') this.#doubt(making, copy);
    const [source] = sources;
    if (source === undefined) throw refused?.reason ?? new Error('no copy of it can be read');
    const { place } = making.entry;
    if (place === undefined) return source;
    // Also of a single one: its superblocks say whether it is what it is taken for.
    await this.#options.context.engine.rpc(
      'basalt_parity_member_create',
      { name: recomputed, base_bdevs: sources, place },
      { signal },
    );
    return recomputed;
  }

  async #forget(
    { entry: { place } }: Making,
    { recomputed, names }: { recomputed: string; names: readonly string[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { engine } = this.#options.context;
    if (place !== undefined)
      await engine.rpc('basalt_parity_member_delete', { name: recomputed }, { signal }).catch(() => {});
    for (const name of names) await engine.rpc('bdev_nvme_detach_controller', { name }, { signal }).catch(() => {});
  }

  /** The bdev that shows the copy. */
  async #connect(making: Making, to: { copy: SnapshotCopy; name: string }, signal: AbortSignal): Promise<string> {
    const { engine, identity = noIdentity } = this.#options.context;
    const address = this.#addressOf(to.copy);
    const { traddr, trsvcid } = address;
    const connection = {
      name: to.name,
      trtype: 'TCP' as const,
      traddr,
      trsvcid,
      subnqn: nqns.snapshotCopy(copyLvol(making.stored.value, to.copy.replica)),
      ...(await identity.credentials(engine, this.#options.node, address)),
      ctrlr_loss_timeout_sec: 10,
      fast_io_fail_timeout_sec: 5,
      keep_alive_ms: 2_000,
    };
    const [bdev] = await engine.rpc('bdev_nvme_attach_controller', connection, { signal });
    if (bdev === undefined) throw new Error(`the copy on disk ${to.copy.disk} shows no namespace`);
    return bdev;
  }

  #addressOf(copy: SnapshotCopy): NodeAddress {
    const { state } = this.#options.link;
    const address = state.get('lives', nodeOfCopy(state, copy))?.internal;
    if (address == null) throw new Error('no copy of it can be read');
    return address;
  }

  #isWanted({ stored, entry }: Making): boolean {
    const now = this.#options.link.state.get('snapshots', stored.value.id);
    return now !== null && (now.making ?? []).some((each) => isSame(each, entry) && each.from === entry.from);
  }

  /** Others change the object meanwhile. */
  async #record({ stored, entry }: Making, signal: AbortSignal): Promise<void> {
    const { link, context } = this.#options;
    for (;;) {
      const present = link.state.stored('snapshots', stored.value.id);
      const next = present === null ? null : planMade(present.value, entry);
      if (present === null || next === null) return;
      if (await this.#put(present, next, signal)) return;
      await context.clock.sleep(restMs, signal);
    }
  }
}
