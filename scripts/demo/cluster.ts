// SPDX-License-Identifier: Apache-2.0
//
// Which daemons the demonstration and the tests run: the store, one API server, three disk nodes, two controller nodes.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ApiClient } from '../../src/client/api-client.js';
import { attachEngine } from '../../src/engine/attached/attached-engine.js';
import type { VolumeView } from '../../src/model/api.js';
import type { JobView } from '../../src/model/jobs.js';
import { commandPath } from './command-path.js';
import { pollUntil } from './poll.js';
import { Daemon, freePorts } from './processes.js';

const diskNodes = ['disk-1', 'disk-2', 'disk-3'];
const controllerNodes = ['controller-1', 'controller-2'];
const etcdMembers = ['store-1', 'store-2', 'store-3'];

/** Where a daemon runs: its address, and what stands before its command line to bring it there. */
export interface Place {
  readonly address: string;
  readonly prefix: readonly string[];
}

export interface ClusterOptions {
  /** For disks, logs and the store's data. */
  readonly folder: string;
  /** Size of each disk file. */
  readonly diskBytes: number;
  /** Added to every daemon's. */
  readonly environment?: Readonly<Record<string, string>>;
  /** `etcd`: three members of Debian's etcd. @default embedded */
  readonly store?: 'embedded' | 'etcd';
  /** @default 127.0.0.1 for all */
  readonly place?: (name: string) => Place;
  /** The cluster keys of encrypted volumes, for nodes and API server. @default `cluster.key` where they are started */
  readonly keyFile?: string;
  /** An spdk_tgt that has the drives of all disk nodes. @default none */
  readonly spdk?: string;
  /** Added to the command line of every node. */
  readonly nodeArguments?: readonly string[];
  /** The daemons outlive this process. @default false */
  readonly stays?: boolean;
}

const here: Place = { address: '127.0.0.1', prefix: [] };

export class DemoCluster {
  readonly #daemons: readonly Daemon[];
  readonly api: ApiClient;
  /** Of the store's members. */
  readonly storeNames: readonly string[];
  /** What the nodes need before they start. */
  readonly #first: readonly string[];

  private constructor(daemons: readonly Daemon[], api: ApiClient, storeNames: readonly string[]) {
    this.#first = daemons.flatMap(({ name }) => (storeNames.includes(name) || name === 'spdk' ? [name] : []));
    this.#daemons = daemons;
    this.api = api;
    this.storeNames = storeNames;
  }

  static async plan(options: ClusterOptions): Promise<DemoCluster> {
    const { folder, environment = {}, place = () => here, stays = false, nodeArguments = [] } = options;
    const keys = options.keyFile === undefined ? [] : ['--key-file', options.keyFile];
    mkdirSync(folder, { recursive: true });
    const stores = options.store === 'etcd' ? etcdMembers : ['store'];
    const ports = await freePorts(2 * (stores.length + diskNodes.length + controllerNodes.length) + 1);
    const port = (): number => ports.pop() ?? 0;
    const storeAt = stores.map((name) => ({ name, address: place(name).address, client: port(), peer: port() }));
    const endpoints = storeAt.map((at) => `${at.address}:${at.client}`).join(',');
    const daemon = (name: string, command: readonly string[], ready?: () => Promise<void>): Daemon =>
      new Daemon(
        { name, command: [...place(name).prefix, ...command], environment, stays, ...(ready && { ready }) },
        folder,
      );
    const basalt = (name: string, ...args: readonly string[]): Daemon =>
      daemon(name, [process.execPath, commandPath(), ...args, '--log-level', 'info', '--json']);
    const node = (name: string, ...args: readonly string[]): Daemon => {
      const where = ['--address', place(name).address, '--internal-port', `${port()}`, '--host-port', `${port()}`];
      return basalt(name, 'node', '--name', name, ...args, ...where, ...keys, ...nodeArguments, '--store', endpoints);
    };
    const storeDaemons =
      options.store === 'etcd'
        ? storeAt.map((at) => daemon(at.name, etcdCommand(folder, at, storeAt), () => etcdAnswers(at)))
        : [basalt('store', 'store', '--listen', endpoints, '--directory', join(folder, 'store'))];
    const apiAt = `${place('api').address}:${port()}`;
    const rpcPath = join(folder, 'spdk.sock');
    const withSpdk = options.spdk === undefined ? [] : ['--engine', `spdk:${rpcPath}`];
    const spdkDaemons =
      options.spdk === undefined
        ? []
        : [daemon('spdk', [options.spdk, ...spdkArguments, '-r', rpcPath], () => spdkAnswers(rpcPath))];
    const disk = (name: string) => [
      ...withSpdk,
      '--disk',
      join(folder, `${name}.disk`),
      '--disk-size',
      `${options.diskBytes}`,
    ];
    const daemons = [
      ...storeDaemons,
      ...spdkDaemons,
      basalt('api', 'api', '--listen', apiAt, ...keys, '--store', endpoints),
      ...diskNodes.map((name) => node(name, '--roles', 'disk', ...disk(name))),
      ...controllerNodes.map((name) => node(name, '--roles', 'controller')),
    ];
    return new DemoCluster(daemons, new ApiClient({ endpoint: apiAt }), stores);
  }

