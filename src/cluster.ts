// SPDX-License-Identifier: Apache-2.0
//
// Basalt inside a TypeScript program: the calling process becomes the volume's controller and talks straight to the disk
// nodes, with no server in between.
//
//   const cluster = await Cluster.connect({ api: '127.0.0.1:7420' });
//   const volume = await cluster.open('vol1');
//   await volume.write(0, buffer);
//   await volume.close();
//   await cluster.close();

import { slotName } from './agents/assembly.js';
import { ensureCluster } from './agents/cluster-identity.js';
import { ClusterKeyFile } from './agents/cluster-key-file.js';
import type { Logger } from './agents/context.js';
import { replicaResolver } from './agents/controller-agent.js';
import { liveTtlSeconds } from './agents/node-agent.js';
import { type Identity, NodeIdentity, noIdentity } from './agents/node-identity.js';
import { NodeKeyFile } from './agents/node-key-file.js';
import { publishSize } from './agents/publish-size.js';
import { scrubPort } from './agents/scrub-worker.js';
import { snapshotPort } from './agents/snapshot-port.js';
import { StoreLink } from './agents/store-link.js';
import { type ControllerTiming, VolumeController } from './agents/volume-controller.js';
import { ApiClient } from './client/api-client.js';
import type { BdevHandle, Engine } from './engine/engine.js';
import { EngineIoError } from './engine/errors.js';
import { type Clock, systemClock } from './env/clock.js';
import { type Random, systemRandom } from './env/random.js';
import type { KeySource } from './model/cluster-key.js';
import { BasaltError, isBasaltError } from './model/errors.js';
import { keys } from './model/keys.js';
import { refuseMultiActive } from './model/multi-active.js';
import { codecs, formatVersion, type VolumeObject } from './model/objects.js';
import { isReserved } from './model/reservations.js';
import type { StoreFiles } from './store/etcd/credentials.js';
import type { Store } from './store/store.js';

export interface ConnectOptions {
  /** `<address>:<port>` of an API server, which names the store; with `https://` one that is elsewhere. */
  readonly api?: string;
  /** What that is shown, where it asks for a token. @default none */
  readonly apiToken?: string;
  /** The text (PEM) of the certificates that its own may be signed by. @default those that the machine trusts */
  readonly apiCa?: string;
  /** Endpoints of the store, or a store that is open already and stays the caller's. */
  readonly store?: string | readonly string[] | Store;
  /** How the store is reached, as the configuration file's `store` says it. @default without TLS and user */
  readonly storeSecurity?: Partial<StoreFiles>;
  /** The engine that moves the bytes; it stays the caller's. @default a native engine of this cluster's own */
  readonly engine?: Engine;
  /** @default nothing is logged */
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly timing?: Partial<ControllerTiming>;
  /**
   * Path of the machine's cluster key file (mode 0600), or where else keys come from. Encrypted volumes need it.
   * @default none
   */
  readonly clusterKey?: string | KeySource;
  /** Path of the cluster's node key file (mode 0600), where its nodes have one. @default none */
  readonly nodeKey?: string;
  /** How long connecting may take. @default 10_000 */
  readonly timeoutMs?: number;
}

export interface OpenOptions {
  /** Takes the volume from whoever drives it now. @default false */
  readonly takeover?: boolean;
  /** How long opening may take. @default 30_000 */
  readonly timeoutMs?: number;
  /** How long a read, write or flush waits for replicas while none of a leg's can be had. @default 30_000 */
  readonly ioTimeoutMs?: number;
}

const quiet: Logger = Object.freeze({ debug: () => {}, info: () => {}, warn: () => {}, error: () => {} });

interface Parts {
  readonly engine: Engine;
  readonly ownEngine: boolean;
  readonly store: Store;
  readonly ownStore: boolean;
  readonly link: StoreLink;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Partial<ControllerTiming>;
  readonly keys: KeySource | null;
  readonly identity: Identity;
}

