// SPDX-License-Identifier: Apache-2.0
//
// A whole cluster in one process on one virtual clock: real agents over native engines in a simulated world, a
// simulated store, and hosts that write and read one volume. Whoever drives it ends, pauses and cuts off its nodes.
//
//   const cluster = new ClusterSim(seed, shape);
//   await cluster.start();
//   await cluster.runFor(1_000);
//
// Invariants:  - JavaScript runs until nothing of it can go on, then the world until it has something for JavaScript or
//                a timer is due: one seed and the same calls give the same trace
//              - a killed node is never heard of again: its engine answers nothing, its clock fires nothing

import { NodeAgent } from '../agents/node-agent.js';
import type { ControllerTiming } from '../agents/volume-controller.js';
import { createPool } from '../api/pools.js';
import { volumeView } from '../api/views.js';
import { attachVolume, createVolume, type VolumeDeps } from '../api/volumes.js';
import type { Engine } from '../engine/engine.js';
import type { AddonDiskDamage } from '../engine/native/addon.js';
import { SimClockwork } from '../engine/native/sim-clockwork.js';
import { createSimWorld, type SimWorld } from '../engine/native/sim-world.js';
import { SeededRandom } from '../env/seeded-random.js';
import type { VolumeCreateRequest, VolumeView } from '../model/api.js';
import { ClusterState } from '../model/cluster-state.js';
import { type CompiledNode, compileConfig } from '../model/config.js';
import { hasEnded } from '../model/jobs.js';
import { nqns } from '../model/keys.js';
import { frontIdOf } from '../model/multi-active.js';
import type { Address, VolumeObject } from '../model/objects.js';
import type { Erasure } from '../model/pools.js';
import { InlinePlanner, type PgPlanner } from '../placement/planner.js';
import { locate } from '../placement/route.js';
import { withinRole } from '../store/testing/within-role.js';
import { firstReadable, placesOnDisk, type ReadableDisk } from './disk-reader.js';
import { Drainer } from './drainer.js';
import { History } from './history.js';
import { LeadershipMonitor } from './leadership-monitor.js';
import { Operator } from './operator.js';
import { noBugs, type PlantedBugs } from './planted-bugs.js';
import { RareEvents } from './rare-events.js';
import { ReplicaMonitor } from './replica-monitor.js';
import { type Damage, Scrubber } from './scrubber.js';
import { type ClientLimits, SimHost, type WorkloadMix } from './sim-host.js';
import { SimKeys } from './sim-keys.js';
import { SimProcess } from './sim-process.js';
import { calmStore, type SimStoreKnobs, SimStoreServer } from './sim-store.js';
import { SnapshotTaker } from './snapshot-taker.js';
import { type BlockValue, blockBytes } from './stamp.js';
import { Trace, type TraceListener } from './trace.js';

export interface ClusterShape {
  readonly disks: number;
  readonly controllers: number;
  readonly hosts: number;
  readonly copies: number;
  /** Of the volume that hosts use: so many data and parity members instead of copies. */
  readonly erasure?: Erasure;
  readonly legs: number;
  readonly sizeBytes: number;
  readonly leaseMs: number;
  readonly networkDelayMaxMs: number;
  readonly diskDelayMaxMs: number;
  readonly store: SimStoreKnobs;
  readonly timing: Partial<ControllerTiming>;
  /** After that, what a node that is away held is rebuilt elsewhere. */
  readonly rebuildAfterMs: number;
  readonly bugs: PlantedBugs;
  /** Of the nodes' leases in the store. @default 2 */
  readonly leaseTtlSeconds?: number;
  /** Disk nodes of a version that knows no node links. @default none */
  readonly withoutLinks?: readonly string[];
  /** Of the volume that hosts use: its replicas verify what they read. @default false */
  readonly checksums?: boolean;
  /** Of the volumes that hosts use, at rest. @default false */
  readonly encrypted?: boolean;
  /** Controllers of the volume that hosts use that drive it at once, each a share of its legs and hosts. @default 1 */
  readonly active?: number;
  /** A second volume of the same form, which prefers another controller, with a host of its own. */
  readonly twin?: boolean;
}

