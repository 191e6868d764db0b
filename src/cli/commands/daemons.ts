// SPDX-License-Identifier: Apache-2.0
//
// The commands that stay: store, API server, node, and all of them at once.

import type { Command } from 'commander';
import type { CompiledConfig, CompiledNode } from '../../model/config.js';
import { BasaltError } from '../../model/errors.js';
import { readConfig } from '../config-file.js';
import type { CliWorld } from '../launch.js';
import type { CommonOptions } from '../output.js';
import { parseBytes, parseCount, parseWords } from '../sizes.js';
import { addStoreRebuildCommands } from './store-rebuild.js';

export type Exit = (code: number) => void;

/** Of commands that look for damage and found some. */
export const exitDamage = 8;

interface StoreOptions extends CommonOptions {
  readonly listen?: string;
  readonly directory?: string;
  readonly logLevel?: string;
}

interface ApiOptions extends CommonOptions {
  readonly listen?: string;
  readonly tlsListen?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly store?: string;
  readonly keyFile?: string;
  readonly logLevel?: string;
}

interface NodeOptions extends CommonOptions {
  readonly name?: string;
  readonly roles?: string;
  readonly disk: string[];
  readonly diskSize?: string;
  readonly buffered?: boolean;
  readonly class?: string;
  readonly tags?: string;
  readonly location?: string;
  readonly grace?: string;
  readonly address?: string;
  readonly trustedNetwork?: boolean;
  readonly secure?: boolean;
  readonly internalPort?: string;
  readonly hostPort?: string;
  readonly tlsAddress?: string;
  readonly tlsPort?: string;
  readonly discovery?: string;
  readonly engine?: string;
  readonly store?: string;
  readonly keyFile?: string;
  readonly nodeKeyFile?: string;
  readonly logLevel?: string;
}

/** Returns `node`, which has more words than the one that runs it. */
export function addDaemonCommands(parent: Command, world: CliWorld, exit: Exit): Command {
  addStore(parent, world, exit);
  addApi(parent, world, exit);
  const node = addNode(parent, world, exit);
  addUp(parent, world, exit);
  return node;
}

const logLevels = 'debug, info, warn, error or silent (default: info)';

function addStore(parent: Command, world: CliWorld, exit: Exit): void {
  const store = parent
    .command('store')
    .description('run the embedded store of a one-machine cluster (speaks etcd v3)')
    .option('--listen <address:port>', 'loopback address and port')
    .option('--directory <path>', 'where its data is kept')
    .option('--log-level <level>', logLevels)
    .action(async (_options, command: Command) => {
      const options: StoreOptions = command.optsWithGlobals();
      const store = defined({ listen: options.listen, directory: options.directory });
      const config = await readConfig(world, options.config, { store, ...defined({ logLevel: options.logLevel }) });
      exit(await world.launchers.store(config, { json: options.json === true }));
    });
  addStoreRebuildCommands(store, world, exit);
}

function addApi(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('api')
    .description('run an API server')
    .option('--listen <address:port>', 'loopback address and port')
    .option('--tls-listen <address:port>', 'any address, where requests come by TLS, with a token')
    .option('--tls-cert <path>', 'its certificate (PEM)')
    .option('--tls-key <path>', 'the key of that (PEM, mode 0600)')
    .option('--store <endpoints>', 'store endpoints, with commas')
    .option('--key-file <path>', 'the cluster keys of encrypted volumes; mode 0600')
    .option('--log-level <level>', logLevels)
    .action(async (_options, command: Command) => {
      const options: ApiOptions = command.optsWithGlobals();
      const { listen, tlsListen, tlsCert: cert, tlsKey: key } = options;
      const api = defined({ listen, tlsListen, cert, key });
      const common = { store: storeOverride(options.store), clusterKey: defined({ file: options.keyFile }) };
      const overrides = { api, ...common, ...defined({ logLevel: options.logLevel }) };
      exit(
        await world.launchers.api(await readConfig(world, options.config, overrides), { json: options.json === true }),
      );
    });
}

function addNode(parent: Command, world: CliWorld, exit: Exit): Command {
  return parent
    .command('node')
    .description('run one node: disks, controllers of volumes, or both')
    .option('--name <name>', 'the node; with --config, one of its nodes')
    .option('--roles <roles>', 'disk, controller, with commas')
    .option('--disk <path>', 'a disk: block device, partition or file; may be repeated', collect, [])
    .option('--disk-size <bytes>', 'make missing disk files with this size, such as 10G')
    .option('--buffered', 'allow disks on a file system without O_DIRECT')
    .option('--class <name>', 'class of the disks (default: ssd)')
    .option('--tags <names>', 'tags of the disks, with commas')
    .option('--location <level=name>', 'where the node stands: region=, zone=, rack=, with commas')
    .option('--grace <seconds>', 'how long a node may be away before what it holds is rebuilt elsewhere (default: 600)')
    .option('--address <address>', 'where nodes and hosts connect (default: 127.0.0.1)')
    .option('--trusted-network', 'whoever listens in there may: no TLS but with hosts that have a key for it')
    .option('--secure', 'TLS on all ports (needs a node key; default: unless it is a loopback address or trusted)')
    .option('--internal-port <port>', 'where other nodes connect (default: a free one)')
    .option('--host-port <port>', 'where hosts connect (default: a free one)')
    .option('--tls-address <address>', 'any address, where hosts with a key for TLS connect (default: --address)')
    .option('--tls-port <port>', 'its port (default: a free one)')
    .option('--discovery <access>', 'what discovery tells hosts: open, authenticated or off (default: open)')
    .option('--engine <engine>', 'native, or spdk:<RPC socket> where an SPDK has the drives (default: native)')
    .option('--store <endpoints>', 'store endpoints, with commas')
    .option('--key-file <path>', 'the cluster keys of encrypted volumes; mode 0600')
    .option('--node-key-file <path>', 'by which nodes know each other, the same for all of them; mode 0600')
    .option('--log-level <level>', logLevels)
    .action(async (_options, command: Command) => {
      const options: NodeOptions = command.optsWithGlobals();
      const config = await readConfig(world, options.config, nodeOverrides(options));
      exit(await world.launchers.node(config, chosenNode(config, options), { json: options.json === true }));
    });
}