export class Cluster {
  /** What this process is called as a controller. */
  readonly name: string;
  readonly #parts: Parts;
  readonly #volumes = new Map<string, Volume>();
  readonly #opening = new Set<string>();
  #closing: Promise<void> | null = null;

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.name = `embedded-${parts.random.bytes(6).toString('hex')}`;
  }

  /** @throws API_UNREACHABLE, STORE_UNREACHABLE and the like when nothing answers in time */
  static async connect(options: ConnectOptions): Promise<Cluster> {
    const { clock = systemClock, random = systemRandom, log = quiet, timing = {} } = options;
    const signal = AbortSignal.timeout(options.timeoutMs ?? 10_000);
    const identity = options.nodeKey === undefined ? noIdentity : await identityFrom(options.nodeKey, random);
    const { store, own: ownStore } = await openStoreOf(options);
    const link = new StoreLink({ store, clock, log, leaseTtlSeconds: liveTtlSeconds });
    try {
      await ensureCluster(store, { clock, random, log }, signal);
      await link.open(signal);
      const engine = options.engine ?? (await ownEngineOf());
      const ownEngine = options.engine === undefined;
      const { clusterKey = null } = options;
      const keys = typeof clusterKey === 'string' ? new ClusterKeyFile(clusterKey, random) : clusterKey;
      return new Cluster({ engine, ownEngine, store, ownStore, link, log, clock, random, timing, keys, identity });
    } catch (error) {
      await link.close();
      if (ownStore) await store.close();
      throw error;
    }
  }

  get engine(): Engine {
    return this.#parts.engine;
  }

  /**
   * Resolves when this process drives the volume.
   * @throws NOT_FOUND, VOLUME_LED while a controller lives and `takeover` is not set, VOLUME_UNAVAILABLE, VOLUME_FENCED,
   *         VOLUME_RESERVED while a host has reserved it, NODE_KEY_FILE where nodes speak TLS and there is no node key;
   *         for an encrypted volume CLUSTER_KEY_MISSING when this process was not given the key that its data key is
   *         wrapped by, CLUSTER_KEY_FILE, VOLUME_KEY_DAMAGED
   */
  async open(name: string, options: OpenOptions = {}): Promise<Volume> {
    this.#assertOpen();
    const object = this.#parts.link.state.volumeByName(name);
    if (object === null || object.phase !== 'live') throw new BasaltError('NOT_FOUND', { kind: 'volume', name });
    refuseMultiActive(object, 'being opened in a program');
    if (this.#volumes.has(object.id) || this.#opening.has(object.id))
      throw new BasaltError('BUSY', { kind: 'volume', name, detail: 'open in this process already' });
    this.#opening.add(object.id);
    try {
      return await this.#open(object, options);
    } finally {
      this.#opening.delete(object.id);
    }
  }

  async #open(object: VolumeObject, options: OpenOptions): Promise<Volume> {
    const { link } = this.#parts;
    this.#assertNotReserved(object);
    this.#assertLetIn(object);
    const takeover = options.takeover === true;
    const seenEpoch = takeover ? null : this.#assertFree(object);
    await this.#announce();
    const signal = AbortSignal.timeout(options.timeoutMs ?? 30_000);
    const controller = this.#controllerOf(object);
    // What was seen free may have been taken since: then it is not free.
    try {
      await controller.promote({ takeover: true, signal, ...(seenEpoch === null ? {} : { seenEpoch }) });
    } catch (error) {
      // The right goes back to those who can use it.
      if (isBasaltError(error, 'VOLUME_RESERVED')) await controller.handOver();
      throw error;
    }
    const handle = await this.#parts.engine.openBdev(slotName(object.id));
    const end = link.onChange(() => this.#watch(object, controller));
    const patience: Patience = {
      clock: this.#parts.clock,
      timeoutMs: options.ioTimeoutMs ?? 30_000,
      isLost: () => controller.state === 'idle',
    };
    const volume = new Volume(object, handle, patience, async () => {
      this.#volumes.delete(object.id);
      await controller.handOver();
      end();
      await controller.demote('closed');
      await handle.close();
      await this.#parts.engine.rpc('basalt_slot_delete', { name: slotName(object.id) });
    });
    this.#volumes.set(object.id, volume);
    return volume;
  }

  /** Before anything is taken from anybody. @throws NODE_KEY_FILE */
  #assertLetIn(object: VolumeObject): void {
    const { link, identity } = this.#parts;
    if (identity !== noIdentity) return;
    const nodes = object.legs.flatMap((leg) => leg.replicas.map((replica) => replica.node));
    const secure = nodes.find((node) => link.state.lastLive(node)?.internal?.secure === true);
    if (secure === undefined) return;
    const problem = `node ${secure} speaks TLS with nodes only: give the cluster's as \`nodeKey\``;
    throw new BasaltError('NODE_KEY_FILE', { path: 'none', problem });
  }

  /** Closes every open volume; a second close resolves with the first. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { engine, ownEngine, store, ownStore, link } = this.#parts;
    await Promise.all([...this.#volumes.values()].map((volume) => volume.close()));
    await link.close();
    if (ownEngine) await engine.close();
    if (ownStore) await store.close();
  }

  #controllerOf(volume: VolumeObject): VolumeController {
    const { link, engine, clock, random, log, timing, keys: source, identity } = this.#parts;
    return new VolumeController({
      context: { engine, clock, random, log, keys: source, identity },
      volume,
      name: this.name,
      leadership: link.leadership(volume.id),
      resolve: replicaResolver(link),
      onRight: async (_granted, signal) => {
        // Whoever drove it before may have let a host reserve it until then.
        const found = await link.reservations(volume.id).read(signal);
        if (found !== null && isReserved(found.value)) throw new BasaltError('VOLUME_RESERVED', { name: volume.name });
      },
      onServing: async () => {},
      publishSize: (servedBytes, signal) => publishSize(link, volume.id, { servedBytes, signal }),
      snapshots: snapshotPort(link, volume.id),
      scrubs: scrubPort(link, volume.id),
      onChange: () => {},
      timing,
    });
  }

  #watch(volume: VolumeObject, controller: VolumeController): void {
    const { link } = this.#parts;
    const leadership = link.state.get('leaderships', volume.id);
    // Replicas may have been given successors.
    const present = link.state.get('volumes', volume.id);
    if (present !== null) controller.update(present, leadership);
    if (controller.state === 'active' && leadership !== null && leadership.epoch > controller.view.epoch) {
      void controller.demote(`epoch ${leadership.epoch} belongs to ${leadership.controller ?? 'nobody'}`);
    }
    controller.poke();
  }

  /** A program has no host identifier, and could not be kept out of what it drives itself. */
  #assertNotReserved(volume: VolumeObject): void {
    const reservation = this.#parts.link.state.get('reservations', volume.id);
    if (reservation !== null && isReserved(reservation))
      throw new BasaltError('VOLUME_RESERVED', { name: volume.name });
  }

  /** The epoch at which it is free. */
  #assertFree(volume: VolumeObject): number {
    const { state } = this.#parts.link;
    const leadership = state.get('leaderships', volume.id);
    const holder = leadership?.controller ?? null;
    if (holder === null || state.get('lives', holder) === null) return leadership?.epoch ?? 0;
    throw new BasaltError('VOLUME_LED', { name: volume.name, controller: holder, epoch: leadership?.epoch ?? 0 });
  }

  /** Others must see that this controller lives. */
  async #announce(): Promise<void> {
    const text = codecs.live.encode({
      format: formatVersion,
      name: this.name,
      kind: 'embedded',
      incarnation: this.name.slice(-12),
      engine: 'embedded',
      roles: [],
      internal: null,
      hosts: null,
      draining: false,
    });
    await this.#parts.link.commit(
      { put: [{ key: keys.live(this.name), text, leased: true }] },
      AbortSignal.timeout(5_000),
    );
  }

  #assertOpen(): void {
    if (this.#closing !== null) throw new BasaltError('CLOSED', { what: 'cluster' });
  }
}

