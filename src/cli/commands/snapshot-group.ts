// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { ApiClient } from '../../client/api-client.js';
import type { SnapshotGroupView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { parseCount } from '../sizes.js';

const pollMs = 50;

interface CreateOptions extends CommonOptions {
  readonly wait: string;
}

/** Below `snapshot`. */
export function addSnapshotGroupCommands(snapshot: Command, world: CliWorld): void {
  const group = snapshot
    .command('group')
    .description('create, list, show and delete snapshots of several volumes of one instant');
  group
    .command('create <name> <volumes...>')
    .description('keep what several volumes hold at one instant, while they are used: all of them, or none')
    .option('--wait <seconds>', 'how long to wait until they are made; 0: not at all', '60')
    .action((name: string, volumes: string[], _options, command: Command) =>
      create(world, { name, volumes }, command.optsWithGlobals()),
    );
  group
    .command('list')
    .description('list the groups of snapshots')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const groups = await (await apiClient(world, options)).snapshotGroups();
      print(world, options, groups, groupTable(groups));
    });
  group
    .command('show <name>')
    .description('show one group of snapshots')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const found = await (await apiClient(world, options)).snapshotGroup(name);
      print(world, options, found, groupText(found));
    });
  group
    .command('delete <name>')
    .description('delete all snapshots of a group; volumes that were made of them stay as they are')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      await (await apiClient(world, options)).deleteSnapshotGroup(name);
      print(world, options, { deleted: name }, `group of snapshots ${name} is being deleted`);
    });
}

async function create(
  world: CliWorld,
  wish: { name: string; volumes: readonly string[] },
  options: CreateOptions,
): Promise<void> {
  const timeoutMs = parseCount(options.wait, '--wait') * 1000;
  const client = await apiClient(world, options);
  const asked = await client.createSnapshotGroup(wish.name, wish.volumes);
  const made = timeoutMs > 0 ? await waitMade(world, client, { asked, timeoutMs }) : asked;
  print(world, options, made, groupText(made));
}

async function waitMade(
  world: CliWorld,
  client: ApiClient,
  of: { asked: SnapshotGroupView; timeoutMs: number },
): Promise<SnapshotGroupView> {
  const endMs = world.now() + of.timeoutMs;
  let group = of.asked;
  while (group.state === 'pending') {
    const waits = group.problem === null ? '' : `, and waits: ${group.problem}`;
    const operation = `making the group of snapshots ${group.name} (it goes on${waits})`;
    if (world.now() > endMs) throw new BasaltError('DEADLINE_EXCEEDED', { operation, timeoutMs: of.timeoutMs });
    await world.sleep(pollMs);
    group = await client.snapshotGroup(group.name);
  }
  if (group.state === 'failed')
    throw new BasaltError('SNAPSHOT_FAILED', { name: `group ${group.name}`, detail: group.problem });
  return group;
}

function groupTable(groups: readonly SnapshotGroupView[]): string {
  if (groups.length === 0) return 'no groups of snapshots';
  const head = ['NAME', 'STATE', 'I/O HELD', 'VOLUMES'];
  return table([
    head,
    ...groups.map((group) => [group.name, group.state, heldText(group.heldUs), volumesOf(group).join(', ')]),
  ]);
}

function groupText(group: SnapshotGroupView): string {
  const facts = [
    ['name', group.name],
    ['id', group.id],
    ['state', `${group.state}${group.problem === null ? '' : ` (${group.problem})`}`],
    ['I/O held', heldText(group.heldUs)],
  ];
  const snapshots = group.snapshots.map((each) => [
    `volume ${each.volume}`,
    each.state === 'ready'
      ? `${each.copies} of ${each.copiesWanted} copies, I/O held ${heldText(each.heldUs)}`
      : each.state,
  ]);
  return table([...facts, ...snapshots]);
}

function volumesOf(group: SnapshotGroupView): string[] {
  return group.snapshots.map(({ volume }) => volume);
}

function heldText(heldUs: number | null): string {
  return heldUs === null ? '-' : `${(heldUs / 1000).toFixed(1)} ms`;
}
