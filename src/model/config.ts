// SPDX-License-Identifier: Apache-2.0
//
// The one configuration file. A machine may run every part of it (`basalt up`) or one node of it.
// What is left out takes the value that compileConfig() gives; inside, every field is set.

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

export const NodeConfig = Type.Object(
  {
    name: Name,
    roles: Type.Optional(Type.Array(Role, { minItems: 1 })),
    engine: Type.Optional(Type.Union([Type.Literal('native'), Type.Literal('fake')])),
    address: Type.Optional(Type.String()),
    internalPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535 })),
    hostPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535 })),
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
        },
        strict,
      ),
    ),
    api: Type.Optional(Type.Object({ listen: Type.Optional(HostPort) }, strict)),
    clusterKey: Type.Optional(
      Type.Object(
        {
          /** Holds the cluster keys of encrypted volumes; mode 0600. @default `cluster.key` beside the store's directory */
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

export interface CompiledNode {
  readonly name: string;
  readonly roles: readonly Role[];
  readonly engine: 'native' | 'fake';
  readonly address: string;
  readonly internalPort: number;
  readonly hostPort: number;
  readonly disks: readonly CompiledDisk[];
  readonly location: Location;
}

export interface CompiledPlacement {
  readonly graceSeconds: number;
  readonly rebuildsMax: number;
  readonly rebuildsPerDiskMax: number;
}

export interface CompiledConfig {
  readonly store: { readonly endpoints: readonly string[]; readonly listen: string; readonly directory: string };
  readonly api: { readonly listen: string };
  readonly clusterKey: { readonly file: string };
  readonly placement: CompiledPlacement;
  readonly nodes: readonly CompiledNode[];
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent';
}

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
  return {
    store: {
      endpoints: file.store?.endpoints ?? [listen],
      listen,
      directory,
    },
    api: { listen: loopbackListen(file.api?.listen ?? defaults.apiListen, `${path}.api.listen`) },
    clusterKey: { file: file.clusterKey?.file ?? join(dirname(directory), 'cluster.key') },
    placement: {
      graceSeconds: file.placement?.graceSeconds ?? 600,
      rebuildsMax: file.placement?.rebuildsMax ?? 8,
      rebuildsPerDiskMax: file.placement?.rebuildsPerDiskMax ?? 2,
    },
    nodes: compileNodes(file.nodes ?? [], path),
    logLevel: file.logLevel ?? 'info',
  };
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
  if (!isLoopback(address)) throw invalid(`${path}.address`, 'must be a loopback address (127.0.0.1 or ::1)');
  return {
    name: node.name,
    roles,
    engine: node.engine ?? 'native',
    address,
    internalPort: node.internalPort ?? 0,
    hostPort: node.hostPort ?? 0,
    disks,
    location: node.location ?? {},
  };
}

/** Until there are tokens, nothing listens where others could reach it. */
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

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}
