// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { ApiClient } from '../../client/api-client.js';
import type { VolumeCreateRequest, VolumeView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { epochText } from '../../model/generation.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes, parseBytes, parseCount, parseWords } from '../sizes.js';
import { type Exit, exitDamage } from './daemons.js';
import { foundDamage, jobText, waitForJob } from './job.js';
import { parseSnapshotName } from './snapshot.js';

interface CreateOptions extends CommonOptions {
  readonly size?: string;
  readonly from?: string;
  readonly pool?: string;
  readonly copies?: string;
  readonly legs?: string;
  readonly stripe?: string;
  readonly controllers?: string;
  readonly active?: string;
  readonly encrypt?: boolean;
  readonly checksums?: boolean;
  readonly wait: string;
}

export function addVolumeCommands(parent: Command, world: CliWorld, exit: Exit): void {
  const volume = parent.command('volume').description('create, list, show and delete volumes');
  volume
    .command('create <name>')
    .description('create a thin, striped and replicated volume')
    .option('--size <bytes>', 'size, such as 1G; a multiple of 4096')
    .option('--from <volume@snapshot>', 'begin as this snapshot, with its size and on its disks')
    .option('--pool <name>', 'pool whose PGs hold it (default: one for the number of copies)')
    .option('--copies <number>', 'replicas of every byte (default: 2, or what the pool keeps)')
    .option('--legs <number>', 'placement groups to stripe over (default: 4)')
    .option('--stripe <bytes>', 'stripe size (default: 64K)')
    .option('--controllers <names>', 'nodes that may serve it, by preference, with commas; "" for none')
    .option('--active <number>', 'controllers that drive it and serve hosts at once (default: 1)')
    .option('--encrypt', 'store its data encrypted (AES-XTS), under a key that the cluster key wraps')
    .option('--checksums', 'verify each 4 KiB block when it is read, and repair it from the other replicas')
    .option('--wait <seconds>', 'how long to wait until it is served; 0: not at all', '30')
    .action((name: string, _options, command: Command) => create(world, name, command.optsWithGlobals()));
  volume
    .command('list')
    .description('list the volumes')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const volumes = await (await apiClient(world, options)).volumes();
      print(world, options, volumes, volumeTable(volumes));
    });
  volume
    .command('show <name>')
    .description('show one volume')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const found = await (await apiClient(world, options)).volume(name);
      print(world, options, found, volumeText(found));
    });
  volume
    .command('resize <name>')
    .description('make a volume larger while it is used')
    .requiredOption('--size <bytes>', 'its new size, such as 20G; a multiple of 4096')
    .option('--wait <seconds>', 'how long to wait until hosts have it; 0: not at all', '60')
    .action((name: string, _options, command: Command) => resize(world, name, command.optsWithGlobals()));
  volume
    .command('move-controller <name>')
    .description('hand a volume over to another controller node while hosts use it')
    .requiredOption('--to <node>', 'the node that shall drive it; hosts must have a path to it')
    .option('--wait <seconds>', 'how long to wait until it does; 0: not at all', '60')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions & { readonly to: string; readonly wait: string } = command.optsWithGlobals();
      const client = await apiClient(world, options);
      const asked = await client.moveController(name, options.to);
      const job = await waitForJob(world, client, { job: asked, wait: options.wait });
      print(world, options, job, jobText(job));
    });
  volume
    .command('move-replica <volume[/leg]>')
    .description('move replicas of a volume from one disk to another while hosts use it')
    .requiredOption('--from <disk>', 'the disk that they are on')
    .requiredOption('--to <disk>', 'the disk that they go to')
    .option('--wait <seconds>', 'how long to wait until they have moved; 0: not at all', '0')
    .action((name: string, _options, command: Command) => moveReplica(world, name, command.optsWithGlobals()));
  volume
    .command('change-pool <name>')
    .description('give a volume to a pool of another class, domain or number of copies while hosts use it')
    .requiredOption('--to <pool>', 'the pool that it goes to')
    .option('--wait <seconds>', 'how long to wait until all of it is there; 0: not at all', '0')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions & { readonly to: string; readonly wait: string } = command.optsWithGlobals();
      const client = await apiClient(world, options);
      const asked = await client.changePool(name, { pool: options.to });
      const job = await waitForJob(world, client, { job: asked, wait: options.wait });
      print(world, options, job, jobText(job));
    });
  volume
    .command('scrub <name>')
    .description('compare all members of a volume while hosts use it, and rewrite what differs or cannot be read')
    .option('--rate <bytes>', 'bytes per second at most, such as 50M (default: as fast as it goes)')
    .option('--no-repair', 'only count what is wrong')
    .option('--wait <seconds>', 'how long to wait until it has ended; 0: not at all', '0')
    .addHelpText('after', '\nExit codes, when it is waited for: 0 nothing is wrong, 8 damage was found')
    .action((name: string, _options, command: Command) => scrub(world, name, command.optsWithGlobals(), exit));
  volume
    .command('delete <name>')
    .description('delete a volume that nobody is attached to, with all its data')
    .option('--force', 'do not wait for nodes that are away: they delete their part when they are back')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions & { readonly force?: boolean } = command.optsWithGlobals();
      await (await apiClient(world, options)).deleteVolume(name, { force: options.force === true });
      print(world, options, { deleted: name }, `volume ${name} is being deleted`);
    });
}

