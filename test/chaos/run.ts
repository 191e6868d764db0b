// SPDX-License-Identifier: Apache-2.0
// A chaos run: a cluster of processes and three clients, a fault at every interval until the time is over, then rest and
// judgement.
// Owner of everything it starts; end() or endNow() on every path.

import { mkdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { packageRoot } from '../../src/engine/native/addon.js';
import { systemClock } from '../../src/env/clock.js';
import type { VolumeView } from '../../src/model/api.js';
import type { ClientPlan, ClientTarget } from './client.js';
import { ClientProcess } from './client-process.js';
import { type Fault, FaultDeck, type FaultKind, faultKinds } from './faults.js';
import { checkHistories } from './judge.js';
import { ChaosNetwork } from './network.js';
import type { ChaosOptions } from './options.js';
import { SeededRandom } from './random.js';
import { differences, type ReplicaImage, readReplicas } from './replicas.js';
import { ChaosReport, type FaultRecord } from './report.js';
import { blockBytes } from './stamp.js';
import { type Sample, sampleProcess, slopeOf } from './usage.js';

const MiB = 1024 * 1024;
const volumeBytes = 16 * MiB;
const diskBytes = 512 * MiB;
const depth = 8;
const sampleMs = 2_000;
/** From the end of a fault until the cluster is whole and every client goes on. */
const recoveryMsMax = 90_000;
const drainMsMax = 60_000;
const scrubMsMax = 120_000;
const hostNqn = 'nqn.2026-01.io.basalt:host:chaos';
const controllers = ['controller-1', 'controller-2'];
const kinds = ['nvme', 'coded', 'nbd', 'embedded'] as const;
type Kind = (typeof kinds)[number];
/** Driven by controller nodes. */
const served = kinds.filter((kind) => kind !== 'embedded');
/** Each block is on two disks; of the others it is on one, and their disks hold parity. */
const mirrored = kinds.filter((kind) => kind !== 'coded');
const codedPool = { name: 'coded', redundancy: { kind: 'erasure', data: 2, parity: 1 } } as const;

export class ChaosRun {
  readonly report: ChaosReport;
  readonly #options: ChaosOptions;
  readonly #folder: string;
  /** Elsewhere: a socket's path has little room. */
  readonly #sockets: string;
  readonly #random: SeededRandom;
  readonly #originNs = process.hrtime.bigint();
  readonly #startedMs = systemClock.now();
  readonly #samples = new Map<string, Sample[]>();
  readonly #clients = new Map<Kind, ClientProcess>();
  readonly #volumes = new Map<Kind, VolumeView>();
  #network: ChaosNetwork | null = null;
  #cluster: DemoCluster | null = null;
  #sampler: NodeJS.Timeout | null = null;
  #healedNs = 0;
  /** The volumes that each node drove when it was last looked at. */
  #roles = new Map<string, string>();

  constructor(options: ChaosOptions) {
    this.#options = options;
    this.report = new ChaosReport(options);
    this.#random = new SeededRandom(options.seed);
    this.#folder = join(packageRoot(), '.cache', 'chaos', `${process.pid}`);
    this.#sockets = join(tmpdir(), `basalt-chaos-${process.pid}`);
  }

  get folder(): string {
    return this.#folder;
  }

  async run(): Promise<void> {
    for (const folder of [this.#folder, this.#sockets]) mkdirSync(folder, { recursive: true });
    this.#probeHeaps();
    await this.#startCluster();
    await this.#startClients();
    this.#sampler = setInterval(() => this.#sample(), sampleMs);
    await this.#faults();
    await this.#rest();
    const images = await this.#shutDown();
    await checkHistories(this.report, {
      folder: this.#folder,
      healedNs: this.#healedNs,
      volumes: kinds.map((kind) => ({ name: kind, number: volumeNumber(this.#volume(kind)) })),
      images,
    });
  }

  /** What the report says of clients and processes, whatever happened. */
  conclude(): void {
    this.report.elapsedMs = systemClock.now() - this.#startedMs;
    this.report.clients = [...this.#clients.values()].map((client) => ({ name: client.name, ...client.totals }));
    // A short run still shows figures, of what little there is.
    const warmUpMs = Math.min(60_000, (this.#options.minutes * 60_000) / 5);
    const times = [...this.#samples.values()].flat().map(({ atMs }) => atMs);
    const [firstMs, lastMs] = times.reduce(([low, high], at) => [Math.min(low, at), Math.max(high, at)], [Infinity, 0]);
    const lastThirdMs = firstMs + ((lastMs - firstMs) * 2) / 3;
    this.report.slopes = [...this.#samples]
      .map(([name, samples]) => slopeOf(name, samples, { warmUpMs, lateMs: lastThirdMs }))
      .filter((slope) => slope !== null);
  }

  async end(): Promise<void> {
    this.endNow();
    await this.#cluster?.killAll();
    rmSync(this.#sockets, { recursive: true, force: true });
  }

  endNow(): void {
    if (this.#sampler !== null) clearInterval(this.#sampler);
    for (const client of this.#clients.values()) client.killNow();
    this.#cluster?.killAllNow();
    this.#network?.killAllNow();
  }

  removeFolder(): void {
    for (const folder of [this.#folder, this.#sockets])
      rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  #say(text: string): void {
    const seconds = ((systemClock.now() - this.#startedMs) / 1000).toFixed(1).padStart(7);
    process.stderr.write(`[${seconds} s] ${text}\n`);
  }

  #running(): DemoCluster {
    if (this.#cluster === null) throw new Error('the cluster was not started');
    return this.#cluster;
  }

  #client(kind: Kind): ClientProcess {
    const found = this.#clients.get(kind);
    if (found === undefined) throw new Error(`there is no ${kind} client`);
    return found;
  }

  #volume(kind: Kind): VolumeView {
    const found = this.#volumes.get(kind);
    if (found === undefined) throw new Error(`there is no ${kind} volume`);
    return found;
  }

  /** Every process that is started from now on says what its heap holds. */
  #probeHeaps(): void {
    const probe = new URL('./heap-probe.mjs', import.meta.url).href;
    process.env['NODE_OPTIONS'] = `${process.env['NODE_OPTIONS'] ?? ''} --import ${probe}`.trim();
    process.env['BASALT_CHAOS_HEAPS'] = this.#folder;
  }

  async #startCluster(): Promise<void> {
    const stores = this.#options.store === 'etcd' ? ['store-1', 'store-2', 'store-3'] : ['store'];
    const daemons = [...stores, 'api', 'disk-1', 'disk-2', 'disk-3', ...controllers];
    if (ChaosNetwork.available) this.#network = await ChaosNetwork.make([...daemons, ...kinds.map(hostName)]);
    else this.report.notes.push('no network namespaces here (root or user namespaces are needed): nothing was cut off');
    const network = this.#network;
    this.#say(`starting ${daemons.length} daemons${network === null ? '' : ', each with an address of its own'}`);
    this.#cluster = await DemoCluster.plan({
      folder: this.#folder,
      diskBytes,
      store: this.#options.store,
      // What a process holds open is counted, which it refuses otherwise where this is not root.
      environment: { BASALT_CORE_DUMPS: '1' },
      ...(network === null ? {} : { place: (name) => network.place(name) }),
    });
    await this.#cluster.start();
    const { api } = this.#cluster;
    await api.createPool(codedPool);
    for (const kind of kinds) {
      const where = kind === 'embedded' ? [] : controllers;
      const kept = kind === 'coded' ? { pool: codedPool.name } : { copies: 2 };
      await api.createVolume({ name: kind, sizeBytes: volumeBytes, ...kept, legs: 4, controllers: where });
    }
    for (const kind of ['nvme', 'coded']) await api.attach(kind, { host: hostNqn });
    for (const node of controllers) await api.attach('nbd', { nbd: { path: this.#nbdPath(node), node } });
    for (const kind of kinds) {
      if (kind !== 'embedded') await this.#wholeVolume(kind, recoveryMsMax);
      this.#volumes.set(kind, await api.volume(kind));
    }
  }

  #nbdPath(node: string): string {
    return join(this.#sockets, `${node}.nbd`);
  }

  async #startClients(): Promise<void> {
    for (const [at, kind] of kinds.entries()) {
      const plan: ClientPlan = {
        target: await this.#target(kind),
        volume: `${volumeNumber(this.#volume(kind))}`,
        writer: at + 1,
        blocks: volumeBytes / blockBytes,
        depth,
        rate: this.#options.rate,
        seed: this.#options.seed + at,
        historyPath: join(this.#folder, kind),
        originNs: `${this.#originNs}`,
      };
      const prefix = this.#network?.place(hostName(kind)).prefix ?? [];
      const client = new ClientProcess(kind, plan, { prefix, folder: this.#folder });
      this.#clients.set(kind, client);
    }
    await Promise.all([...this.#clients.values()].map((client) => client.start()));
    await this.#noteRoles();
    this.#say(`${kinds.join(', ')} clients run, ${this.#options.rate} requests a second each`);
  }

  async #target(kind: Kind): Promise<ClientTarget> {
    const volume = this.#volume(kind);
    switch (kind) {
      case 'nvme':
      case 'coded': {
        const paths = volume.paths.map(({ node, address }) => {
          if (address === null) throw new Error(`${node} does not say where hosts reach it`);
          return address;
        });
        return { kind: 'nvme', nqn: volume.nqn, hostNqn, paths };
      }
      case 'nbd':
        return { kind, paths: controllers.map((node) => this.#nbdPath(node)), volumeName: volume.name };
      case 'embedded': {
        const { store } = await this.#running().api.status();
        return { kind, store: store.endpoints, volumeName: volume.name };
      }
    }
  }

  async #faults(): Promise<void> {
    const { minutes, faultIntervalMs, faultsAtOnce, only } = this.#options;
    const usable = faultKinds.filter(
      (kind) => (only === null || kind.name.includes(only)) && (this.#network !== null || kind.needsNetwork !== true),
    );
    if (usable.length === 0) throw new Error(`no fault is called ${only}`);
    const deck = new FaultDeck(usable, this.#random);
    const endMs = systemClock.now() + minutes * 60_000;
    let dueMs = systemClock.now() + Math.min(faultIntervalMs, 10_000);
    while (dueMs < endMs) {
      await systemClock.sleep(Math.max(0, dueMs - systemClock.now()));
      dueMs = Math.max(dueMs, systemClock.now() - faultIntervalMs) + faultIntervalMs;
      await this.#strike(deck.hand(faultsAtOnce));
    }
    await systemClock.sleep(Math.max(0, endMs - systemClock.now()));
  }

  /** What `kinds` do, at the same time, and what becomes of it. */
  async #strike(kinds: readonly FaultKind[]): Promise<void> {
    const atMs = systemClock.now();
    for (const client of this.#clients.values()) await client.tell('mark', 10_000);
    const struck: { kind: FaultKind; fault: Fault }[] = [];
    for (const kind of kinds) {
      const fault = await this.#inject(kind);
      if (fault !== null) struck.push({ kind, fault });
    }
    if (struck.length === 0) return;
    for (const { kind, fault } of struck.toReversed()) {
      await systemClock.sleep(Math.max(0, atMs + fault.holdMs - systemClock.now()));
      await fault.heal();
      this.#say(`  ${kind.name} has ended`);
    }
    const healedMs = systemClock.now();
    const problem = await this.#whole(recoveryMsMax).then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const names = struck.map(({ kind }) => kind.name).join(' and ');
    const targets = struck.map(({ fault }) => fault.target).join(', ');
    const record: FaultRecord = {
      kind: names,
      target: targets,
      atMs: atMs - this.#startedMs,
      heldMs: healedMs - atMs,
      recoveredMs: problem === null ? systemClock.now() - healedMs : null,
      gapsMs: Object.fromEntries([...this.#clients.values()].map(({ name, gapMs }) => [name, gapMs])),
    };
    this.report.faults.push(record);
    const { length } = this.report.faults;
    this.report.check(`whole again after fault ${length}, ${names}`, problem === null, problem ?? '');
    const how = problem ?? `whole again in ${((record.recoveredMs ?? 0) / 1000).toFixed(1)} s`;
    this.#say(`  ${how}; ${gapText(record.gapsMs)}`);
    this.#expectEverybody(targets);
  }

  async #inject(kind: FaultKind): Promise<Fault | null> {
    const fault = await kind.inject({
      cluster: this.#running(),
      network: this.#network,
      random: this.#random,
      embedded: this.#client('embedded'),
      hostName: hostName('nvme'),
      activeController: () => this.#activeController(),
    });
    if (fault === null) this.report.notes.push(`${kind.name}: this machine cannot`);
    else this.#say(`${kind.name} (${fault.target}) for ${(fault.holdMs / 1000).toFixed(1)} s`);
    return fault;
  }

  /** A daemon that ended by itself is a finding; it is started again so that the run can go on. */
  #expectEverybody(targets: string): void {
    for (const daemon of this.#running().daemons) {
      if (daemon.pid === undefined) this.report.check(`${daemon.name} runs`, false, `it ended after ${targets}`);
    }
  }

  async #noteRoles(): Promise<void> {
    const roles = new Map<string, string>();
    for (const kind of served) {
      const { controller } = await this.#running().api.volume(kind);
      if (controller !== null) roles.set(controller, `${roles.get(controller) ?? ''} ${kind}`);
    }
    this.#roles = roles;
  }

  async #activeController(): Promise<string> {
    const { controller } = await this.#running().api.volume('nvme');
    if (controller === null) throw new Error('nobody drives the volume');
    return controller;
  }

  #wholeVolume(kind: Kind, msMax: number): Promise<VolumeView> {
    return this.#running().waitForVolume(kind, 'redundant, served and with a standby', msMax, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && (kind === 'embedded' || states.join(' ') === 'active standby');
    });
  }

  /** Every volume redundant with all its controllers, and every client goes on. */
  async #whole(msMax: number): Promise<void> {
    const endMs = systemClock.now() + msMax;
    for (const kind of kinds) await this.#wholeVolume(kind, Math.max(1_000, endMs - systemClock.now()));
    await this.#noteRoles();
    for (const client of this.#clients.values()) {
      const goal = client.completed + 20;
      while (client.completed < goal) {
        if (client.pid === undefined) throw new Error(`the ${client.name} client ended`);
        if (systemClock.now() > endMs) throw new Error(`the ${client.name} client does not go on`);
        await systemClock.sleep(50);
      }
    }
  }

  #sample(): void {
    const processes = [
      ...(this.#cluster?.daemons ?? []),
      ...this.#clients.values(),
      { name: 'runner', pid: process.pid },
    ];
    for (const { name, pid } of processes) {
      const sample =
        pid === undefined ? null : sampleProcess(pid, this.#roles.get(name) ?? '', systemClock.now(), this.#folder);
      if (sample === null) continue;
      const samples = this.#samples.get(name) ?? [];
      samples.push(sample);
      this.#samples.set(name, samples);
    }
  }

  /** After the last fault: all volumes whole, every request answered, every block what it should be. */
  async #rest(): Promise<void> {
    this.#healedNs = Number(process.hrtime.bigint() - this.#originNs);
    const startedMs = systemClock.now();
    const problem = await this.#whole(recoveryMsMax).then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const wholeMs = systemClock.now() - startedMs;
    this.report.check('fully redundant after the last fault', problem === null, problem ?? `${wholeMs.toFixed(0)} ms`);
    for (const client of this.#clients.values()) {
      const failure = await this.#quiet(client);
      this.report.check(
        `${client.name}: every request was answered, every block verified`,
        failure === null,
        failure ?? '',
      );
      const { errors, violations, words } = client.totals;
      this.report.check(`${client.name}: no error reached the client`, errors === 0, errors === 0 ? '' : `${errors}`);
      this.report.check(
        `${client.name}: every read was right`,
        violations === 0,
        violations === 0 ? '' : (words[0] ?? ''),
      );
      this.report.check(`${client.name}: the process never ended by itself`, client.unexpectedEnds === 0);
    }
    for (const kind of served) await this.#scrub(kind);
  }

  /** Of copies and of parity nothing may differ, now that nothing changes any more. */
  async #scrub(kind: Kind): Promise<void> {
    const cluster = this.#running();
    const { id } = await cluster.api.scrubVolume(kind, { repair: false });
    const { state, result } = await cluster.jobEnded(id, scrubMsMax);
    const sound = state === 'done' && result?.['differentBlocks'] === 0 && result['unreadableBlocks'] === 0;
    this.report.check(`${kind}: a scrub finds nothing`, sound, `${state}, ${JSON.stringify(result)}`);
  }

  async #quiet(client: ClientProcess): Promise<string | null> {
    try {
      await client.tell('stop', 30_000);
      await client.tell('verify', 120_000);
      return null;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Everything ends in order, then the replicas are read from the disks. */
  async #shutDown(): Promise<ReplicaImage[]> {
    if (this.#sampler !== null) clearInterval(this.#sampler);
    const cluster = this.#running();
    const { api } = cluster;
    const volumes = await Promise.all(mirrored.map((kind) => api.volume(kind)));
    this.#say('ending clients and daemons in order');
    for (const client of this.#clients.values()) {
      const failure = await client.tell('close', drainMsMax).then(
        () => null,
        (error: unknown) => String(error),
      );
      this.report.check(`${client.name}: closed in order`, failure === null, failure ?? '');
    }
    for (const names of [controllers, ['disk-1', 'disk-2', 'disk-3'], ['api'], cluster.storeNames]) {
      for (const name of names) {
        const code = await cluster.daemon(name).terminate();
        // etcd ends by the signal that it caught.
        const inOrder = code === 0 || (this.#options.store === 'etcd' && cluster.storeNames.includes(name));
        this.report.check(`${name} ended in order on SIGTERM`, inOrder, inOrder ? '' : `exit code ${code}`);
      }
    }
    const disks = new Map(['disk-1', 'disk-2', 'disk-3'].map((name) => [name, join(this.#folder, `${name}.disk`)]));
    const images = await readReplicas(volumes, disks);
    const different = differences(images);
    this.report.check(
      `the replicas of all ${images.length / 2} legs are equal`,
      different.length === 0,
      different.join('; '),
    );
    return images;
  }
}

function hostName(kind: Kind): string {
  return `host-${kind}`;
}

/** The first 52 bits of the volume's UUID: a number that JSON carries. */
function volumeNumber(volume: VolumeView): bigint {
  return BigInt(`0x${volume.id.replaceAll('-', '').slice(0, 13)}`);
}

function gapText(gapsMs: Readonly<Record<string, number>>): string {
  return `gaps ${Object.entries(gapsMs)
    .map(([name, ms]) => `${name} ${(ms / 1000).toFixed(2)} s`)
    .join(', ')}`;
}