function addUp(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('up')
    .description('run everything in the configuration file on this machine: store, API server and nodes')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      if (options.config === undefined) throw invalid('--config', 'is missing; name the configuration file');
      const config = await readConfig(world, options.config);
      exit(await world.launchers.up(config, options.config, { json: options.json === true }));
    });
}

function nodeOverrides(options: NodeOptions): Parameters<typeof readConfig>[2] {
  const graceSeconds = options.grace === undefined ? undefined : parseCount(options.grace, '--grace');
  const common = {
    store: storeOverride(options.store),
    placement: defined({ graceSeconds }),
    clusterKey: defined({ file: options.keyFile }),
    nodeKey: defined({ file: options.nodeKeyFile }),
    ...defined({ logLevel: options.logLevel }),
  };
  const described = options.disk.length > 0 || options.roles !== undefined || options.config === undefined;
  if (options.disk.length === 0) refuse(ofDisks(options), 'says something of disks, and there is no --disk');
  if (!described) {
    refuse(ofNode(options), 'belongs into the configuration file, which describes the node');
    return common;
  }
  if (options.name === undefined) throw invalid('--name', 'is missing');
  const createBytes = options.diskSize === undefined ? undefined : parseBytes(options.diskSize, '--disk-size');
  const disks = options.disk.map((path) => ({
    ...defined({ path, createBytes, buffered: options.buffered, class: options.class }),
    ...(options.tags === undefined ? {} : { tags: parseWords(options.tags) }),
  }));
  const node = defined({
    name: options.name,
    roles: options.roles?.split(',').map((role) => role.trim()),
    engine: options.engine === undefined ? undefined : engineOf(options.engine),
    address: options.address,
    trustedNetwork: options.trustedNetwork,
    secure: options.secure,
    internalPort: options.internalPort === undefined ? undefined : parseCount(options.internalPort, '--internal-port'),
    hostPort: options.hostPort === undefined ? undefined : parseCount(options.hostPort, '--host-port'),
    tlsAddress: options.tlsAddress,
    tlsPort: options.tlsPort === undefined ? undefined : parseCount(options.tlsPort, '--tls-port'),
    discovery: options.discovery,
    disks: disks.length === 0 ? undefined : disks,
    location: options.location === undefined ? undefined : locationOf(options.location),
  });
  return { ...common, nodes: [node] };
}

/** Options that say more of the disks that others name, and of a node that others describe. */
const ofDisks = ({ diskSize, buffered, class: diskClass, tags }: NodeOptions): object => ({
  '--disk-size': diskSize,
  '--buffered': buffered,
  '--class': diskClass,
  '--tags': tags,
});

const ofNode = (options: NodeOptions): object => ({
  '--location': options.location,
  '--address': options.address,
  '--trusted-network': options.trustedNetwork,
  '--secure': options.secure,
  '--internal-port': options.internalPort,
  '--host-port': options.hostPort,
  '--tls-address': options.tlsAddress,
  '--tls-port': options.tlsPort,
  '--discovery': options.discovery,
  '--engine': options.engine,
});

/** @throws INVALID_ARGUMENT rather than leave out what somebody asked for */
function refuse(given: object, problem: string): void {
  const [option] = Object.keys(defined(given));
  if (option !== undefined) throw invalid(option, problem);
}

/** `spdk:/var/tmp/spdk.sock`; what else there is is for the configuration's schema to say. */
function engineOf(text: string): unknown {
  const spdk = 'spdk:';
  return text.startsWith(spdk) ? { kind: 'spdk', rpc: text.slice(spdk.length) } : text;
}

/** `zone=z1,rack=r2`; which levels there are is for the configuration's schema to say. */
function locationOf(text: string): Record<string, string> {
  return Object.fromEntries(
    parseWords(text).map((word) => {
      const [level = '', name] = word.split('=', 2);
      if (name === undefined) throw invalid('--location', `${word}: write <level>=<name>`);
      return [level, name];
    }),
  );
}

function chosenNode(config: CompiledConfig, options: NodeOptions): CompiledNode {
  const names = config.nodes.map((node) => node.name);
  if (options.name === undefined && config.nodes.length === 1 && config.nodes[0] !== undefined) return config.nodes[0];
  if (options.name === undefined)
    throw invalid('--name', `is missing; the file describes ${names.join(', ') || 'no nodes'}`);
  const found = config.nodes.find((node) => node.name === options.name);
  if (found === undefined)
    throw invalid('--name', `${options.name} is not described; the file has ${names.join(', ') || 'no nodes'}`);
  return found;
}

function storeOverride(endpoints: string | undefined): Record<string, unknown> {
  return endpoints === undefined ? {} : { endpoints: endpoints.split(',').map((entry) => entry.trim()) };
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as never;
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}