interface ScrubOptions extends CommonOptions {
  readonly rate?: string;
  readonly repair: boolean;
  readonly wait: string;
}

async function scrub(world: CliWorld, name: string, options: ScrubOptions, exit: Exit): Promise<void> {
  const rate = options.rate === undefined ? {} : { bytesPerS: parseBytes(options.rate, '--rate') };
  const client = await apiClient(world, options);
  const asked = await client.scrubVolume(name, { ...rate, repair: options.repair });
  const job = await waitForJob(world, client, { job: asked, wait: options.wait });
  print(world, options, job, jobText(job));
  if (foundDamage(job)) exit(exitDamage);
}

interface MoveReplicaOptions extends CommonOptions {
  readonly from: string;
  readonly to: string;
  readonly wait: string;
}

async function moveReplica(world: CliWorld, text: string, options: MoveReplicaOptions): Promise<void> {
  const [name = '', leg, more] = text.split('/');
  if (name === '' || leg === '' || more !== undefined)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'volume', problem: 'must be <volume> or <volume>/<leg>' });
  const { from, to } = options;
  const only = leg === undefined ? {} : { leg: parseCount(leg, 'leg') };
  const client = await apiClient(world, options);
  const asked = await client.moveReplica(name, { ...only, from, to });
  const job = await waitForJob(world, client, { job: asked, wait: options.wait });
  print(world, options, job, jobText(job));
}

async function create(world: CliWorld, name: string, options: CreateOptions): Promise<void> {
  const waitMs = parseCount(options.wait, '--wait') * 1000;
  const client = await apiClient(world, options);
  const asked = options.from === undefined ? createNew : createClone;
  let volume = await asked(client, name, options);
  if (waitMs > 0) volume = await waitServed(world, client, { volume, waitMs });
  print(world, options, volume, volumeText(volume));
}

/** What a snapshot decides is not to be said again. */
const decidedBySnapshot = ['size', 'pool', 'copies', 'legs', 'stripe', 'active', 'encrypt', 'checksums'] as const;

function createClone(client: ApiClient, name: string, options: CreateOptions): Promise<VolumeView> {
  for (const option of decidedBySnapshot) {
    if (options[option] === undefined) continue;
    throw new BasaltError('INVALID_ARGUMENT', {
      field: `--${option}`,
      problem: 'is decided by the snapshot of --from',
    });
  }
  const at = parseSnapshotName(options.from ?? '', '--from');
  const controllers = options.controllers === undefined ? {} : { controllers: parseWords(options.controllers) };
  return client.cloneSnapshot(at.volume, at.snapshot, { name, ...controllers });
}

function createNew(client: ApiClient, name: string, options: CreateOptions): Promise<VolumeView> {
  if (options.size === undefined)
    throw new BasaltError('INVALID_ARGUMENT', {
      field: '--size',
      problem: 'is missing; or name a snapshot with --from',
    });
  const request: VolumeCreateRequest = {
    name,
    sizeBytes: parseBytes(options.size, '--size'),
    ...(options.pool === undefined ? {} : { pool: options.pool }),
    ...(options.copies === undefined ? {} : { copies: parseCount(options.copies, '--copies') }),
    ...(options.legs === undefined ? {} : { legs: parseCount(options.legs, '--legs') }),
    ...(options.stripe === undefined ? {} : { stripeSizeBytes: parseBytes(options.stripe, '--stripe') }),
    ...(options.controllers === undefined ? {} : { controllers: parseWords(options.controllers) }),
    ...(options.active === undefined ? {} : { active: parseCount(options.active, '--active') }),
    ...(options.encrypt === true ? { encrypt: true } : {}),
    ...(options.checksums === true ? { checksums: true } : {}),
  };
  return client.createVolume(request);
}

interface ResizeOptions extends CommonOptions {
  readonly size: string;
  readonly wait: string;
}

async function resize(world: CliWorld, name: string, options: ResizeOptions): Promise<void> {
  const sizeBytes = parseBytes(options.size, '--size');
  const timeoutMs = parseCount(options.wait, '--wait') * 1000;
  const client = await apiClient(world, options);
  let volume = await client.resizeVolume(name, { sizeBytes });
  const endMs = world.now() + timeoutMs;
  while (timeoutMs > 0 && volume.growth !== null) {
    if (world.now() > endMs) {
      const waits = volume.growth.problem === null ? '' : `, and waits: ${volume.growth.problem}`;
      throw new BasaltError('DEADLINE_EXCEEDED', {
        operation: `growing volume ${name} (it goes on${waits})`,
        timeoutMs,
      });
    }
    await world.sleep(pollMs);
    volume = await client.volume(name);
  }
  print(world, options, volume, volumeText(volume));
}