const MiB = 1024 * 1024;

export const plainShape: ClusterShape = {
  disks: 2,
  controllers: 2,
  hosts: 1,
  copies: 2,
  legs: 1,
  sizeBytes: 1 * MiB,
  leaseMs: 300,
  networkDelayMaxMs: 0.05,
  diskDelayMaxMs: 0.2,
  store: calmStore,
  timing: { graceMs: 3_000 },
  rebuildAfterMs: 600_000,
  bugs: noBugs,
};

/** Room for the copies of many snapshots. */
const diskBytes = 64 * MiB;
const diskBytesOfSeveral = 512 * MiB;
const disksAddedMax = 2;
const damagedShare = 0.2;
const volumeName = 'v1';
const codedPool = 'coded';
const twinName = 'v2';
const leaseTtlSecondsDefault = 2;
const restartAfterMs = 300;
const rebuildSettleMs = 300;
// Drawn apart, so that clusters without encryption are what they were.
const keyStream = 0x0e5n;

function diskNode(index: number, createBytes: number): object {
  const name = `d${index + 1}`;
  const disks = [{ path: `/disks/${name}`, createBytes }];
  return { name, roles: ['disk'], internalPort: 21_000 + index, disks };
}

export interface ClusterSimOptions {
  /** Hears of every line of the trace. */
  readonly tell?: TraceListener;
}

export class ClusterSim {
  readonly shape: ClusterShape;
  readonly world: SimWorld;
  readonly server: SimStoreServer;
  readonly history: History;
  readonly hosts: SimHost[] = [];
  /** The second volume's. */
  readonly twin: { readonly volume: string; readonly history: History; readonly host: SimHost } | null;
  readonly processes = new Map<string, SimProcess>();
  readonly rareEvents = new RareEvents();
  readonly monitor = new LeadershipMonitor(this.rareEvents);
  readonly replicas = new ReplicaMonitor();
  /** Disk nodes of a version that knows no node links, from their next start on. */
  readonly withoutLinks: Set<string>;
  /** Of a cluster with encrypted volumes. */
  readonly keys: SimKeys | null;
  readonly #intruder: Engine;
  #intrusions = 0;
  readonly #clockwork: SimClockwork;
  readonly #random: SeededRandom;
  readonly #trace: Trace;
  #healCount = 0;
  #volumeId = '';
  #operator: Operator | null = null;
  #drainer: Drainer | null = null;
  #snapshots: SnapshotTaker | null = null;
  #scrubber: Scrubber | null = null;
  #admin: VolumeDeps | null = null;
  #planner: PgPlanner | null = null;
  readonly #stored = new ClusterState();
  #lastSeen: { state: ClusterState; view: VolumeView | null } | null = null;