/** What a volume does while its replicas are out of reach. */
export interface Patience {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Somebody else drives the volume now: waiting is no use. */
  readonly isLost: () => boolean;
}

const retryMs = 20;

/** A volume that this process drives. Offsets and lengths are multiples of `blockSizeBytes`. */
export class Volume {
  readonly name: string;
  readonly blockSizeBytes: number;
  readonly #handle: BdevHandle;
  readonly #patience: Patience;
  readonly #end: () => Promise<void>;
  #closing: Promise<void> | null = null;

  /** Made by `Cluster.open`. */
  constructor(
    object: Pick<VolumeObject, 'name' | 'blockSizeBytes'>,
    handle: BdevHandle,
    patience: Patience,
    end: () => Promise<void>,
  ) {
    this.name = object.name;
    this.blockSizeBytes = object.blockSizeBytes;
    this.#handle = handle;
    this.#patience = patience;
    this.#end = end;
  }

  /** As it is now: a volume may grow while it is open. */
  get sizeBytes(): number {
    return this.#handle.info.sizeBytes;
  }

  /** Resolves when every in-sync replica has it. Memory from `engine.allocate()` is not copied on the way. */
  async write(offsetBytes: number, buffer: ArrayBuffer | ArrayBufferView): Promise<void> {
    this.#assertOpen();
    const bytes = ArrayBuffer.isView(buffer) ? buffer : new Uint8Array(buffer);
    await this.#served(() => this.#handle.write(offsetBytes, bytes));
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    this.#assertOpen();
    if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || offsetBytes + lengthBytes > this.sizeBytes) {
      throw new RangeError(
        `length ${lengthBytes} at offset ${offsetBytes} is not inside the volume of ${this.sizeBytes} bytes`,
      );
    }
    const buffer = Buffer.alloc(lengthBytes);
    await this.#served(() => this.#handle.read(offsetBytes, buffer));
    return buffer;
  }

  /** Reads into memory of the caller's, without a copy when it came from `engine.allocate()`. */
  async readInto(offsetBytes: number, into: ArrayBufferView): Promise<void> {
    this.#assertOpen();
    await this.#served(() => this.#handle.read(offsetBytes, into));
  }

  /** Everything that was written before is on stable media of every in-sync replica. */
  async flush(): Promise<void> {
    this.#assertOpen();
    await this.#served(() => this.#handle.flush());
  }

  /** Flushes and gives the volume away in good order; a second close resolves with the first. */
  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  /**
   * Path errors are not for the caller: like a host with queued I/O, it waits for the volume to be served again, which
   * takes a new epoch, so that what an earlier try left on its way cannot land after the answer.
   */
  async #served<T>(run: () => Promise<T>): Promise<T> {
    const { clock, timeoutMs, isLost } = this.#patience;
    const deadline = clock.now() + timeoutMs;
    for (;;) {
      try {
        return await run();
      } catch (error) {
        const waits = error instanceof EngineIoError && error.isPathError && !isLost() && this.#closing === null;
        if (!waits || clock.now() >= deadline) throw error;
        await clock.sleep(retryMs);
      }
    }
  }

  #assertOpen(): void {
    if (this.#closing !== null) throw new BasaltError('CLOSED', { what: `volume ${this.name}` });
  }
}

