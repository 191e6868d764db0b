// SPDX-License-Identifier: Apache-2.0
//
// A whole cluster in one process: memory store, fake engines on one fake network, real agents. Tests start, kill and
// stop its nodes, and look at volumes through the engines as hosts would.

import { showJob } from '../../api/jobs.js';
import { readState } from '../../api/read-state.js';
import type { ApiDeps } from '../../api/routes/route.js';
import { volumeView } from '../../api/views.js';
import { createVolume, requireVolume } from '../../api/volumes.js';
import type { LvolDescription } from '../../engine/descriptions.js';
import { FakeEngine } from '../../engine/fake/fake-engine.js';
import { FakeNetwork } from '../../engine/fake/network.js';
import { systemClock } from '../../env/clock.js';
import { systemRandom } from '../../env/random.js';
import type { VolumeCreateRequest, VolumeView } from '../../model/api.js';
import type { KeySource } from '../../model/cluster-key.js';
import { type CompiledNode, compileConfig } from '../../model/config.js';
import { configurationLvol } from '../../model/configuration-copy.js';
import { BasaltError } from '../../model/errors.js';
import type { JobView } from '../../model/jobs.js';
import type { Leadership } from '../../model/objects.js';
import { InlinePlanner } from '../../placement/planner.js';
import { MemoryServer } from '../../store/memory/memory-store.js';
import type { Store } from '../../store/store.js';
import { withinRole } from '../../store/testing/within-role.js';
import { slotName } from '../assembly.js';
import { NodeAgent } from '../node-agent.js';
import type { Identity } from '../node-identity.js';
import type { PlacementTiming } from '../placement-agent.js';
import type { ControllerTiming } from '../volume-controller.js';
import { MemoryKeys } from './memory-keys.js';
import { eventually } from './waiting.js';

const print = (fields: object, message: string): void => {
  if (process.env['BED_LOG'] !== undefined) console.error(message, JSON.stringify(fields));
};

/** Silent, unless BED_LOG is set. */
export const quietLog = { debug: () => {}, info: print, warn: print, error: print };

const MiB = 1024 * 1024;

export const bedTiming: Partial<ControllerTiming> = {
  attachTimeoutMs: 200,
  attachRetryMs: 20,
  graceMs: 1_500,
  rejoinMs: 30,
  quiesceTimeoutMs: 1_000,
  reservationMs: 1_500,
};

export interface BedNode {
  readonly name: string;
  readonly engine: FakeEngine;
  readonly store: Store;
  readonly agent: NodeAgent;
  /** How often it has reached a controller node: one that was never reached is not missed either. */
  readonly met: { count: number };
}

export class ClusterBed {
  readonly server = new MemoryServer();
  readonly network = new FakeNetwork();
  readonly planner = new InlinePlanner();
  /** The key file of every machine, but for those in `nodeKeys`. */
  readonly keys = new MemoryKeys();
  readonly nodeKeys = new Map<string, KeySource | null>();
  /** By which the nodes know each other that are started from now on; null: by their names. */
  identity: Identity | null = null;
  /** Their ports speak TLS; goes with an identity. */
  secure = false;
  /** Of the nodes that are started from now on. */
  placement: Partial<PlacementTiming> = { settleMs: 50 };
  readonly #nodes = new Map<string, BedNode>();
  readonly #dead: BedNode[] = [];
  readonly #stores: Store[] = [];
  /** Wraps the stores that nodes get, for faults. */
  wrapStore: (store: Store, node: string) => Store = (store) => store;

  get api(): ApiDeps {
    const { planner, keys } = this;
    return { store: this.connect(), random: systemRandom, planner, keys, version: 'test', storeEndpoints: ['memory'] };
  }

  connect(): Store {
    const store = this.server.connect();
    this.#stores.push(store);
    return store;
  }

  node(name: string): BedNode {
    const found = this.#nodes.get(name);
    if (found === undefined) throw new Error(`no node ${name}`);
    return found;
  }

  /** Of volumes and snapshots: a disk has its copy of the configuration beside them. */
  async lvols(name: string): Promise<LvolDescription[]> {
    const lvols = await this.node(name).engine.rpc('bdev_lvol_get_lvols', {});
    return lvols.filter((lvol) => lvol.name !== configurationLvol);
  }

  startDiskNode(name: string): Promise<BedNode> {
    const path = `/disks/${name}`;
    if (this.network.disks.find(path) === null) this.network.disks.add(path, 512 * MiB);
    return this.start({ name, roles: ['disk'], engine: 'fake', disks: [{ path }] });
  }

  startController(name: string): Promise<BedNode> {
    return this.start({ name, roles: ['controller'], engine: 'fake' });
  }

  async start(node: Record<string, unknown>): Promise<BedNode> {
    const { identity, secure } = this;
    const compiled = compileConfig({ nodes: [{ ...node, ...(secure ? { secure } : {}) }] }).nodes[0] as CompiledNode;
    const engine = new FakeEngine(compiled.name, this.network);
    const store = withinRole(this.wrapStore(this.connect(), compiled.name), 'node');
    const keys: KeySource = {
      ring: async () => {
        const source = this.nodeKeys.get(compiled.name);
        if (source === null) throw new BasaltError('CLUSTER_KEY_FILE', { path: 'none', problem: 'does not exist' });
        return (source ?? this.keys).ring();
      },
    };
    const known = identity === null ? {} : { identity };
    const context = { engine, clock: systemClock, random: systemRandom, log: quietLog, keys, ...known };
    const { planner, placement } = this;
    const agent = new NodeAgent({
      context,
      store,
      node: compiled,
      leaseTtlSeconds: 2,
      timing: bedTiming,
      placement,
      planner,
    });
    const met = { count: 0 };
    engine.on('event', (event) => {
      if (event.method === 'peer_connected') met.count += 1;
    });
    const started = { name: compiled.name, engine, store, agent, met };
    this.#nodes.set(compiled.name, started);
    await agent.start(AbortSignal.timeout(10_000));
    return started;
  }

