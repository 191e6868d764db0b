// SPDX-License-Identifier: Apache-2.0
//
// The one configuration file. A machine may run every part of it (`basalt up`) or one node of it.
// What is left out takes the value that compileConfig() gives; inside, every field is set.

import { isIP } from 'node:net';
import { dirname, join } from 'node:path/posix';
import Type, { type Static } from 'typebox';
import { checker } from './check.js';
import { BasaltError } from './errors.js';
import { DiskClass, DiskTags, DiskWeight, diskClassDefault, Location } from './location.js';
import { Name, Role } from './objects.js';

const strict = { additionalProperties: false } as const;
const HostPort = Type.String({ pattern: '^(\\[[0-9a-fA-F:]+\\]|[^:\\s]+):\\d{1,5}$' });

export const DiskConfig = Type.Object(
  {
    path: Type.String({ minLength: 1 }),
    /** Makes the file with this size when it does not exist. */
    createBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024 * 1024, maximum: Number.MAX_SAFE_INTEGER })),
    /** Allows a file system that refuses O_DIRECT. */
    buffered: Type.Optional(Type.Boolean()),
    /** @default 'ssd' */
    class: Type.Optional(DiskClass),
    tags: Type.Optional(DiskTags),
    /** @default 1 */
    weight: Type.Optional(DiskWeight),
  },
  strict,
);

/** A running SPDK on the same machine, which has the node's drives. */
export const SpdkEngineConfig = Type.Object(
  {
    kind: Type.Literal('spdk'),
    /** Its RPC socket. */
    rpc: Type.String({ minLength: 1 }),
    /** Where its target serves the disks to this node, on 127.0.0.1. @default 4421 */
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535 })),
  },
  strict,
);

const DiscoveryAccess = Type.Union([Type.Literal('open'), Type.Literal('authenticated'), Type.Literal('off')]);

export const NodeConfig = Type.Object(
  {
    name: Name,
    roles: Type.Optional(Type.Array(Role, { minItems: 1 })),
    engine: Type.Optional(Type.Union([Type.Literal('native'), Type.Literal('fake'), SpdkEngineConfig])),
    /** Where other nodes and hosts connect. @default 127.0.0.1 */
    address: Type.Optional(Type.String()),
    /**
     * Whoever can listen on the network of `address` may read what nodes and hosts say to each other. @default false
     */
    trustedNetwork: Type.Optional(Type.Boolean()),
    /**
     * The node's ports speak TLS and nothing else: nodes come with what follows from the node key, hosts with keys for TLS.
     * @default where `address` is no loopback address, and its network is not trusted
     */
    secure: Type.Optional(Type.Boolean()),
    internalPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535 })),
    hostPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535 })),
    /** Where hosts with a key for TLS connect: any address of the machine. @default `address`; its `hostPort` if that is secure */
    tlsAddress: Type.Optional(Type.String()),
    /** @default 0: a free one */
    tlsPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535 })),
    /** What discovery tells: each host what it may use; that, but who has a key proves it first; nothing. @default open */
    discovery: Type.Optional(DiscoveryAccess),
    disks: Type.Optional(Type.Array(DiskConfig, { maxItems: 64 })),
    /** Where the node stands, for pools whose failure domain is wider than a node. */
    location: Type.Optional(Location),
  },
  strict,
);