async function identityFrom(path: string, random: Random): Promise<Identity> {
  return new NodeIdentity(await new NodeKeyFile(path, random).ring());
}

async function openStoreOf(options: ConnectOptions): Promise<{ store: Store; own: boolean }> {
  if (typeof options.store === 'object' && 'txn' in options.store) return { store: options.store, own: false };
  const named = options.store ?? (await endpointsFrom(options));
  const files = { ca: null, cert: null, key: null, username: null, passwordFile: null, ...options.storeSecurity };
  const scheme = files.ca === null ? 'http' : 'https';
  const endpoints = (typeof named === 'string' ? [named] : (named as readonly string[])).map((endpoint) =>
    endpoint.includes('://') ? endpoint : `${scheme}://${endpoint}`,
  );
  const { readStoreFiles } = await import('./store/etcd/credentials.js');
  const { openEtcdStore } = await import('./store/etcd/etcd-store.js');
  return { store: openEtcdStore({ endpoints, ...(await readStoreFiles(files)) }), own: true };
}

async function endpointsFrom({ api, apiToken, apiCa }: ConnectOptions): Promise<readonly string[]> {
  if (api === undefined)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'api', problem: 'is missing; name an API server or a store' });
  return (await new ApiClient({ endpoint: api, token: apiToken ?? null, ca: apiCa ?? null }).status()).store.endpoints;
}

async function ownEngineOf(): Promise<Engine> {
  const { createNativeEngine } = await import('./engine/native/native-engine.js');
  return createNativeEngine();
}
