// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { ApiClient } from '../../client/api-client.js';
import type { SnapshotView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes, parseCount } from '../sizes.js';
import { jobText, waitForJob } from './job.js';
import { addSnapshotGroupCommands } from './snapshot-group.js';

const pollMs = 50;

export interface SnapshotName {
  readonly volume: string;
  readonly snapshot: string;
}

/** `VOL@SNAP`. */
export function parseSnapshotName(text: string, field: string): SnapshotName {
  const [volume = '', snapshot = '', more] = text.split('@');
  if (volume === '' || snapshot === '' || more !== undefined)
    throw new BasaltError('INVALID_ARGUMENT', { field, problem: 'must be <volume>@<snapshot>' });
  return { volume, snapshot };
}

export function addSnapshotCommands(parent: Command, world: CliWorld): void {
  const snapshot = parent
    .command('snapshot')
    .description('create, list, show and delete snapshots of volumes, and go back to them');
  snapshot
    .command('create <volume@snapshot>')
    .description('keep what a volume holds at one instant, while it is used')
    .option('--wait <seconds>', 'how long to wait until it is made; 0: not at all', '30')
    .action((name: string, _options, command: Command) => create(world, name, command.optsWithGlobals()));
  snapshot
    .command('list <volume>')
    .description("list a volume's snapshots")
    .action(async (volume: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const snapshots = await (await apiClient(world, options)).snapshots(volume);
      print(world, options, snapshots, snapshotTable(snapshots));
    });
  snapshot
    .command('show <volume@snapshot>')
    .description('show one snapshot')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const at = parseSnapshotName(name, 'volume@snapshot');
      const found = await (await apiClient(world, options)).snapshot(at.volume, at.snapshot);
      print(world, options, found, snapshotText(found));
    });
  snapshot
    .command('rollback <volume@snapshot>')
    .description('have a volume, attached to nobody, hold what its snapshot does; what was written since is gone')
    .option('--wait <seconds>', 'how long to wait until it is done; 0: not at all', '60')
    .action((name: string, _options, command: Command) => rollBack(world, name, command.optsWithGlobals()));
  snapshot
    .command('delete <volume@snapshot>')
    .description('delete a snapshot; volumes that were made of it stay as they are')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const at = parseSnapshotName(name, 'volume@snapshot');
      await (await apiClient(world, options)).deleteSnapshot(at.volume, at.snapshot);
      print(world, options, { deleted: name }, `snapshot ${name} is being deleted`);
    });
  addSnapshotGroupCommands(snapshot, world);
}

async function rollBack(world: CliWorld, name: string, options: CreateOptions): Promise<void> {
  const at = parseSnapshotName(name, 'volume@snapshot');
  const client = await apiClient(world, options);
  const asked = await client.rollBack(at.volume, at.snapshot);
  const job = await waitForJob(world, client, { job: asked, wait: options.wait });
  print(world, options, job, jobText(job));
}

interface CreateOptions extends CommonOptions {
  readonly wait: string;
}

async function create(world: CliWorld, name: string, options: CreateOptions): Promise<void> {
  const at = parseSnapshotName(name, 'volume@snapshot');
  const timeoutMs = parseCount(options.wait, '--wait') * 1000;
  const client = await apiClient(world, options);
  const asked = await client.createSnapshot(at.volume, at.snapshot);
  const made = timeoutMs > 0 ? await waitMade(world, client, { asked, at, timeoutMs }) : asked;
  print(world, options, made, snapshotText(made));
}

async function waitMade(
  world: CliWorld,
  client: ApiClient,
  of: { asked: SnapshotView; at: SnapshotName; timeoutMs: number },
): Promise<SnapshotView> {
  const { at, timeoutMs } = of;
  const endMs = world.now() + timeoutMs;
  let snapshot = of.asked;
  while (snapshot.state === 'pending') {
    const waits = snapshot.problem === null ? '' : `, and waits: ${snapshot.problem}`;
    const operation = `making snapshot ${at.volume}@${at.snapshot} (it goes on${waits})`;
    if (world.now() > endMs) throw new BasaltError('DEADLINE_EXCEEDED', { operation, timeoutMs });
    await world.sleep(pollMs);
    snapshot = await client.snapshot(at.volume, at.snapshot);
  }
  if (snapshot.state === 'failed')
    throw new BasaltError('SNAPSHOT_FAILED', { name: `${at.volume}@${at.snapshot}`, detail: snapshot.problem });
  return snapshot;
}

export function snapshotTable(snapshots: readonly SnapshotView[]): string {
  if (snapshots.length === 0) return 'no snapshots';
  const head = ['NAME', 'SIZE', 'STATE', 'COPIES', 'CUT AT', 'CLONES'];
  const rows = snapshots.map((entry) => [
    entry.name,
    entry.sizeBytes === null ? '-' : formatBytes(entry.sizeBytes),
    entry.state,
    entry.state === 'ready' ? `${entry.copies}/${entry.copiesWanted}` : '-',
    entry.cutAtMs === null ? '-' : new Date(entry.cutAtMs).toISOString(),
    String(entry.clones.length),
  ]);
  return table([head, ...rows]);
}

export function snapshotText(entry: SnapshotView): string {
  const facts = [
    ['name', `${entry.volume}@${entry.name}`],
    ['id', entry.id],
    ['state', `${entry.state}${entry.problem === null ? '' : ` (${entry.problem})`}`],
    ['size', entry.sizeBytes === null ? '-' : `${formatBytes(entry.sizeBytes)} (${entry.sizeBytes} bytes)`],
    ['cut at', entry.cutAtMs === null ? '-' : new Date(entry.cutAtMs).toISOString()],
    ['I/O held', entry.heldUs === null ? '-' : `${(entry.heldUs / 1000).toFixed(1)} ms`],
    ['copies', entry.state === 'ready' ? `${entry.copies} of ${entry.copiesWanted}` : '-'],
    ['clones', entry.clones.join(', ') || 'none'],
    ...(entry.group === null ? [] : [['group', entry.group]]),
  ];
  const legs = entry.legs.map((leg, index) => [
    `leg ${index}`,
    leg.map((copy) => `${copy.node}: ${copy.state}`).join(', ') || '-',
  ]);
  return table([...facts, ...legs]);
}
