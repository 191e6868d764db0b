// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { ApiClient } from '../../client/api-client.js';
import type { AttachRequest, HostView, VolumeView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { apiClient } from '../api-option.js';
import { addHostKeyOptions, connectLines, type HostKeyOptions, readHostKeys } from '../host-keys.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print } from '../output.js';
import { parseCount } from '../sizes.js';

interface AttachOptions extends CommonOptions, HostKeyOptions {
  readonly host?: string;
  readonly nbd?: string;
  readonly node?: string;
  readonly wait: string;
}

export function addAttachCommands(parent: Command, world: CliWorld): void {
  addHostKeyOptions(parent.command('attach <volume>'))
    .description('let a host connect to a volume, or export it over NBD on this machine')
    .option('--host <nqn>', 'NQN of the host that may connect (nvme gen-hostnqn, /etc/nvme/hostnqn)')
    .option('--nbd <unix:/path>', 'serve NBD on this Unix socket')
    .option('--node <name>', 'controller node that serves NBD (default: the active one)')
    .option('--wait <seconds>', 'how long to wait for the export; 0: not at all', '15')
    .action((name: string, _options, command: Command) => attach(world, name, command.optsWithGlobals()));
  parent
    .command('detach <volume>')
    .description('take a host or an NBD export off a volume; without either, all of them')
    .option('--host <nqn>', 'NQN of the host')
    .option('--nbd <unix:/path>', 'the Unix socket')
    .action(async (name: string, _options, command: Command) => {
      const options: AttachOptions = command.optsWithGlobals();
      const client = await apiClient(world, options);
      const volume = await client.detach(name, request(options));
      print(world, options, volume, `detached from ${name}; hosts now: ${volume.hosts.join(', ') || 'none'}`);
    });
}

async function attach(world: CliWorld, name: string, options: AttachOptions): Promise<void> {
  const wish = request(options);
  if (wish.host === undefined && wish.nbd === undefined) {
    throw new BasaltError('INVALID_ARGUMENT', {
      field: '--host',
      problem: 'is missing; name a host NQN, or --nbd unix:/path',
    });
  }
  const waitMs = parseCount(options.wait, '--wait') * 1000;
  const keys = await readHostKeys(world, options);
  const client = await apiClient(world, options);
  let volume = await client.attach(name, Object.keys(keys).length === 0 ? wish : { ...wish, keys });
  const host = wish.host === undefined ? null : await client.host(wish.host);
  if (wish.nbd !== undefined && waitMs > 0)
    volume = await waitNbd(world, client, { volume, path: wish.nbd.path, waitMs });
  if (host?.tlsPsk === true && waitMs > 0) volume = await waitTls(world, client, { volume, waitMs, host: host.nqn });
  print(world, options, volume, attachText(volume, { host, options, nbd: wish.nbd?.path ?? null }));
}

function request(options: AttachOptions): AttachRequest {
  const node = options.node === undefined ? {} : { node: options.node };
  return {
    ...(options.host === undefined ? {} : { host: options.host }),
    ...(options.nbd === undefined ? {} : { nbd: { path: unixPath(options.nbd), ...node } }),
  };
}

function unixPath(text: string): string {
  const path = text.startsWith('unix:') ? text.slice('unix:'.length) : text;
  if (!path.startsWith('/')) {
    throw new BasaltError('INVALID_ARGUMENT', { field: '--nbd', problem: 'must be unix:/absolute/path' });
  }
  return path;
}

async function waitNbd(
  world: CliWorld,
  client: ApiClient,
  at: { volume: VolumeView; path: string; waitMs: number },
): Promise<VolumeView> {
  const exported = (volume: VolumeView): boolean =>
    volume.paths.some((path) => path.nbd.some((entry) => entry.path === at.path));
  return waitUntil(world, client, { ...at, what: `exporting ${at.volume.name} over NBD`, holds: exported });
}

/** Until each path says where hosts connect by TLS. */
function waitTls(
  world: CliWorld,
  client: ApiClient,
  at: { volume: VolumeView; waitMs: number; host: string },
): Promise<VolumeView> {
  const open = (volume: VolumeView): boolean =>
    asSeenBy(volume, at.host).paths.every((path) => path.tlsAddress !== null);
  return waitUntil(world, client, { ...at, what: `serving ${at.volume.name} by TLS`, holds: open });
}

async function waitUntil(
  world: CliWorld,
  client: ApiClient,
  at: { volume: VolumeView; waitMs: number; what: string; holds: (volume: VolumeView) => boolean },
): Promise<VolumeView> {
  const endMs = world.now() + at.waitMs;
  let { volume } = at;
  while (!at.holds(volume)) {
    if (world.now() > endMs) {
      const problem = volume.paths.find((path) => path.problem !== null)?.problem ?? null;
      throw new BasaltError('DEADLINE_EXCEEDED', {
        operation: `${at.what} (it goes on${problem === null ? '' : `; so far: ${problem}`})`,
        timeoutMs: at.waitMs,
      });
    }
    await world.sleep(100);
    volume = await client.volume(volume.name);
  }
  return volume;
}

/** By the front that the host belongs to, where there are several. */
function asSeenBy(volume: VolumeView, host: string): VolumeView {
  const front = volume.fronts?.find(({ hosts }) => hosts.includes(host));
  return front === undefined ? volume : { ...volume, nqn: front.nqn, paths: front.paths };
}

function attachText(
  volume: VolumeView,
  wish: { host: HostView | null; options: HostKeyOptions; nbd: string | null },
): string {
  const lines = wish.host === null ? [] : connectLines(asSeenBy(volume, wish.host.nqn), wish.host, wish.options);
  const nbd = volume.paths.flatMap((path) => path.nbd).filter((entry) => entry.path === wish.nbd);
  lines.push(...nbd.map((entry) => entry.uri));
  return lines.join('\n') || `attached to ${volume.name}`;
}