  constructor(seed: bigint, shape: ClusterShape, options: ClusterSimOptions = {}) {
    this.shape = shape;
    this.withoutLinks = new Set(shape.withoutLinks);
    this.#random = new SeededRandom(seed);
    this.keys = shape.encrypted === true ? new SimKeys(new SeededRandom(seed ^ keyStream)) : null;
    this.world = createSimWorld({
      seed,
      networkDelayMaxNs: Math.round(shape.networkDelayMaxMs * 1e6),
      diskDelayMaxNs: Math.round(shape.diskDelayMaxMs * 1e6),
      // A device writes a logical block whole.
      diskAtomicBytes: blockBytes,
    });
    this.#clockwork = new SimClockwork(this.world);
    this.#trace = new Trace(() => this.nowNs, options.tell ?? null);
    this.history = new History(this.nowNs);
    this.server = new SimStoreServer(this.#clockwork.time.clock(), this.#random.fork(), this.rareEvents);
    this.server.onApply = (changes, revision) => {
      this.#lastSeen = null;
      for (const change of changes) {
        const text = change.kind === 'put' ? change.value.toString() : '';
        this.#stored.apply(change.key, change.kind === 'put' ? text : null, revision);
        this.#trace.add('store', change.kind, `${change.key} @${revision} ${text}`);
        if (change.kind !== 'put') continue;
        this.monitor.saw(change.key, text);
        this.#snapshots?.saw(change.key, text);
        this.#scrubber?.saw(change.key, text);
      }
    };
    this.twin = shape.twin === true ? this.#makeTwin() : null;
    this.#intruder = this.replicas.watch(this.world.createEngine('x1', { clock: this.#clockwork.time.clock() }));
    for (const config of this.#configs()) {
      this.processes.set(config.name, this.#process(config));
    }
  }

  /** With several active controllers there are more legs, and each snapshot is one of each: small disks have few map pages. */
  get #diskBytes(): number {
    return (this.shape.active ?? 1) > 1 ? diskBytesOfSeveral : diskBytes;
  }

  get nowMs(): number {
    return this.nowNs / 1e6;
  }

  get nowNs(): number {
    return this.#clockwork.nowNs;
  }

  get diskNodes(): SimProcess[] {
    return [...this.processes.values()].filter((process) => process.config.roles.includes('disk'));
  }

  get controllerNodes(): SimProcess[] {
    return [...this.processes.values()].filter((process) => process.config.roles.includes('controller'));
  }

  process(name: string): SimProcess {
    const found = this.processes.get(name);
    if (found === undefined) throw new Error(`no node ${name}`);
    return found;
  }

  /** One more machine with a disk, which the cluster has not seen before. null: there are enough. */
  addDiskNode(): string | null {
    const index = this.diskNodes.length;
    if (index >= this.shape.disks + disksAddedMax) return null;
    const [config] = compileConfig({ nodes: [diskNode(index, this.#diskBytes)] }).nodes;
    if (config === undefined) throw new Error('no node was compiled');
    const process = this.#process(config);
    this.processes.set(config.name, process);
    process.start();
    this.rareEvents.reach('disk_node_added');
    return config.name;
  }

  /** Once it has started. */
  get operator(): Operator {
    if (this.#operator === null) throw new Error('the cluster has not started');
    return this.#operator;
  }

  get drainer(): Drainer {
    if (this.#drainer === null) throw new Error('the cluster has not started');
    return this.#drainer;
  }

  /** Of the volume that hosts use. */
  get snapshots(): SnapshotTaker {
    if (this.#snapshots === null) throw new Error('the cluster has not started');
    return this.#snapshots;
  }

  /** Of the same volume. */
  get scrubber(): Scrubber {
    if (this.#scrubber === null) throw new Error('the cluster has not started');
    return this.#scrubber;
  }

  /** Something is being moved, which nothing else may be moved beside. */
  get isMoving(): boolean {
    return this.drainer.isBusy || this.state.all('jobs').some((job) => !hasEnded(job) && job.kind !== 'volume.scrub');
  }

  get volumeName(): string {
    return volumeName;
  }

  /** What is not as somebody asked for, or null: to be asked when everything is up. */
  get unrest(): string | null {
    const { state } = this;
    const atWork = this.operator.unrest(state) ?? this.drainer.unrest(state) ?? this.scrubber.unrest;
    return atWork ?? this.snapshots.unrest(state) ?? this.keys?.unrest(state) ?? null;
  }

  /** What is wrong with a snapshot, or null. Hosts read what they wrote, also afterwards. */
  async judgeSnapshots(): Promise<string | null> {
    const [host] = this.hosts;
    if (host === undefined) throw new Error('no host');
    const nqn = SimHost.nqn(host.name);
    const problem = await this.snapshots.judge({
      state: () => this.state,
      host: nqn,
      read: (volume, what) => host.readOther(nqns.volume(frontIdOf(volume, nqn)), this.#pathsOf(volume), what),
    });
    // What was written to volumes that are made of them is none of this one's.
    await host.readEverything(0);
    return problem;
  }

  /** What is wrong with what the members hold, or null. `random`: blocks of one disk are damaged. */
  judgeMembers(random: SeededRandom | null): Promise<string | null> {
    const [host] = this.hosts;
    if (host === undefined) throw new Error('no host');
    if (this.view.parts !== undefined) return this.#judgeParts(this.view.parts.map(({ id }) => id));
    const damage = random === null ? null : () => this.damageDisk(random);
    return this.scrubber.judge({ damage, read: () => host.readEverything(0) });
  }

  /** Each is scrubbed like a volume. */
  async #judgeParts(parts: readonly string[]): Promise<string | null> {
    const { admin: deps, rareEvents } = this;
    for (const volume of parts) {
      const clock = this.#clockwork.time.clock();
      const problem = await new Scrubber({ deps, clock, volume, rareEvents }).judge({
        damage: null,
        read: async () => {},
      });
      if (problem !== null) return problem;
    }
    return null;
  }

  /**
   * Some of the blocks that hosts wrote, all on one disk, wherever that has them: also in logs and below snapshots.
   * `of`: which disk's; otherwise any of the volume's.
   */
  damageDisk(random: SeededRandom, { of, share = damagedShare }: { of?: string; share?: number } = {}): Damage {
    const candidates = this.view.legs.flat().filter((entry) => of === undefined || entry.node === of);
    const { node, disk } = random.pick(candidates);
    const path = this.process(node).config.disks[0]?.path ?? '';
    const written = this.#writtenBlocks(node, path);
    // Unnoticed damage is told from what is right by checksums, or by most of the members.
    const { checksums = false, copies, erasure } = this.shape;
    const isTold = checksums || (erasure === undefined && copies > 2);
    const chosen = [...written.keys()].filter(() => random.chance(share));
    for (const lba of chosen) {
      const how: AddonDiskDamage = isTold && random.chance(0.5) ? 'changed' : 'unreadable';
      for (const offsetBytes of written.get(lba) ?? []) this.world.damageDisk(node, path, { offsetBytes, how });
    }
    this.note(`damage blocks ${chosen.join(' ')} on disk ${disk}`);
    return { blocks: chosen.length, held: chosen.filter((lba) => this.#isHeldBy(node, lba)).length };
  }

  /** Whether a node's disk surely has this block of the volume somewhere, as what its replica holds now. */
  #isHeldBy(node: string, lba: number): boolean {
    // Of a coded leg the block is on one member; on others it may be in a log.
    if (this.shape.erasure !== undefined || !this.history.isWritten(lba)) return false;
    const volume = this.state.get('volumes', this.#volumeId);
    if (volume === null) return false;
    const stripe = Math.floor((lba * blockBytes) / volume.stripeSizeBytes);
    const leg = volume.route === undefined ? stripe % volume.legs.length : locate(volume.route, lba * blockBytes)?.leg;
    return this.view.legs[leg ?? -1]?.some((entry) => entry.node === node) ?? false;
  }

  /** By block of the volume: where a disk holds something that was written there. */
  #writtenBlocks(node: string, path: string): Map<number, number[]> {
    const volume = this.state.get('volumes', this.#volumeId);
    if (volume === null) throw new Error('the volume is not there');
    return placesOnDisk(this.#disk(node, path), {
      volume: this.history.volume,
      countBlocks: volume.sizeBytes / blockBytes,
      dataKey: this.keys?.dataKeyOf(volume) ?? null,
    });
  }

  #disk(node: string, path: string): ReadableDisk {
    const read = (offsetBytes: number, bytes: Buffer): void => this.world.readDisk(node, path, { offsetBytes, bytes });
    return { sizeBytes: this.#diskBytes, read };
  }

  /** Where a thief of the disks, of lost ones too, reads what hosts wrote; null: nowhere. */
  get readable(): string | null {
    for (const { name, config } of this.diskNodes)
      for (const { path } of config.disks) {
        const at = firstReadable(this.#disk(name, path));
        if (at !== null) return `readable: what a host wrote is in clear on the disk of ${name} at ${at}`;
      }
    return null;
  }

  /** What a host of the cluster reads in another volume, once for every pass. It is admitted there already. */
  readVolume(volume: VolumeObject, passes: number): Promise<BlockValue[][]> {
    const [host] = this.hosts;
    if (host === undefined) throw new Error('no host');
    return host.readOther(nqns.volume(volume.id), this.#pathsOf(volume), { passes });
  }

  /** What requests are carried out with, once it has started. */
  get admin(): VolumeDeps {
    if (this.#admin === null) throw new Error('the cluster has not started');
    return this.#admin;
  }

  note(text: string): void {
    this.#trace.add('run', 'note', text);
  }

  /** Nodes up, one volume made and redundant, hosts connected. */
  async start(): Promise<void> {
    const planner = await InlinePlanner.load();
    this.#planner = planner;
    for (const process of this.processes.values()) process.start();
    await this.#must('nodes did not come up', 30_000, () =>
      [...this.processes.values()].every((process) => process.isUp),
    );
    const clock = this.#clockwork.time.clock();
    const admin = { store: this.server.open('admin', clock), random: this.#random.fork(), planner, keys: this.keys };
    this.#admin = admin;
    this.#operator = new Operator(admin, clock, this.rareEvents);
    this.#drainer = new Drainer(admin, clock, this.rareEvents);
    const { history, rareEvents } = this;
    const watched = { volume: volumeName, history, rareEvents, nowNs: () => this.nowNs };
    this.#snapshots = new SnapshotTaker({ deps: admin, clock, ...watched });
    this.#scrubber = new Scrubber({ deps: admin, clock, volume: volumeName, rareEvents });
    const { copies, erasure, legs, sizeBytes, leaseMs, controllers, checksums = false, encrypted } = this.shape;
    const names = Array.from({ length: controllers }, (_, index) => `c${index + 1}`);
    const redundancy = erasure === undefined ? { copies } : { pool: codedPool };
    if (erasure !== undefined) {
      const pool = { name: codedPool, redundancy: { kind: 'erasure' as const, ...erasure }, pgCount: 4 };
      await this.#await('the pool was not made', createPool(admin, pool));
    }
    const common = { name: volumeName, sizeBytes, legs, leaseMs, controllers: names, stripeSizeBytes: 65536 };
    const { active = 1 } = this.shape;
    const request = { ...common, ...redundancy, checksums, active, ...(encrypted === true ? { encrypt: true } : {}) };
    const made = await this.#await('the volume was not made', createVolume(admin, request));
    this.#volumeId = made.id;
    for (let index = 1; index <= this.shape.hosts; index++) {
      const attached = attachVolume(admin, volumeName, { host: SimHost.nqn(`h${index}`) });
      await this.#await('a host was not admitted', attached);
    }
    this.#makeHosts();
    await this.#must('the volume did not become redundant', 30_000, () => this.redundant);
    const paths = this.#pathsOf({ controllers: names });
    const connecting = this.hosts.map((host) => host.connect(this.#nqnFor(host), paths));
    await this.#await('hosts did not connect', Promise.all(connecting));
    if (this.twin !== null) await this.#startTwin(this.twin, { ...request, controllers: [...names].reverse() });
    this.server.knobs = this.shape.store;
  }

  #nqnFor(host: SimHost): string {
    const volume = this.state.get('volumes', this.#volumeId);
    if (volume === null) throw new Error('the volume is not there');
    return nqns.volume(frontIdOf(volume, SimHost.nqn(host.name)));
  }

  /** Whoever drives the volume; where several do, one after another. */
  get driver(): string | null {
    const { controller, fronts, parts } = this.view;
    if (fronts === undefined || parts === undefined) return controller;
    const names = [...fronts, ...parts].map((each) => each.controller);
    return names[Math.floor(this.nowMs) % names.length] ?? null;
  }

  /** That a replica of the volume obeys, as far as the store knows. */
  epochOf(replica: string): number {
    const { epoch, legs, parts } = this.view;
    const leg = legs.findIndex((members) => members.some((member) => member.replica === replica));
    return parts === undefined ? epoch : (parts[leg % parts.length]?.epoch ?? 0);
  }

  startWorkload(mix: WorkloadMix, limits: ClientLimits = {}): void {
    const count = this.hosts.length;
    for (const [index, host] of this.hosts.entries()) host.start(mix, this.#random.fork(), { index, count, ...limits });
    this.twin?.host.start(mix, this.#random.fork(), { index: 0, count: 1, ...limits });
  }

  stopWorkload(): void {
    for (const host of this.hosts) host.stop();
    this.twin?.host.stop();
  }

  /** True when the condition held within the time; it is asked whenever JavaScript has come to rest. */
  runUntil(condition: () => boolean, limitMs: number): Promise<boolean> {
    return this.#clockwork.runUntil(condition, limitMs * 1e6);
  }

  /** Lets time go by until the promise is settled. @throws what it is rejected with, or {Error} after the time */
  wait<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    return this.#clockwork.wait(promise, limitMs);
  }

  async runFor(durationMs: number): Promise<void> {
    await this.runUntil(() => false, durationMs);
  }

  /** What the store holds now. Asked whenever JavaScript has come to rest, so it is not read anew unless it changed. */
  get state(): ClusterState {
    return this.#seen().state;
  }

  get view(): VolumeView {
    const seen = this.#seen();
    if (seen.view === null) {
      const volume = seen.state.get('volumes', this.#volumeId);
      if (volume === null) throw new Error('the volume is not there');
      seen.view = volumeView(seen.state, volume);
    }
    return seen.view;
  }

  #seen(): { state: ClusterState; view: VolumeView | null } {
    this.#lastSeen ??= { state: this.#stored.copy(), view: null };
    return this.#lastSeen;
  }

  /** Somebody serves the volume, every copy is in sync, and nothing is to be made equal. */
  get redundant(): boolean {
    return this.view.health === 'redundant';
  }

  /** What was seen to be wrong until now. */
  get violation(): string | null {
    const seen = this.history.violation ?? this.twin?.history.violation ?? null;
    return seen ?? this.monitor.violation ?? this.replicas.violation ?? this.#scrubber?.violation ?? null;
  }

  /** A controller of an epoch long past finds the replica and asks for it. */
  intrude(replica: string, epoch: number): void {
    const placed = this.view.legs.flat().find((entry) => entry.replica === replica);
    const address = placed === undefined ? null : (this.state.get('lives', placed.node)?.internal ?? null);
    if (address === null) return;
    const name = `intruder-${++this.#intrusions}`;
    const hostnqn = nqns.controller('c1');
    const params = { name, ...address, subnqn: nqns.replica(replica), hostnqn, epoch, timeout_ms: 500 };
    this.#intruder.rpc('basalt_member_attach', params).then(
      () => this.#intruder.rpc('basalt_member_detach', { name }).catch(() => {}),
      (error: unknown) => {
        if (/epoch/i.test(String(error))) this.rareEvents.reach('intruder_refused');
      },
    );
  }

  /** How fast the one who drives volumes now copies to members that return; its successors do as they like. */
  async paceCopying(pace: { bytes_per_s?: number; paused?: boolean }): Promise<void> {
    const engine = this.processes.get(this.driver ?? '')?.engine ?? null;
    const bdevs = (await engine?.rpc('bdev_get_bdevs', {})) ?? [];
    const legs = bdevs.filter(({ product_name }) => product_name === 'leg');
    await Promise.all(legs.map(({ name }) => engine?.rpc('basalt_leg_set_resync', { name, ...pace })));
  }

  /** Calls `fn` after a while of virtual time, unless the cluster was healed before. */
  after(delayMs: number, fn: () => void): void {
    const round = this.#healCount;
    this.server.clock.setTimer(delayMs, () => {
      if (round === this.#healCount) fn();
    });
  }

  /** Ends every fault, and starts what is down. */
  heal(): void {
    this.note('heal');
    this.#healCount++;
    this.server.knobs = calmStore;
    this.server.heal();
    this.world.healAll();
    this.world.clearLinks();
    for (const process of this.processes.values()) process.heal();
  }

  /** Ends everything at once. Returns the trace's digest. */
  close(): string {
    for (const process of this.processes.values()) process.kill();
    for (const host of this.hosts) this.world.kill(host.name);
    if (this.twin !== null) this.world.kill(this.twin.host.name);
    this.world.kill('x1');
    return this.#trace.digest(this.world.traceHash());
  }

  #configs(): CompiledNode[] {
    const disks = Array.from({ length: this.shape.disks }, (_, index) => diskNode(index, this.#diskBytes));
    const controllers = Array.from({ length: this.shape.controllers }, (_, index) => ({
      name: `c${index + 1}`,
      roles: ['controller'],
      hostPort: 22_000 + index,
    }));
    return [...compileConfig({ nodes: [...disks, ...controllers] }).nodes];
  }

  #process(config: CompiledNode): SimProcess {
    return new SimProcess({
      config,
      world: this.world,
      time: this.#clockwork.time,
      server: this.server,
      random: this.#random.fork(),
      bugs: this.shape.bugs,
      knowsLinks: () => !this.withoutLinks.has(config.name),
      replicas: this.replicas,
      restartAfterMs,
      keys: this.keys,
      rareEvents: this.rareEvents,
      trace: (what, text) => this.#trace.add(config.name, what, text),
      makeAgent: (context, store) => {
        const { timing, rebuildAfterMs, leaseTtlSeconds = leaseTtlSecondsDefault } = this.shape;
        const placement = { graceMs: rebuildAfterMs, settleMs: rebuildSettleMs };
        // A planner with a thread of its own would answer when it likes.
        if (this.#planner === null) throw new Error('the cluster has not started');
        return new NodeAgent({
          context,
          store: withinRole(store, 'node'),
          node: config,
          leaseTtlSeconds,
          timing,
          placement,
          planner: this.#planner,
        });
      },
    });
  }

  #pathsOf({ controllers }: { readonly controllers: readonly string[] }): Address[] {
    const nodes = this.controllerNodes.filter(({ name }) => controllers.includes(name));
    return nodes.map(({ config }) => ({ traddr: config.address, trsvcid: String(config.hostPort) }));
  }

  #makeHosts(): void {
    for (let index = 1; index <= this.shape.hosts; index++) {
      const name = `h${index}`;
      const clock = this.#clockwork.time.clock();
      const engine = this.world.createEngine(name, { clock });
      const options = { name, engine, clock, history: this.history, nowNs: () => this.nowNs };
      this.hosts.push(new SimHost({ ...options, onOp: (text) => this.#trace.add(name, 'op', text) }));
    }
  }

  #makeTwin(): NonNullable<ClusterSim['twin']> {
    const name = 'g1';
    const clock = this.#clockwork.time.clock();
    const history = new History(this.nowNs, 2);
    const engine = this.world.createEngine(name, { clock });
    const onOp = (text: string): void => this.#trace.add(name, 'op', text);
    const host = new SimHost({ name, engine, clock, history, nowNs: () => this.nowNs, onOp });
    return { volume: twinName, history, host };
  }

  async #startTwin({ volume, host }: NonNullable<ClusterSim['twin']>, request: VolumeCreateRequest): Promise<void> {
    const made = await this.#await('the twin was not made', createVolume(this.admin, { ...request, name: volume }));
    await this.#await('its host was not admitted', attachVolume(this.admin, volume, { host: SimHost.nqn(host.name) }));
    const isRedundant = (): boolean => {
      const { state } = this;
      const found = state.get('volumes', made.id);
      return found !== null && volumeView(state, found).health === 'redundant';
    };
    await this.#must('the twin did not become redundant', 30_000, isRedundant);
    const paths = this.#pathsOf({ controllers: request.controllers ?? [] });
    await this.#await('its host did not connect', host.connect(nqns.volume(made.id), paths));
  }

  async #must(problem: string, limitMs: number, condition: () => boolean): Promise<void> {
    if (!(await this.runUntil(condition, limitMs))) throw new Error(`${problem} within ${limitMs} ms`);
  }

  async #await<T>(problem: string, promise: Promise<T>): Promise<T> {
    try {
      return await this.#clockwork.wait(promise, 30_000);
    } catch (cause) {
      throw new Error(problem, { cause });
    }
  }
}