  /** As SIGKILL: nothing is said to anybody. */
  async kill(name: string): Promise<void> {
    const node = this.node(name);
    this.#nodes.delete(name);
    this.#dead.push(node);
    node.engine.kill();
    await node.store.close();
    await node.agent.stop().catch(() => {});
  }

  /** As SIGTERM. */
  async stop(name: string): Promise<void> {
    const node = this.node(name);
    this.#nodes.delete(name);
    await node.agent.drain();
    await node.agent.stop();
    await node.engine.close();
    await node.store.close();
  }

  async close(): Promise<void> {
    this.server.away = false;
    for (const node of this.#nodes.values()) {
      node.engine.resume();
      await node.agent.stop().catch(() => {});
      await node.engine.close();
      await node.store.close();
    }
    for (const store of this.#stores) await store.close();
  }

  async view(volume: string): Promise<VolumeView> {
    const { state } = await readState(this.server.connect());
    return volumeView(state, requireVolume(state, volume).value);
  }

  async create(request: Partial<VolumeCreateRequest> & { name: string }): Promise<VolumeView> {
    await createVolume(this.api, { sizeBytes: 4 * MiB, legs: 2, copies: 2, ...request });
    return this.view(request.name);
  }

  /** Polls until the view is as wanted; fails with the last one. */
  async until(
    volume: string,
    what: string,
    wanted: (view: VolumeView) => boolean,
    timeoutMs = 20_000,
  ): Promise<VolumeView> {
    const endMs = systemClock.now() + timeoutMs;
    for (;;) {
      const view = await this.view(volume);
      if (wanted(view)) return view;
      if (systemClock.now() > endMs) throw new Error(`${volume} did not get ${what}: ${JSON.stringify(view, null, 1)}`);
      await systemClock.sleep(5);
    }
  }

  served(volume: string, by?: string): Promise<VolumeView> {
    return this.until(
      volume,
      `served by ${by ?? 'anyone'}`,
      (view) => view.health !== 'unserved' && (by === undefined || view.controller === by),
    );
  }

  redundant(volume: string): Promise<VolumeView> {
    return this.until(volume, 'full redundancy', (view) => view.health === 'redundant');
  }

  /** Once the controllers have met: from then on each misses one that falls silent. */
  async acquainted(...controllers: string[]): Promise<void> {
    const endMs = systemClock.now() + 30_000;
    for (const name of controllers) {
      while (this.node(name).met.count === 0) {
        if (systemClock.now() > endMs) throw new Error(`${name} has met nobody`);
        await systemClock.sleep(5);
      }
    }
  }

  /** One block filled with `fill` at block `block`, through the node's slot. */
  async write(node: string, volume: string, block: number, fill: number): Promise<void> {
    await this.#onSlot(node, volume, (handle) => handle.write(block * 4096, new Uint8Array(4096).fill(fill)));
  }

  async read(node: string, volume: string, block: number): Promise<number> {
    const into = new Uint8Array(4096);
    await this.#onSlot(node, volume, (handle) => handle.read(block * 4096, into));
    if (!into.every((byte) => byte === into[0])) throw new Error(`block ${block} is torn`);
    return into[0] ?? -1;
  }

  async ended(job: JobView): Promise<JobView> {
    let now = job;
    await eventually(`job ${job.kind} ${job.id} ends`, async () => {
      now = await showJob(this.api, job.id);
      return now.endedAtMs !== null;
    });
    return now;
  }

  /** Does `before` when the engine of the node is asked for `method`. */
  intercept(node: string, method: string, before: () => Promise<void> | void): void {
    const { engine } = this.node(node);
    const rpc = engine.rpc.bind(engine);
    Object.assign(engine, {
      rpc: async (...args: Parameters<typeof rpc>) => {
        if (args[0] === method) await before();
        return rpc(...args);
      },
    });
  }

  /** Every leadership object of the store from now on, until `stop`. */
  leaderships(): { seen: Leadership[]; stop: () => Promise<void> } {
    const seen: Leadership[] = [];
    const watch = this.connect().watch('/basalt/v1/leadership/', this.server.revision + 1);
    const watching = (async () => {
      for await (const batch of watch)
        for (const event of batch.kind === 'events' ? batch.events : [])
          if (event.kind === 'put') seen.push(JSON.parse(event.entry.value.toString()) as Leadership);
    })();
    const stop = async (): Promise<void> => {
      watch.close();
      await watching;
    };
    return { seen, stop };
  }

  async #onSlot(
    node: string,
    volume: string,
    act: (handle: Awaited<ReturnType<FakeEngine['openBdev']>>) => Promise<void>,
  ): Promise<void> {
    const { id } = await this.view(volume);
    const handle = await this.node(node).engine.openBdev(slotName(id));
    try {
      await act(handle);
    } finally {
      await handle.close();
    }
  }
}
