// SPDX-License-Identifier: Apache-2.0
//
// The disk side of a node: opens its disks, keeps the replicas on them as the store wants them, exports each to the
// volumes' controllers, and reports usage.

import type { SubsystemDescription } from '../engine/engine.js';
import type { Timer } from '../env/clock.js';
import type { CompiledDisk } from '../model/config.js';
import { keys, nqns } from '../model/keys.js';
import {
  codecs,
  type DiskObject,
  formatVersion,
  type NodeAddress,
  type ObservedReplica,
  type ReplicaPlacement,
  type VolumeObject,
} from '../model/objects.js';
import { isCounted } from '../reconcile/clone-source.js';
import {
  type DesiredReplica,
  type DiskAction,
  lvolPath,
  type ObservedDiskNode,
  type ObservedSubsystem,
  planDiskNode,
} from '../reconcile/disk-node.js';
import { replicaBytes } from '../reconcile/growth.js';
import { strayReports } from '../reconcile/stray-reports.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { ConfigurationKeeper } from './configuration-keeper.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { type DiskOpener, diskObject, lvstoreOn, type OpenDisk, openDisk } from './disks.js';
import { listenerAt } from './listener.js';
import { type Identity, noIdentity } from './node-identity.js';
import type { NodeLink } from './node-link.js';
import { ReconcileLoop } from './reconcile-loop.js';
import { type Look, ReplicaMemory } from './replica-memory.js';
import { SnapshotCopier } from './snapshot-copier.js';
import { SnapshotExports } from './snapshot-exports.js';
import { cloneLvol, SnapshotKeeper } from './snapshot-keeper.js';

export interface DiskAgentOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  readonly clusterId: string;
  readonly disks: readonly CompiledDisk[];
  /** Where controllers reach this node's replicas. */
  readonly internal: NodeAddress;
  readonly nodeLink: NodeLink;
  /** Of this engine; shown as the serial number of every replica. */
  readonly incarnation: string;
}

/** Of every lvol. */
const lvolBlockBytes = 4096;
const replicaPrefix = nqns.replica('');
const replicasAtOnce = 4;
const restMs = 20;
/** While things change, the engine is asked for everything so often: what it lost by itself is noticed then. */
const wholeLookMs = 5_000;
/** Changes of these are looked at whole. */
const wholeKinds = ['tombstones', 'cordons', 'snapshots'] as const;
/** The node link lets in whom the last two name. */
const seenKinds = ['volumes', 'leaderships', 'observedReplicas', ...wholeKinds, 'nodes', 'lives'] as const;
/** How much space is left changes with each volume that is made: it is told so often. */
const spaceReportMs = 1_000;
/** A transaction of the store holds a bounded number of keys. */
const reportsAtOnce = 64;

/** Of one volume, what is wanted here, and the objects that say so. */
interface Wanted {
  readonly made: readonly unknown[];
  readonly replicas: readonly DesiredReplica[];
}

/** What the store is told about one replica. */
interface Report {
  readonly key: string;
  readonly text: string;
}

export class DiskAgent {
  readonly #options: DiskAgentOptions;
  readonly #loop: ReconcileLoop;
  readonly #opener: DiskOpener;
  readonly #keeper: SnapshotKeeper;
  readonly #copier: SnapshotCopier;
  readonly #exports: SnapshotExports;
  readonly #configuration: ConfigurationKeeper;
  readonly #written = new Map<string, { readonly text: string; readonly object: DiskObject; readonly atMs: number }>();
  /** Null: the engine has to be asked for everything. */
  #memory: ReplicaMemory | null = null;
  #lookedAtMs = 0;
  #wholeSeen = '';
  #wanted = new Map<string, Wanted>();
  #spaceTimer: Timer | null = null;
  #wholeTimer: Timer | null = null;
  /** Made in this pass, and not yet in the store. */
  readonly #reports: Report[] = [];
  readonly #identity: Identity;
  #disks: OpenDisk[] = [];
  #unsubscribe: (() => void)[] = [];

