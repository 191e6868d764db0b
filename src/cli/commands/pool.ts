// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { PoolCreateRequest, PoolPlanRequest, PoolPlanView, PoolView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { type DomainLevel, domainLevels } from '../../model/location.js';
import { type Redundancy, redundancyText } from '../../model/pools.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes, parseBytes, parseCount, parseWords } from '../sizes.js';

interface CreateOptions extends CommonOptions {
  readonly copies?: string;
  readonly erasure?: string;
  readonly ec?: string;
  readonly domain?: string;
  readonly class?: string;
  readonly tags?: string;
  readonly pgs?: string;
}

interface PlanOptions extends CommonOptions {
  readonly without?: string;
  readonly weight?: string;
  readonly limit: string;
}

export function addPoolCommands(parent: Command, world: CliWorld): void {
  const pool = parent.command('pool').description('create, list, show, plan and delete pools');
  addCreate(pool, world);
  pool
    .command('list')
    .description('list the pools')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const pools = await (await apiClient(world, options)).pools();
      print(world, options, pools, poolTable(pools));
    });
  pool
    .command('show <name>')
    .description('show one pool')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const found = await (await apiClient(world, options)).pool(name);
      print(world, options, found, poolText(found));
    });
  addPlan(pool, world);
  pool
    .command('delete <name>')
    .description('delete a pool that holds no volume')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      await (await apiClient(world, options)).deletePool(name);
      print(world, options, { deleted: name }, `pool ${name} is deleted`);
    });
}

function addCreate(pool: Command, world: CliWorld): void {
  pool
    .command('create <name>')
    .description('create a pool: disks, how data is kept redundant on them, and what must not fail together')
    .option('--copies <number>', 'replicas of every byte (default: 2)')
    .option('--ec <k+m>', 'k data and m parity members instead of copies')
    .option('--erasure <k+m>', 'the same')
    .option('--domain <level>', `what holds one replica at most: ${domainLevels.join(', ')} (default: node)`)
    .option('--class <name>', 'only disks of this class')
    .option('--tags <names>', 'only disks with all of these tags, with commas')
    .option('--pgs <number>', 'placement groups (default: about a hundred places for each disk)')
    .action(async (name: string, _options, command: Command) => {
      const options: CreateOptions = command.optsWithGlobals();
      const request: PoolCreateRequest = {
        name,
        redundancy: redundancyOf(options),
        ...(options.domain === undefined ? {} : { domain: domainOf(options.domain) }),
        ...(options.class === undefined ? {} : { class: options.class }),
        ...(options.tags === undefined ? {} : { tags: parseWords(options.tags) }),
        ...(options.pgs === undefined ? {} : { pgCount: parseCount(options.pgs, '--pgs') }),
      };
      const made = await (await apiClient(world, options)).createPool(request);
      print(world, options, made, poolText(made));
    });
}

function addPlan(pool: Command, world: CliWorld): void {
  pool
    .command('plan <name>')
    .description('show what would move, how much and how long, and change nothing')
    .option('--without <names>', 'plan without these nodes or disks, with commas')
    .option('--weight <disk=weight>', 'plan with another weight of a disk, from 0 to 1; several with commas')
    .option('--limit <bytes>', 'what moving may take each second', '100M')
    .action(async (name: string, _options, command: Command) => {
      const options: PlanOptions = command.optsWithGlobals();
      const request: PoolPlanRequest = {
        bytesPerSecond: parseBytes(options.limit, '--limit'),
        ...(options.without === undefined ? {} : { without: parseWords(options.without) }),
        ...(options.weight === undefined ? {} : { weights: weightsOf(options.weight) }),
      };
      const plan = await (await apiClient(world, options)).planPool(name, request);
      print(world, options, plan, planText(plan));
    });
}

