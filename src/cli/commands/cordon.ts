// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { DiskView, DrainPlanView, NodeView } from '../../model/api.js';
import type { CordonKind } from '../../model/jobs.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes } from '../sizes.js';
import { jobText, waitForJob } from './job.js';

interface DrainOptions extends CommonOptions {
  readonly dryRun?: boolean;
  readonly wait: string;
}

/** What a disk or a machine goes through before it is taken away. `node`: the command that has a node's other words. */
export function addCordonCommands(parent: Command, node: Command, world: CliWorld): void {
  const disk = parent.command('disk').description('list, cordon, drain and remove disks');
  disk
    .command('list')
    .description('list the disks')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const disks = await (await apiClient(world, options)).disks();
      print(world, options, disks, diskTable(disks));
    });
  disk
    .command('remove <disk>')
    .description('take a disk that holds nothing out of the cluster; uncordon brings it back')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      await (await apiClient(world, options)).removeDisk(name);
      print(world, options, { removed: name }, `disk ${name} is no part of the cluster any more`);
    });
  addFor(disk, 'disk', world);
  addFor(node, 'node', world);
}

function addFor(parent: Command, kind: CordonKind, world: CliWorld): void {
  parent
    .command(`cordon <${kind}>`)
    .description(`have nothing new placed on a ${kind}; what is there stays`)
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const done = await (await apiClient(world, options)).cordon(kind, name);
      print(world, options, done, `${kind} ${name} is cordoned`);
    });
  parent
    .command(`uncordon <${kind}>`)
    .description(`have a ${kind} take new replicas again; ends a drain of it`)
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const done = await (await apiClient(world, options)).uncordon(kind, name);
      print(world, options, done, `${kind} ${name} takes new replicas`);
    });
  parent
    .command(`drain <${kind}>`)
    .description(`move everything off a ${kind}, with redundancy kept all the time`)
    .option('--dry-run', 'show what would move, and change nothing')
    .option('--wait <seconds>', 'how long to wait until it is empty; 0: not at all', '0')
    .action((name: string, _options, command: Command) => drain(world, { kind, name }, command.optsWithGlobals()));
}

async function drain(world: CliWorld, at: { kind: CordonKind; name: string }, options: DrainOptions): Promise<void> {
  const client = await apiClient(world, options);
  if (options.dryRun === true) {
    const plan = await client.drainPlan(at.kind, at.name);
    print(world, options, plan, planText(plan));
    return;
  }
  const job = await waitForJob(world, client, { job: await client.drain(at.kind, at.name), wait: options.wait });
  print(world, options, job, jobText(job));
}

export function diskTable(disks: readonly DiskView[]): string {
  if (disks.length === 0) return 'no disks';
  const head = ['DISK', 'NODE', 'PATH', 'STATE', 'PROMISED', 'SPACE'];
  const rows = disks.map((disk) => [
    disk.id,
    disk.node,
    disk.path,
    stateText(disk),
    formatBytes(disk.promisedBytes),
    formatBytes(disk.totalBytes),
  ]);
  return table([head, ...rows]);
}

function stateText(at: Pick<DiskView | NodeView, 'state' | 'cordon'>): string {
  const word = { cordon: ', cordoned', drain: ', to be drained', removed: ', removed' };
  return at.state + (at.cordon === null ? '' : word[at.cordon]);
}

function planText(plan: DrainPlanView): string {
  const facts = [
    [plan.kind, plan.name],
    ['replicas that move', `${plan.replicas}, at most ${formatBytes(plan.bytes)}`],
    ...(plan.snapshotCopies === 0 ? [] : [['copies of snapshots', `${plan.snapshotCopies}, made anew elsewhere`]]),
    ...plan.controllers.map(({ volume, to }) => [`volume ${volume}`, `handed over to ${to}`]),
    ...(plan.waitsFor === null ? [] : [['waits', plan.waitsFor]]),
  ];
  const moves = plan.pools.map((pool) => {
    const rows = pool.disks.map((disk) => [
      disk.disk,
      disk.node,
      `${disk.pgsBefore} to ${disk.pgsAfter}`,
      formatBytes(disk.inBytes),
      formatBytes(disk.outBytes),
    ]);
    return `pool ${pool.pool}\n${table([['DISK', 'NODE', 'PGS', 'IN', 'OUT'], ...rows])}`;
  });
  return [table(facts), ...moves].join('\n\n');
}