  get daemons(): readonly Daemon[] {
    return this.#daemons;
  }

  daemon(name: string): Daemon {
    const found = this.#daemons.find((daemon) => daemon.name === name);
    if (found === undefined) throw new Error(`no daemon is called ${name}`);
    return found;
  }

  /** The store first, and SPDK; the rest finds them. */
  async start(): Promise<void> {
    await Promise.all(this.#first.map((name) => this.daemon(name).start()));
    const others = this.#daemons.filter((daemon) => !this.#first.includes(daemon.name));
    await Promise.all(others.map((daemon) => daemon.start()));
  }

  async killAll(): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.kill()));
  }

  killAllNow(): void {
    for (const daemon of this.#daemons) daemon.killNow();
  }

  jobEnded(id: string, timeoutMs: number): Promise<JobView> {
    const ask = (): Promise<JobView> => this.api.job(id);
    return pollUntil(`job ${id} to end`, timeoutMs, ask, ({ endedAtMs }) => endedAtMs !== null);
  }

  /** Waits until the volume looks as it should. The error says how it looked last. */
  waitForVolume(
    name: string,
    what: string,
    timeoutMs: number,
    holds: (volume: VolumeView) => boolean,
  ): Promise<VolumeView> {
    return pollUntil(
      `${name} to be ${what}`,
      timeoutMs,
      // Nor does an API server that just restarts end the waiting.
      (): Promise<VolumeView | Error> =>
        this.api.volume(name).catch((error) => (error instanceof Error ? error : new Error(String(error)))),
      (seen): seen is VolumeView => !(seen instanceof Error) && holds(seen),
      shownVolume,
    );
  }
}

function shownVolume(seen: VolumeView | Error): string {
  if (seen instanceof Error) return seen.message;
  const paths = seen.paths.map(
    (path) => `${path.node} ${path.state}${path.problem === null ? '' : ` (${path.problem})`}`,
  );
  return `${seen.health}, controller ${seen.controller ?? 'none'}, paths ${paths.join(', ')}`;
}

/** One core, ordinary memory, no drives of its own. */
const spdkArguments = ['-m', '0x1', '--no-huge', '-s', '1024', '--no-pci', '--disable-cpumask-locks'];

async function spdkAnswers(rpcPath: string): Promise<void> {
  const spdk = await attachEngine({ rpcPath });
  const { methods } = spdk.capabilities;
  await spdk.close();
  if (!methods.has('bdev_get_bdevs')) throw new Error('SPDK is still starting');
}

interface EtcdMember {
  readonly name: string;
  readonly address: string;
  readonly client: number;
  readonly peer: number;
}

function etcdCommand(folder: string, at: EtcdMember, all: readonly EtcdMember[]): string[] {
  const client = `http://${at.address}:${at.client}`;
  const peer = `http://${at.address}:${at.peer}`;
  return [
    'env',
    `ETCD_UNSUPPORTED_ARCH=${process.arch}`,
    'etcd',
    `--name=${at.name}`,
    `--data-dir=${join(folder, at.name)}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=${all.map((one) => `${one.name}=http://${one.address}:${one.peer}`).join(',')}`,
    '--initial-cluster-state=new',
  ];
}

async function etcdAnswers(at: EtcdMember): Promise<void> {
  const url = `http://${at.address}:${at.client}/health`;
  const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
  const { health } = (await response.json()) as { health?: unknown };
  if (`${health}` !== 'true') throw new Error(`${at.name} is not healthy yet`);
}