function redundancyOf(options: CreateOptions): Redundancy {
  const coded = options.ec ?? options.erasure;
  const name = options.ec === undefined ? '--erasure' : '--ec';
  if (coded === undefined) return { kind: 'copies', copies: parseCount(options.copies ?? '2', '--copies') };
  if (options.copies !== undefined) throw invalid(name, 'and --copies exclude each other');
  const match = /^(\d{1,2})\+(\d{1,2})$/.exec(coded);
  if (match === null) throw invalid(name, 'must be <data>+<parity>, such as 4+2');
  return { kind: 'erasure', data: Number(match[1]), parity: Number(match[2]) };
}

function domainOf(text: string): DomainLevel {
  const found = domainLevels.find((level) => level === text);
  if (found === undefined) throw invalid('--domain', `must be one of ${domainLevels.join(', ')}`);
  return found;
}

function weightsOf(text: string): Record<string, number> {
  return Object.fromEntries(
    parseWords(text).map((word) => {
      const [disk = '', weight = ''] = word.split('=');
      if (!/^(0(\.\d+)?|1(\.0+)?)$/.test(weight)) throw invalid('--weight', `${word}: write <disk>=<0 to 1>`);
      return [disk, Number(weight)];
    }),
  );
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}

function poolTable(pools: readonly PoolView[]): string {
  if (pools.length === 0) return 'no pools';
  const head = ['NAME', 'REDUNDANCY', 'DOMAIN', 'DISKS', 'PGS', 'USABLE', 'PROMISED', 'VOLUMES', 'STATE'];
  const rows = pools.map((pool) => [
    pool.name,
    redundancyText(pool.redundancy),
    pool.domain,
    String(pool.disks),
    String(pool.pgCount),
    formatBytes(pool.usableBytes),
    formatBytes(pool.promisedBytes),
    String(pool.volumes),
    stateOf(pool),
  ]);
  return table([head, ...rows]);
}

function stateOf(pool: PoolView): string {
  if (pool.pgsDegraded > 0) return `degraded (${pool.pgsDegraded} PGs with a disk that is away)`;
  return pool.legsMoving > 0 ? `moving (${pool.legsMoving} legs)` : 'ok';
}

function poolText(pool: PoolView): string {
  const { class: diskClass, tags } = pool.selector;
  const of = pool.optimumBytes === 0 ? 0 : (100 * pool.usableBytes) / pool.optimumBytes;
  return table([
    ['name', pool.name],
    ['id', pool.id],
    ['redundancy', `${redundancyText(pool.redundancy)}, each in another ${pool.domain}`],
    ['disks', `${pool.disks} (class ${diskClass ?? 'any'}, tags ${tags.join(', ') || 'any'})`],
    ['PGs', `${pool.pgCount} (map ${pool.mapVersion})`],
    ['usable', `${formatBytes(pool.usableBytes)} (${of.toFixed(1)} % of what these disks can hold at best)`],
    ['promised', `${formatBytes(pool.promisedBytes)} to ${pool.volumes} volumes`],
    ['state', stateOf(pool)],
  ]);
}

function planText(plan: PoolPlanView): string {
  if (plan.moves.length === 0) return `pool ${plan.pool}: nothing would move`;
  const facts = table([
    ['moves', `${plan.moves.length} places of PGs (the least for the best map: ${plan.movesMin})`],
    ['bytes', `${formatBytes(plan.bytes)} at most`],
    ['time', `${duration(plan.seconds)} at ${formatBytes(plan.bytesPerSecond)}/s`],
    ['usable', `${formatBytes(plan.usableBytesBefore)} -> ${formatBytes(plan.usableBytesAfter)}`],
  ]);
  const rows = plan.disks.map((disk) => [
    disk.disk,
    disk.node,
    `${disk.pgsBefore} -> ${disk.pgsAfter}`,
    formatBytes(disk.inBytes),
    formatBytes(disk.outBytes),
  ]);
  return `${facts}\n\n${table([['DISK', 'NODE', 'PGS', 'IN', 'OUT'], ...rows])}`;
}

function duration(seconds: number): string {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}