export const ConfigFile = Type.Object(
  {
    store: Type.Optional(
      Type.Object(
        {
          endpoints: Type.Optional(Type.Array(HostPort, { minItems: 1 })),
          listen: Type.Optional(HostPort),
          directory: Type.Optional(Type.String({ minLength: 1 })),
          /** TLS: the certificates (PEM) that the store's are signed by. With it, endpoints are asked over TLS. */
          ca: Type.Optional(Type.String({ minLength: 1 })),
          /** What this process shows the store, and its key (mode 0600). */
          cert: Type.Optional(Type.String({ minLength: 1 })),
          key: Type.Optional(Type.String({ minLength: 1 })),
          /** A user of the store, and the file with the password (mode 0600). */
          username: Type.Optional(Type.String({ minLength: 1 })),
          passwordFile: Type.Optional(Type.String({ minLength: 1 })),
        },
        strict,
      ),
    ),
    api: Type.Optional(
      Type.Object(
        {
          /** A loopback address. */
          listen: Type.Optional(HostPort),
          /** Any address: there every request comes by TLS, with a token. @default nowhere */
          tlsListen: Type.Optional(HostPort),
          /** What the server shows (PEM), and its key (mode 0600). */
          cert: Type.Optional(Type.String({ minLength: 1 })),
          key: Type.Optional(Type.String({ minLength: 1 })),
          /** Of commands: a file (mode 0600) with the token that they show. */
          tokenFile: Type.Optional(Type.String({ minLength: 1 })),
        },
        strict,
      ),
    ),
    clusterKey: Type.Optional(
      Type.Object(
        {
          /** Holds the cluster keys of encrypted volumes; mode 0600. @default `cluster.key` beside the store's directory */
          file: Type.Optional(Type.String({ minLength: 1 })),
        },
        strict,
      ),
    ),
    nodeKey: Type.Optional(
      Type.Object(
        {
          /** By which nodes know each other; mode 0600. @default `node.key` beside the store's directory, if it is there */
          file: Type.Optional(Type.String({ minLength: 1 })),
        },
        strict,
      ),
    ),
    placement: Type.Optional(
      Type.Object(
        {
          /** How long a node may be away before what it holds is rebuilt elsewhere. @default 600 */
          graceSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 604_800 })),
          /** Legs of the whole cluster that are rebuilt at once. @default 8 */
          rebuildsMax: Type.Optional(Type.Integer({ minimum: 0, maximum: 10_000 })),
          /** Of them, those that write to one disk. @default 2 */
          rebuildsPerDiskMax: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000 })),
        },
        strict,
      ),
    ),
    nodes: Type.Optional(Type.Array(NodeConfig)),
    logLevel: Type.Optional(
      Type.Union([
        Type.Literal('debug'),
        Type.Literal('info'),
        Type.Literal('warn'),
        Type.Literal('error'),
        Type.Literal('silent'),
      ]),
    ),
  },
  strict,
);
export type ConfigFile = Static<typeof ConfigFile>;

export interface CompiledDisk {
  readonly path: string;
  readonly createBytes: number | null;
  readonly buffered: boolean;
  readonly class: string;
  readonly tags: readonly string[];
  readonly weight: number;
}

export interface SpdkEngine {
  readonly kind: 'spdk';
  readonly rpc: string;
  readonly port: number;
}

export interface CompiledNode {
  readonly name: string;
  readonly roles: readonly Role[];
  readonly engine: 'native' | 'fake' | SpdkEngine;
  readonly address: string;
  readonly trustedNetwork: boolean;
  readonly secure: boolean;
  readonly internalPort: number;
  readonly hostPort: number;
  /** Null, both of them: the port for hosts where that speaks TLS, another one of the same address where it does not. */
  readonly tlsAddress: string | null;
  readonly tlsPort: number | null;
  readonly discovery: Static<typeof DiscoveryAccess>;
  readonly disks: readonly CompiledDisk[];
  readonly location: Location;
}

export interface CompiledPlacement {
  readonly graceSeconds: number;
  readonly rebuildsMax: number;
  readonly rebuildsPerDiskMax: number;
}

/** How the store is reached, beside where: paths of files; null: not so. */
export interface StoreSecurity {
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
  readonly username: string | null;
  readonly passwordFile: string | null;
}

export interface CompiledConfig {
  readonly store: {
    readonly endpoints: readonly string[];
    readonly listen: string;
    readonly directory: string;
    readonly security: StoreSecurity;
  };
  readonly api: {
    readonly listen: string;
    /** Where strangers may ask, and the files of the certificate and its key; null: nowhere. */
    readonly tls: { readonly listen: string; readonly cert: string; readonly key: string } | null;
    readonly tokenFile: string | null;
  };
  readonly clusterKey: { readonly file: string };
  /** `required`: it was named, so it must be there. */
  readonly nodeKey: { readonly file: string; readonly required: boolean };
  readonly placement: CompiledPlacement;
  readonly nodes: readonly CompiledNode[];
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent';
}

const spdkPortDefault = 4421;