  constructor(options: DiskAgentOptions) {
    this.#options = options;
    const { engine, clock, random, log } = options.context;
    this.#identity = options.context.identity ?? noIdentity;
    const { context, link, node } = options;
    this.#copier = new SnapshotCopier({
      context,
      link,
      node,
      disks: () => this.#disks,
      onFree: () => this.#loop.wake(),
    });
    this.#keeper = new SnapshotKeeper({ context, link, busy: () => this.#copier.busy });
    this.#exports = new SnapshotExports(options);
    const { clusterId } = options;
    this.#configuration = new ConfigurationKeeper({ context, link, node, clusterId, disks: () => this.#disks });
    const { disks } = options.context;
    const common = { engine, random, clusterId: options.clusterId, node: options.node };
    this.#opener = disks === undefined ? common : { ...common, source: disks.source };
    this.#loop = new ReconcileLoop({
      name: 'disk agent',
      clock,
      log: new RateLimitedLog(log, clock),
      pass: (signal) => this.#pass(signal),
      restMs,
    });
  }

  /** @throws DISK_REFUSED, CLUSTER_MISMATCH with the disk's place in the configuration */
  async start(): Promise<void> {
    for (const [index, config] of this.#options.disks.entries()) {
      this.#disks.push(await openDisk(this.#opener, config, index));
    }
    this.#unsubscribe = [
      onChangeOf(this.#options.link, seenKinds, () => this.#loop.wake()),
      this.#options.context.engine.on('event', (event) => {
        if (event.method !== 'lvstore_space') return;
        this.#lookedAtMs = Number.NEGATIVE_INFINITY;
        this.#loop.wake();
      }),
    ];
    this.#loop.start();
    this.#copier.start();
    this.#configuration.start();
  }

  async stop(): Promise<void> {
    for (const end of this.#unsubscribe.splice(0)) end();
    this.#spaceTimer?.cancel();
    this.#wholeTimer?.cancel();
    await this.#configuration.stop();
    await this.#copier.stop();
    await this.#loop.stop();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    await this.#reportDisks(signal);
    // Of a pass that was broken off: what it found is found again.
    this.#reports.length = 0;
    const failures: unknown[] = [];
    // Everything of one replica is one after the other; several replicas are under way at once.
    const { clock } = this.#options.context;
    const lookedAtMs = clock.now();
    const desired = this.#desired();
    const { look, memory, whole } = await this.#look(desired);
    // Before replicas let in anybody new, who comes by the link then.
    await this.#options.nodeLink.pass(whole, signal).catch((error: unknown) => failures.push(error));
    const queue = byReplica(planDiskNode(look.desired, look.observed));
    this.#loop.looked(clock.now() - lookedAtMs, { share: 3, mostMs: 500 });
    // Only what was carried out to the end is remembered.
    this.#memory = null;
    const work = async (): Promise<void> => {
      for (let actions = queue.shift(); actions !== undefined; actions = queue.shift()) {
        const failure = await this.#carryOutAll(actions, memory, signal);
        if (failure !== null) failures.push(failure.error);
        if (this.#reports.length >= reportsAtOnce) await this.#sendReports(signal);
      }
    };
    // All of them end, also when one fails, before anything else is begun.
    const ended = await Promise.allSettled(Array.from({ length: replicasAtOnce }, work));
    for (const outcome of ended) if (outcome.status === 'rejected') throw outcome.reason;
    await this.#sendReports(signal);
    if (whole) await this.#removeStrays(signal).catch((error: unknown) => failures.push(error));
    // What is deleted must not be read by anybody any more.
    await this.#exports.pass(this.#disks, signal).catch((error: unknown) => failures.push(error));
    failures.push(...(await this.#keeper.pass(this.#disks, signal)));
    await this.#reportDisks(signal);
    if (failures.length > 0) throw failures[0];
    memory.planned(desired);
    this.#memory = memory;
  }

  /** At what changed since the last pass, or at everything. */
  async #look(desired: readonly DesiredReplica[]): Promise<{ look: Look; memory: ReplicaMemory; whole: boolean }> {
    const { link, context } = this.#options;
    const now = context.clock.now();
    const wholeSeen = wholeKinds.map((kind) => link.state.version(kind)).join(' ');
    const known = wholeSeen === this.#wholeSeen && now < this.#lookedAtMs + wholeLookMs ? this.#memory : null;
    const changes = known?.changes(desired) ?? null;
    if (known !== null && changes !== null) {
      this.#wholeTimer ??= context.clock.setTimer(this.#lookedAtMs + wholeLookMs - now, () => {
        this.#wholeTimer = null;
        this.#loop.wake();
      });
      return { look: changes, memory: known, whole: false };
    }
    this.#wholeSeen = wholeSeen;
    this.#lookedAtMs = now;
    const observed = await this.#observe();
    return { look: { desired, observed }, memory: new ReplicaMemory(observed), whole: true };
  }

  /** What fails for one replica does not keep the others waiting. */
  async #carryOutAll(
    actions: readonly DiskAction[],
    memory: ReplicaMemory,
    signal: AbortSignal,
  ): Promise<{ error: unknown } | null> {
    for (const action of actions) {
      signal.throwIfAborted();
      try {
        await this.#carryOut(action, signal);
        memory.note(action);
      } catch (error) {
        if (action.do === 'grow-lvol') await this.#reportSmall(action.replica, reason(error), signal);
        this.#options.context.log.debug(
          { action: action.do, replica: replicaOf(action), error: reason(error) },
          'disk agent: action failed',
        );
        return { error };
      }
    }
    return null;
  }

  /** One write of the store for many replicas. */
  async #sendReports(signal: AbortSignal): Promise<void> {
    const put = this.#reports.splice(0);
    if (put.length > 0) await this.#options.link.commit({ put }, signal);
  }

  /** A report of its own that came too late for the store to be asked to forget it with its replica. */
  async #removeStrays(signal: AbortSignal): Promise<void> {
    const { link } = this.#options;
    const disks = new Set(this.#disks.map((disk) => disk.lvstore.uuid));
    for (const { key, revision } of strayReports(link.state, disks).slice(0, reportsAtOnce))
      await link.commit({ expect: [{ key, revision }], remove: [key] }, signal);
  }

  #desired(): DesiredReplica[] {
    return [...this.#wantedReplicas(), ...this.#buried()];
  }

  /** Replicas that were given up while this disk was away, or that have a successor. */
  #buried(): DesiredReplica[] {
    return this.#options.link.state.all('tombstones').flatMap((entry) => {
      const disk = this.#disks.find((each) => each.lvstore.uuid === entry.disk);
      if (disk === undefined) return [];
      return [
        {
          replica: entry.replica,
          volumeId: entry.volumeId,
          leg: 0,
          lvstore: disk.lvstore.name,
          disk: disk.lvstore.uuid,
          sizeBytes: 0,
          epoch: entry.epoch,
          hosts: [],
          deleteEpoch: entry.epoch,
          reported: null,
          reportedBytes: 0,
          reportedProblem: null,
        },
      ];
    });
  }

  #wantedReplicas(): DesiredReplica[] {
    const before = this.#wanted;
    this.#wanted = new Map();
    return this.#options.link.state.all('volumes').flatMap((volume) => {
      const wanted = this.#wantedOf(volume, before.get(volume.id));
      this.#wanted.set(volume.id, wanted);
      return wanted.replicas;
    });
  }

  /** As before, if nothing that says so has changed: there are thousands. */
  #wantedOf(volume: VolumeObject, before: Wanted | undefined): Wanted {
    const { state } = this.#options.link;
    const made: unknown[] = [volume, state.get('leaderships', volume.id)];
    for (const { replicas } of volume.legs)
      for (const { replica } of replicas) made.push(state.get('observedReplicas', replica));
    if (before?.made.length === made.length && made.every((part, index) => part === before.made[index])) return before;
    const replicas = volume.legs.flatMap((placed, leg) =>
      placed.replicas.flatMap((replica) => {
        const disk = this.#disks.find((entry) => entry.lvstore.uuid === replica.disk);
        return disk === undefined ? [] : [this.#desiredReplica(volume, { leg, placed: replica, disk })];
      }),
    );
    // Whether a clone's replica is counted depends on more than these.
    return { made: replicas.some((replica) => replica.source !== undefined) ? [] : made, replicas };
  }

  #desiredReplica(volume: VolumeObject, at: { leg: number; placed: ReplicaPlacement; disk: OpenDisk }): DesiredReplica {
    const { state } = this.#options.link;
    const { replica, source } = at.placed;
    const leadership = state.get('leaderships', volume.id);
    const reported = state.get('observedReplicas', replica);
    const controllers = new Set(volume.controllers);
    if (leadership !== null && leadership.controller !== null) controllers.add(leadership.controller);
    return {
      replica,
      ...(source === undefined ? {} : { source, counted: isCounted(state, volume, { leg: at.leg, replica }) }),
      volumeId: volume.id,
      leg: at.leg,
      lvstore: at.disk.lvstore.name,
      disk: at.disk.lvstore.uuid,
      sizeBytes: replicaBytes(volume, leadership),
      ...(volume.checksums === undefined ? {} : { checksums: volume.checksums }),
      epoch: leadership?.epoch ?? 0,
      hosts: [...controllers].flatMap((name) => this.#identity.hostNqns(name)),
      deleteEpoch: volume.phase === 'deleting' ? (leadership?.epoch ?? 0) : null,
      reported: reported?.state ?? null,
      reportedBytes: reported?.sizeBytes ?? volume.legSizeBytes,
      reportedProblem: reported?.problem ?? null,
    };
  }

  async #observe(): Promise<ObservedDiskNode> {
    const { engine } = this.#options.context;
    const lvols = await engine.rpc('bdev_lvol_get_lvols', {});
    const subsystems = await engine.rpc('nvmf_get_subsystems', {});
    return {
      lvols: new Map(
        lvols.map((lvol) => [
          lvolPath({ lvstore: lvol.lvs.name, replica: lvol.name }),
          lvol.num_blocks * lvolBlockBytes,
        ]),
      ),
      subsystems: subsystems.filter((entry) => entry.nqn.startsWith(replicaPrefix)).map(observedSubsystem),
    };
  }

  async #carryOut(action: DiskAction, signal: AbortSignal): Promise<void> {
    const { engine } = this.#options.context;
    switch (action.do) {
      case 'clone-lvol':
        await cloneLvol(engine, action);
        return;
      case 'create-lvol':
        await engine.rpc('bdev_lvol_create', {
          lvol_name: action.replica.replica,
          size_in_mib: action.replica.sizeBytes / (1024 * 1024),
          lvs_name: action.replica.lvstore,
          thin_provision: true,
          lvol_uuid: action.replica.replica,
          ...(action.replica.checksums === undefined ? {} : { checksums: true }),
        });
        return;
      case 'grow-lvol':
        await engine.rpc('bdev_lvol_resize', {
          name: lvolPath(action.replica),
          size_in_mib: action.replica.sizeBytes / (1024 * 1024),
          epoch: action.replica.epoch,
        });
        return;
      case 'create-subsystem':
        await engine.rpc('nvmf_create_subsystem', {
          nqn: nqns.replica(action.replica.replica),
          serial_number: this.#options.incarnation,
          model_number: 'Basalt replica',
          max_namespaces: 1,
          internal: true,
        });
        return;
      case 'add-namespace':
        await engine.rpc('nvmf_subsystem_add_ns', {
          nqn: nqns.replica(action.replica.replica),
          namespace: { bdev_name: lvolPath(action.replica), nsid: 1, uuid: action.replica.replica, one_writer: true },
        });
        return;
      case 'add-listener':
        await engine.rpc('nvmf_subsystem_add_listener', {
          nqn: nqns.replica(action.replica.replica),
          ...listenerAt(this.#options.internal),
        });
        return;
      case 'add-host':
        await this.#identity.admit(engine, {
          nqn: nqns.replica(action.replica),
          host: action.host,
          secure: this.#options.internal.secure,
        });
        return;
      case 'remove-host':
        await engine.rpc('nvmf_subsystem_remove_host', { nqn: nqns.replica(action.replica), host: action.host });
        return;
      case 'delete-subsystem':
        await engine.rpc('nvmf_delete_subsystem', { nqn: nqns.replica(action.replica) });
        return;
      case 'delete-lvol':
        await engine.rpc('bdev_lvol_delete', {
          name: lvolPath(action.replica),
          // Of what nobody ever drove there is none to name.
          ...(action.epoch > 0 ? { epoch: action.epoch } : {}),
        });
        return;
      case 'report':
        this.#reports.push(this.#report(action.replica, action.state));
        return;
      case 'forget':
        await this.#forget(action.replica, signal);
        return;
    }
  }

  /** It is served as it is; the volume's status says why that is all. */
  async #reportSmall(replica: DesiredReplica, problem: string, signal: AbortSignal): Promise<void> {
    if (replica.reportedProblem === problem || replica.reported !== 'ready') return;
    const put = [this.#reportOf(replica, { state: 'ready', sizeBytes: replica.reportedBytes, problem })];
    await this.#options.link.commit({ put }, signal);
  }

  #report(replica: DesiredReplica, state: 'ready' | 'missing'): Report {
    const madeBytes = this.#options.link.state.get('volumes', replica.volumeId)?.legSizeBytes;
    const grown = state === 'ready' && replica.sizeBytes !== madeBytes;
    return this.#reportOf(replica, grown ? { state, sizeBytes: replica.sizeBytes } : { state });
  }

  #reportOf(replica: DesiredReplica, observed: Pick<ObservedReplica, 'state' | 'sizeBytes' | 'problem'>): Report {
    const { node } = this.#options;
    const { volumeId, disk } = replica;
    const text = codecs.observedReplica.encode({
      format: formatVersion,
      replica: replica.replica,
      volumeId,
      disk,
      node,
      ...observed,
    });
    return { key: keys.observedReplica(replica.replica), text };
  }

  /** The replica is gone: it leaves the volume; the last one takes the volume's objects along. */
  async #forget(replica: DesiredReplica, signal: AbortSignal): Promise<void> {
    const { link } = this.#options;
    if (link.state.get('tombstones', replica.replica) !== null) {
      const remove = [keys.tombstone(replica.replica), keys.observedReplica(replica.replica)];
      await link.commit({ remove }, signal);
      return;
    }
    const stored = link.state.stored('volumes', replica.volumeId);
    if (stored === null) return;
    const legs = stored.value.legs.map((leg) => ({
      replicas: leg.replicas.filter((entry) => entry.replica !== replica.replica),
    }));
    const expect = [{ key: stored.key, revision: stored.revision }];
    const observed = keys.observedReplica(replica.replica);
    const last = legs.every((leg) => leg.replicas.length === 0);
    const done = await link.commit(
      last
        ? {
            expect,
            remove: [stored.key, keys.leadership(replica.volumeId), keys.reservation(replica.volumeId), observed],
          }
        : {
            expect,
            put: [{ key: stored.key, text: codecs.volume.encode({ ...stored.value, legs }) }],
            remove: [observed],
          },
      signal,
    );
    if (!done) throw new Error(`volume ${stored.value.name} changed meanwhile`);
  }

  async #reportDisks(signal: AbortSignal): Promise<void> {
    const { context, link } = this.#options;
    for (const disk of this.#disks) {
      const lvstore = (await lvstoreOn(context.engine, disk.bdev)) ?? disk.lvstore;
      const object = diskObject(this.#opener, { ...disk, lvstore });
      if (link.state.get('cordons', `disk/${object.id}`)?.mode === 'removed') {
        this.#written.delete(object.id);
        continue;
      }
      const text = codecs.disk.encode(object);
      const written = this.#written.get(object.id);
      if (written?.text === text || (written !== undefined && this.#isEarly(written, object))) continue;
      await link.commit({ put: [{ key: keys.disk(object.id), text }] }, signal);
      this.#written.set(object.id, { text, object, atMs: context.clock.now() });
    }
  }

  /** Nothing but the free space differs, and it was told a moment ago: it is told when there is a rest. */
  #isEarly(written: { readonly object: DiskObject; readonly atMs: number }, now: DiskObject): boolean {
    const { clock } = this.#options.context;
    const restMs = written.atMs + spaceReportMs - clock.now();
    const same =
      codecs.disk.encode({ ...now, freeBytes: written.object.freeBytes }) === codecs.disk.encode(written.object);
    if (!same || restMs <= 0) return false;
    this.#spaceTimer ??= clock.setTimer(restMs, () => {
      this.#spaceTimer = null;
      this.#loop.wake();
    });
    return true;
  }
}

function replicaOf(action: DiskAction): string {
  return typeof action.replica === 'string' ? action.replica : action.replica.replica;
}

/** In the order of the plan, which has what frees space first. */
function byReplica(actions: readonly DiskAction[]): DiskAction[][] {
  const groups = new Map<string, DiskAction[]>();
  for (const action of actions) {
    const group = groups.get(replicaOf(action));
    if (group === undefined) groups.set(replicaOf(action), [action]);
    else group.push(action);
  }
  return [...groups.values()];
}

function observedSubsystem(subsystem: SubsystemDescription): ObservedSubsystem {
  return {
    replica: subsystem.nqn.slice(replicaPrefix.length),
    hosts: subsystem.hosts.map((host) => host.nqn),
    hasNamespace: subsystem.namespaces.length > 0,
    hasListener: subsystem.listen_addresses.length > 0,
  };
}
