// SPDX-License-Identifier: Apache-2.0
//
// FakeEngine: the whole vocabulary in memory, for tests of what drives engines. Engines of one FakeNetwork reach each
// other; its disks outlive them. Not modelled: lost caches, torn writes, NVMe commands, speed.
//
// Controls for tests: kill() (the process is gone: locks and connections too, disks stay), pause() and resume() (stopped
// as by SIGSTOP: what is in flight parks and goes on later), and the network's partition() and heal(). A restart is a
// new FakeEngine on the same network.

import type { ReactorMode } from '../descriptions.js';
import {
  type BdevHandle,
  type Engine,
  EngineError,
  type EngineEvent,
  EngineIoError,
  engineErrorCodes,
  IllegalState,
  type Method,
  type MethodResult,
  type RpcArguments,
} from '../engine.js';
import { waitForAnswer } from '../rpc-wait.js';
import type { FakeBdev } from './bdev.js';
import { Fields } from './fields.js';
import { bdevMethods, type Handler } from './methods-bdev.js';
import { copyMethods } from './methods-copy.js';
import { cryptoMethods } from './methods-crypto.js';
import { keyringMethods } from './methods-keyring.js';
import { legMethods } from './methods-leg.js';
import { lvolMethods, snapshotLvol } from './methods-lvol.js';
import { makeSubsystem, nvmfMethods } from './methods-nvmf.js';
import { reservationMethods } from './methods-reservation.js';
import { snapshotMethods } from './methods-snapshot.js';
import { FakeNetwork } from './network.js';
import { IoStatus, Refused, reservationConflict } from './refusal.js';
import { discoveryNqn, EngineState, type FakeNamespace, type FakeSubsystem, noSecrets, type Secrets } from './state.js';

const frameworkMethods: Record<string, Handler> = {
  rpc_get_methods: (_state, fields) => {
    fields.end();
    return Object.keys(handlers).sort();
  },
  spdk_get_version: (_state, fields) => {
    fields.end();
    return { version: 'Basalt fake', fields: { major: 0, minor: 1, patch: 0, suffix: '-fake' } };
  },
  framework_get_reactors: (state, fields) => {
    fields.end();
    const mode = state.reactorMode;
    return { tick_rate: 1e9, reactors: [{ lcore: 0, busy: 0, idle: 0, sleeps: 0, poller: 'fake', mode }] };
  },
  basalt_reactor_set_mode: (state, fields) => {
    const mode = fields.choice<ReactorMode>('mode', ['adaptive', 'busy', 'interrupt']);
    fields.naturalOr('lcore', 0, 0, 0);
    fields.end();
    state.reactorMode = mode;
    return true;
  },
};

const handlers: Record<string, Handler> = {
  ...frameworkMethods,
  ...bdevMethods,
  ...cryptoMethods,
  ...lvolMethods,
  ...nvmfMethods,
  ...keyringMethods,
  ...legMethods,
  ...snapshotMethods,
  ...copyMethods,
  ...reservationMethods,
};

/** One association of a host with one of this engine's namespaces behind a gate. */
interface Connection {
  readonly id: string;
  readonly nqn: string;
  readonly hostnqn: string;
  readonly lvol: string;
  /** The node link that it came by; null: a connection of its own. */
  readonly link: string | null;
  /** What keeps the gate's record; null: the lvol. */
  readonly keeper: FakeNamespace | null;
}

export class FakeEngine implements Engine {
  readonly name: string;
  readonly network: FakeNetwork;
  readonly #state: EngineState;
  readonly #listeners = new Set<(event: EngineEvent) => void>();
  readonly #connections = new Map<string, Connection>();
  readonly #resumed: (() => void)[] = [];
  #paused = false;
  #ended = false;
  #closing: Promise<void> | null = null;

  constructor(name = 'engine', network: FakeNetwork = new FakeNetwork()) {
    this.name = name;
    this.network = network;
    this.#state = new EngineState(this, network, (event) => this.#emit(event));
    this.#state.subsystems.set(discoveryNqn, makeSubsystem(discoveryNqn, { allowAnyHost: true }));
    network.join(this);
  }

  get paused(): boolean {
    return this.#paused;
  }
  get ended(): boolean {
    return this.#ended;
  }