export const defaults = Object.freeze({
  storeListen: '127.0.0.1:7410',
  apiListen: '127.0.0.1:7420',
  storeDirectory: 'basalt-data/store',
});

const checkFile = checker(ConfigFile);

/** @throws INVALID_ARGUMENT naming the field, below `path` (the file's name). */
export function compileConfig(value: unknown, path = 'config'): CompiledConfig {
  const file = checkFile(value, path);
  const directory = file.store?.directory ?? defaults.storeDirectory;
  const listen = loopbackListen(file.store?.listen ?? defaults.storeListen, `${path}.store.listen`);
  const endpoints = file.store?.endpoints ?? [listen];
  const security = compileSecurity(file.store ?? {});
  checkEndpoints(endpoints, { security, listen }, `${path}.store`);
  return {
    store: { endpoints, listen, directory, security },
    api: compileApi(file.api ?? {}, `${path}.api`),
    clusterKey: { file: file.clusterKey?.file ?? join(dirname(directory), 'cluster.key') },
    nodeKey: {
      file: file.nodeKey?.file ?? join(dirname(directory), 'node.key'),
      required: file.nodeKey?.file !== undefined,
    },
    placement: {
      graceSeconds: file.placement?.graceSeconds ?? 600,
      rebuildsMax: file.placement?.rebuildsMax ?? 8,
      rebuildsPerDiskMax: file.placement?.rebuildsPerDiskMax ?? 2,
    },
    nodes: compileNodes(file.nodes ?? [], path),
    logLevel: file.logLevel ?? 'info',
  };
}

function compileApi(api: NonNullable<ConfigFile['api']>, path: string): CompiledConfig['api'] {
  const { tlsListen, cert, key, tokenFile = null } = api;
  const listen = loopbackListen(api.listen ?? defaults.apiListen, `${path}.listen`);
  const given = [tlsListen, cert, key].filter((entry) => entry !== undefined).length;
  if (tlsListen === undefined || cert === undefined || key === undefined) {
    if (given === 0) return { listen, tls: null, tokenFile };
    const missing = tlsListen === undefined ? 'tlsListen' : cert === undefined ? 'cert' : 'key';
    throw invalid(`${path}.${missing}`, 'is missing; tlsListen, cert and key go together');
  }
  const { host, port } = splitHostPort(tlsListen, `${path}.tlsListen`);
  if (isIP(host) === 0) throw invalid(`${path}.tlsListen`, 'must be an IP address and a port');
  if (port > 65535) throw invalid(`${path}.tlsListen`, 'has a port above 65535');
  return { listen, tls: { listen: tlsListen, cert, key }, tokenFile };
}

function compileSecurity(store: NonNullable<ConfigFile['store']>): StoreSecurity {
  const { ca = null, cert = null, key = null, username = null, passwordFile = null } = store;
  return { ca, cert, key, username, passwordFile };
}

function checkEndpoints(
  endpoints: readonly string[],
  at: { security: StoreSecurity; listen: string },
  path: string,
): void {
  const { ca, cert, key, username, passwordFile } = at.security;
  if ((cert === null) !== (key === null)) throw invalid(`${path}.${cert === null ? 'cert' : 'key'}`, 'is missing');
  if (cert !== null && ca === null) throw invalid(`${path}.ca`, 'is missing; it goes with cert and key');
  if ((username === null) !== (passwordFile === null))
    throw invalid(`${path}.${username === null ? 'username' : 'passwordFile'}`, 'is missing');
  if ((ca !== null || username !== null) && endpoints.includes(at.listen))
    throw invalid(`${path}.endpoints`, 'must name an etcd cluster: the embedded store has neither TLS nor users');
  for (const [index, endpoint] of endpoints.entries()) {
    if (ca !== null || isLoopback(splitHostPort(endpoint, `${path}.endpoints[${index}]`).host)) continue;
    throw invalid(`${path}.endpoints[${index}]`, 'must be a loopback address, or come with `ca`: then TLS is used');
  }
}

function compileNodes(nodes: readonly Static<typeof NodeConfig>[], path: string): CompiledNode[] {
  const names = new Set<string>();
  return nodes.map((node, index) => {
    const at = `${path}.nodes[${index}]`;
    if (names.has(node.name))
      throw invalid(`${at}.name`, `'${node.name}' is used twice; every node needs a name of its own`);
    names.add(node.name);
    return compileNode(node, at);
  });
}