const pollMs = 100;

async function waitServed(
  world: CliWorld,
  client: ApiClient,
  at: { volume: VolumeView; waitMs: number },
): Promise<VolumeView> {
  const endMs = world.now() + at.waitMs;
  let { volume } = at;
  while (!isReady(volume)) {
    if (world.now() > endMs) {
      const timeoutMs = at.waitMs;
      throw new BasaltError('DEADLINE_EXCEEDED', { operation: `making volume ${volume.name} (it goes on)`, timeoutMs });
    }
    await world.sleep(pollMs);
    volume = await client.volume(volume.name);
  }
  return volume;
}

function isReady(volume: VolumeView): boolean {
  return volume.phase === 'live' && (volume.controllers.length === 0 || volume.health !== 'unserved');
}

function growthFacts(volume: VolumeView): string[][] {
  if (volume.growth === null) return [];
  const { sizeBytes, problem } = volume.growth;
  return [['grows to', `${formatBytes(sizeBytes)}${problem === null ? '' : ` (waits: ${problem})`}`]];
}

/** Who serves hosts. */
function controllersOf({ controller, fronts }: VolumeView): string {
  if (fronts === undefined) return controller ?? '-';
  return fronts.map((front) => front.controller ?? '-').join(', ');
}

function frontFacts({ fronts = [], parts = [] }: VolumeView): string[][] {
  const shown = fronts.flatMap(({ nqn, hosts, controller, paths }, index) => [
    [`front ${index}`, `${controller ?? '-'}, for ${hosts.join(', ') || 'no host'}: ${nqn}`],
    ...paths.map((path) => pathFact(path, `front ${index} path`)),
  ]);
  return [
    ...shown,
    ...parts.map((part, index) => [`part ${index}`, `${part.controller ?? '-'} (epoch ${part.epoch})`]),
  ];
}

function pathFact(path: VolumeView['paths'][number], what: string): string[] {
  const { address, tlsAddress } = path;
  const shown = address ?? tlsAddress;
  const how = address === null && tlsAddress !== null ? ' by TLS' : '';
  const at = shown === null ? '-' : `${shown.traddr}:${shown.trsvcid}${how}`;
  return [`${what} ${path.node}`, `${at} ${path.state}${path.problem === null ? '' : ` (${path.problem})`}`];
}

export function volumeTable(volumes: readonly VolumeView[]): string {
  if (volumes.length === 0) return 'no volumes';
  const head = ['NAME', 'SIZE', 'LEGS', 'COPIES', 'HEALTH', 'CONTROLLER', 'EPOCH'];
  const rows = volumes.map((volume) => [
    volume.name,
    formatBytes(volume.sizeBytes),
    String(volume.legs.length),
    volume.erasure === undefined ? String(volume.copies) : `${volume.erasure.data}+${volume.erasure.parity}`,
    volume.phase === 'live' ? volume.health : volume.phase,
    controllersOf(volume),
    epochText(volume.epoch),
  ]);
  return table([head, ...rows]);
}

export function volumeText(volume: VolumeView): string {
  const facts = [
    ['name', volume.name],
    ['id', volume.id],
    ...(volume.fronts === undefined ? [['nqn', volume.nqn]] : []),
    ['pool', volume.pool ?? '-'],
    ['encryption', volume.encryptedBy === null ? 'none' : `AES-256-XTS, by cluster key ${volume.encryptedBy}`],
    ...(volume.checksums ? [['checksums', 'CRC32C of each 4 KiB, verified on every read']] : []),
    ...(volume.origin === null ? [] : [['began as', volume.origin]]),
    ['size', `${formatBytes(volume.sizeBytes)} (${volume.sizeBytes} bytes)`],
    ...growthFacts(volume),
    ['state', volume.phase === 'live' ? volume.health : volume.phase],
    ['controller', `${controllersOf(volume)} (epoch ${epochText(volume.epoch)})`],
    ['hosts', volume.hosts.join(', ') || 'none'],
  ];
  const legs = volume.legs.map((leg, index) => [
    `leg ${index}`,
    leg.map((entry) => `${entry.node}: ${entry.state}`).join(', '),
  ]);
  const paths = volume.paths.map((path) => pathFact(path, 'path'));
  const nbd = volume.paths.flatMap((path) => path.nbd.map((entry) => [`nbd ${path.node}`, entry.uri]));
  return table([...facts, ...legs, ...frontFacts(volume), ...paths, ...nbd]);
}