  async rpc<M extends Method>(method: M, ...args: RpcArguments<M>): Promise<MethodResult<M>> {
    this.#assertOpen();
    const [params, options = {}] = args;
    const answer = this.#answer(method, params ?? {}) as Promise<MethodResult<M>>;
    return waitForAnswer(method, answer, options, this.network.clock);
  }

  on(_event: 'event', listener: (event: EngineEvent) => void): () => void {
    this.#assertOpen();
    const entry = (event: EngineEvent): void => listener(event);
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  allocate(bytes: number): ArrayBuffer {
    this.#assertOpen();
    if (!Number.isSafeInteger(bytes) || bytes < 1) throw new TypeError('bytes: must be at least 1');
    return new ArrayBuffer(bytes);
  }

  async openBdev(name: string): Promise<BdevHandle> {
    this.#assertOpen();
    await this.turn();
    try {
      const bdev = this.#state.open(name, 'an open handle');
      return new FakeBdevHandle(this, bdev, () => this.#state.closeUse(bdev, 'an open handle'));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const code = error.code === engineErrorCodes.notFound ? engineErrorCodes.noDevice : error.code;
      throw new EngineError(code, 'openBdev', error.message);
    }
  }

  /** As a disk does that loses a write: the block of a bdev is another one, and nobody was asked. */
  async damage(name: string, block: number): Promise<void> {
    const bdev = this.#state.bdev(name);
    await bdev.write(block, new Uint8Array(bdev.blockBytes).fill(0xdd));
  }

  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  /** The process is gone at once. Nothing of it goes on, and no event comes any more. */
  kill(): void {
    this.#closing ??= Promise.resolve();
    void this.#end();
  }

  /** As SIGSTOP: answers nothing, does nothing; peers hear nothing. */
  pause(): void {
    this.#paused = true;
    this.network.changed();
  }

  resume(): void {
    this.#paused = false;
    for (const go of this.#resumed.splice(0)) go();
    this.network.changed();
  }

  /** One step of this engine's work: later, and not while it is paused; never again once it has ended. */
  async turn(): Promise<void> {
    await Promise.resolve();
    while (this.#paused && !this.#ended) await new Promise<void>((go) => this.#resumed.push(go));
    if (this.#ended) await new Promise<never>(() => {});
  }

  // What other engines of the network see.

  listensAt(traddr: string, trsvcid: string): boolean {
    return !this.#ended && [...this.#state.subsystems.keys()].some((nqn) => this.serves(nqn, traddr, trsvcid));
  }

  serves(nqn: string, traddr: string, trsvcid: string): boolean {
    const listeners = this.#state.subsystems.get(nqn)?.listeners ?? [];
    return listeners.some((each) => each.traddr === traddr && each.trsvcid === trsvcid);
  }

  /** Discovery there: by TLS those whom any subsystem admits with that key. */
  letsIn(hostnqn: string, psk: string | null, at: { traddr: string; trsvcid: string }): boolean {
    const listeners = this.#state.subsystems.get(discoveryNqn)?.listeners ?? [];
    const here = listeners.find((each) => each.traddr === at.traddr && each.trsvcid === at.trsvcid);
    if (here?.secure !== true) return psk === null;
    return psk !== null && [...this.#state.subsystems.values()].some((each) => each.secrets.get(hostnqn)?.psk === psk);
  }

  /** What a host sees of a subsystem's first namespace. */
  connect(nqn: string, hostnqn: string, secrets: Secrets = noSecrets): FakeNamespace {
    const { namespace } = this.#admitted(nqn, hostnqn, secrets);
    if (namespace.oneWriter) throw new Refused('unsupported', `namespace 1 of ${nqn} is for its controller only`);
    return namespace;
  }

  /** Whether hosts are told at that address that the subsystem serves them. */
  isAccessible(nqn: string, traddr: string, trsvcid: string): boolean {
    const listeners = this.#state.subsystems.get(nqn)?.listeners ?? [];
    const listener = listeners.find((each) => each.traddr === traddr && each.trsvcid === trsvcid);
    return listener?.anaState === 'optimized' || listener?.anaState === 'non_optimized';
  }

  #admitted(nqn: string, hostnqn: string, shown: Secrets): { subsystem: FakeSubsystem; namespace: FakeNamespace } {
    const subsystem = this.#state.subsystems.get(nqn);
    const namespace = subsystem?.namespaces.get(1);
    if (subsystem === undefined || namespace === undefined)
      throw new Refused('unreachable', `${nqn} is not served there`);
    if (!subsystem.allowAnyHost && !subsystem.hosts.has(hostnqn))
      throw new Refused('permission', `${nqn} does not admit ${hostnqn}`);
    const wanted = subsystem.secrets.get(hostnqn) ?? noSecrets;
    if (wanted.psk !== null && shown.psk === null)
      throw new Refused('permission', `${nqn} admits ${hostnqn} by TLS only`);
    if (wanted.psk !== shown.psk) throw new Refused('permission', `${nqn}: the target refuses this host's key`);
    if (wanted.dhchap !== null && shown.dhchap === null)
      throw new Refused('permission', `${nqn}: the controller wants authentication, and there is no dhchap_key`);
    // With a key of its own it wants proof of the controller, too.
    if (wanted.dhchap !== shown.dhchap) throw new Refused('permission', `${nqn}: authentication failed`);
    return { subsystem, namespace };
  }

  /** Register, then Acquire with preempt-and-abort, of a new association of a host with that secret. */
  takeOver(
    nqn: string,
    { hostnqn, secrets, link }: { hostnqn: string; secrets: Secrets; link: string | null },
    epoch: bigint,
  ): { bdev: FakeBdev; incarnation: string; connection: string } {
    const { subsystem, namespace } = this.#admitted(nqn, hostnqn, secrets);
    const keeper = namespace.gate === null ? null : namespace;
    const gated = keeper ?? this.#state.lvols.get(namespace.bdev.name)?.lvol;
    const gate = gated?.gate ?? null;
    if (!namespace.oneWriter || gated === undefined || gate === null)
      throw new Refused('unsupported', `namespace 1 of ${nqn} has no one-writer gate`);
    if (epoch < gate.epoch) {
      const message = `${nqn} obeys epoch ${gate.epoch}, not ${epoch}`;
      throw new Refused('fenced', message, { epoch: gate.epoch.toString() });
    }
    const connection = { id: this.network.random.uuid(), nqn, hostnqn, lvol: namespace.bdev.name, link, keeper };
    gated.gate = { epoch, holder: connection.id };
    this.#connections.set(connection.id, connection);
    return { bdev: namespace.bdev, incarnation: subsystem.serial, connection: connection.id };
  }

  /** Whether it lets that host in; what it proves itself with is judged replica by replica. */
  hasNodeLink(nqn: string, hostnqn: string): boolean {
    const link = this.#state.subsystems.get(nqn);
    return link?.nodeLink === true && (link.allowAnyHost || link.hosts.has(hostnqn)) && link.listeners.length > 0;
  }

  /** Judges a command at the moment of dispatch. */
  admit(connectionId: string): void {
    const connection = this.#connections.get(connectionId);
    if (connection === undefined) throw new IoStatus(0x370, 'Host Path Error (0x370)');
    const gate = connection.keeper?.gate ?? this.#state.lvols.get(connection.lvol)?.lvol.gate;
    if (gate?.holder !== connectionId) throw reservationConflict();
  }

  /** A command like others: judged by `admit` before. */
  snapshot(connectionId: string, name: string): void {
    const connection = this.#connections.get(connectionId);
    if (connection !== undefined) snapshotLvol(this.#state, connection.lvol, name);
  }

  /** Like `snapshot`. */
  writeNote(connectionId: string, note: string): void {
    const lvol = this.#connections.get(connectionId)?.lvol;
    const stored = lvol === undefined ? undefined : this.#state.lvols.get(lvol);
    if (stored?.disk.broken === true) throw new Refused('io', `${lvol}: the disk fails`);
    if (stored !== undefined) stored.lvol.note = note;
  }

  readNote(connectionId: string): string {
    const lvol = this.#connections.get(connectionId)?.lvol;
    return (lvol === undefined ? undefined : this.#state.lvols.get(lvol))?.lvol.note ?? '';
  }

  forget(connectionId: string): void {
    this.#connections.delete(connectionId);
  }

  dropConnections(nqn: string, hostnqn?: string): void {
    for (const connection of this.#connections.values()) {
      const goes = connection.nqn === nqn || connection.link === nqn;
      if (goes && (hostnqn === undefined || connection.hostnqn === hostnqn)) this.#connections.delete(connection.id);
    }
  }

  connectionsTo(nqn: string): Connection[] {
    return [...this.#connections.values()].filter((connection) => connection.nqn === nqn);
  }

  async #answer(method: string, params: unknown): Promise<unknown> {
    await this.turn();
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
    if (handler === undefined)
      throw new EngineError(engineErrorCodes.methodNotFound, method, `method not found: ${method}`);
    try {
      const result = await handler(this.#state, new Fields(params));
      await this.turn();
      return structuredClone(result);
    } catch (error) {
      if (error instanceof Refused) throw new EngineError(error.code, method, error.message, error.data);
      throw error;
    }
  }

  #emit(event: EngineEvent): void {
    void this.turn().then(() => {
      for (const listener of [...this.#listeners]) listener(event);
    });
  }

  async #end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    for (const disk of this.#state.disks.values()) disk.lockedBy = null;
    for (const peer of this.#state.peers.values()) peer.stop();
    for (const bdev of this.#state.bdevs.values()) bdev.close?.();
    this.#connections.clear();
    this.#listeners.clear();
    this.network.leave(this);
  }

  #assertOpen(): void {
    if (this.#closing !== null) throw new IllegalState('the engine is closed');
  }
}

class FakeBdevHandle implements BdevHandle {
  readonly #engine: FakeEngine;
  readonly #bdev: FakeBdev;
  readonly #release: () => void;
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | null = null;

  constructor(engine: FakeEngine, bdev: FakeBdev, release: () => void) {
    this.#engine = engine;
    this.#bdev = bdev;
    this.#release = release;
  }

  get info(): BdevHandle['info'] {
    const bdev = this.#bdev;
    return Object.freeze({
      name: bdev.name,
      productName: bdev.product,
      uuid: bdev.uuid,
      blockSizeBytes: bdev.blockBytes,
      countBlocks: bdev.numBlocks,
      sizeBytes: bdev.numBlocks * bdev.blockBytes,
      volatileCache: true,
    });
  }

  read(offsetBytes: number, into: ArrayBufferView): Promise<void> {
    return this.#run('read', async () => {
      const block = this.#check('read', offsetBytes, into.byteLength);
      const data = await this.#bdev.read(block, into.byteLength / this.#bdev.blockBytes);
      new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(data);
    });
  }

  write(offsetBytes: number, from: ArrayBufferView): Promise<void> {
    return this.#run('write', async () => {
      const block = this.#check('write', offsetBytes, from.byteLength);
      await this.#bdev.write(block, new Uint8Array(from.buffer, from.byteOffset, from.byteLength));
    });
  }

  flush(): Promise<void> {
    return this.#run('flush', () => this.#bdev.flush());
  }

  close(): Promise<void> {
    this.#closing ??= Promise.allSettled(this.#running).then(() => this.#release());
    return this.#closing;
  }

  #check(operation: string, offsetBytes: number, bytes: number): number {
    const { blockSizeBytes, sizeBytes } = this.info;
    const whole = bytes > 0 && bytes % blockSizeBytes === 0 && offsetBytes % blockSizeBytes === 0;
    if (whole && offsetBytes >= 0 && offsetBytes + bytes <= sizeBytes) return offsetBytes / blockSizeBytes;
    throw new RangeError(
      `${operation} of ${bytes} bytes at ${offsetBytes}: must be whole blocks of ${blockSizeBytes} bytes within ${sizeBytes}`,
    );
  }

  async #run(operation: string, act: () => Promise<void>): Promise<void> {
    if (this.#closing !== null) throw new IllegalState(`the handle of bdev ${this.info.name} is closed`);
    if (this.#engine.ended) throw new IllegalState(`the engine of bdev ${this.info.name} is closed`);
    const running = act();
    this.#running.add(running);
    try {
      await running;
    } catch (error) {
      if (error instanceof IoStatus) throw new EngineIoError(this.info.name, operation, error.status, error.message);
      throw error;
    } finally {
      this.#running.delete(running);
    }
  }
}