function compileNode(node: Static<typeof NodeConfig>, path: string): CompiledNode {
  const disks = (node.disks ?? []).map((disk) => ({
    path: disk.path,
    createBytes: disk.createBytes ?? null,
    buffered: disk.buffered ?? false,
    class: disk.class ?? diskClassDefault,
    tags: disk.tags ?? [],
    weight: disk.weight ?? 1,
  }));
  const roles = node.roles ?? (disks.length > 0 ? ['disk', 'controller'] : ['controller']);
  if (disks.length > 0 && !roles.includes('disk'))
    throw invalid(`${path}.roles`, "must hold 'disk', because the node has disks");
  const address = node.address ?? '127.0.0.1';
  const trustedNetwork = node.trustedNetwork ?? false;
  const secure = node.secure ?? !(isLoopback(address) || trustedNetwork);
  if (secure && trustedNetwork) throw invalid(`${path}.secure`, 'does not go with "trustedNetwork": one of them');
  if (!isLoopback(address)) assertReachable(address, { secure, trustedNetwork }, `${path}.address`);
  if (node.tlsAddress !== undefined && !isOneAddress(node.tlsAddress))
    throw invalid(`${path}.tlsAddress`, 'must be one IP address, which hosts can connect to');
  return {
    name: node.name,
    roles,
    engine: compileEngine(node, path),
    address,
    trustedNetwork,
    secure,
    internalPort: node.internalPort ?? 0,
    hostPort: node.hostPort ?? 0,
    tlsAddress: node.tlsAddress ?? null,
    tlsPort: node.tlsPort ?? null,
    discovery: node.discovery ?? 'open',
    disks,
    location: node.location ?? {},
  };
}

/** By others than this machine. */
function assertReachable(address: string, by: { secure: boolean; trustedNetwork: boolean }, field: string): void {
  if (!isOneAddress(address)) throw invalid(field, 'must be one IP address, which nodes and hosts can connect to');
  if (by.secure || by.trustedNetwork) return;
  const problem =
    'must be a loopback address (127.0.0.1 or ::1) where "secure" is false and "trustedNetwork" is not true';
  throw invalid(field, problem);
}

function compileEngine(node: Static<typeof NodeConfig>, path: string): CompiledNode['engine'] {
  const { engine = 'native' } = node;
  if (typeof engine === 'string') return engine;
  for (const [index, disk] of (node.disks ?? []).entries()) {
    if (disk.buffered === true) throw invalid(`${path}.disks[${index}].buffered`, 'goes with the engine "native"');
    if (disk.createBytes !== undefined && !disk.path.startsWith('/'))
      throw invalid(`${path}.disks[${index}].createBytes`, 'goes with the path of a file');
  }
  if ((node.disks ?? []).length === 0)
    throw invalid(`${path}.engine`, 'of kind "spdk" has the node\'s disks, and it has none');
  return { kind: 'spdk', rpc: engine.rpc, port: engine.port ?? spdkPortDefault };
}

/** What has neither tokens nor TLS listens where nobody else reaches it. */
export function loopbackListen(listen: string, field: string): string {
  const { host, port } = splitHostPort(listen, field);
  if (!isLoopback(host)) throw invalid(field, 'must be a loopback address, such as 127.0.0.1:7420');
  if (port > 65535) throw invalid(field, 'has a port above 65535');
  return listen;
}

export function splitHostPort(text: string, field: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  if (match === null) throw invalid(field, 'must be <address>:<port>, such as 127.0.0.1:7420');
  return { host: match[1] ?? match[2] ?? '', port: Number(match[3]) };
}

export function isLoopback(host: string): boolean {
  return /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host) || host === '::1' || host === 'localhost';
}

/** Not a name, and not all addresses at once, nor several: what a host could not connect to. */
function isOneAddress(text: string): boolean {
  if (isIP(text) === 6) return !/^[0:.]+$/.test(text) && !/^ff/i.test(text) && !/^::ffff:/i.test(text);
  return isIP(text) === 4 && Number(text.split('.')[0]) > 0 && Number(text.split('.')[0]) < 224;
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}
