// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { ApiClient } from '../../client/api-client.js';
import { BasaltError } from '../../model/errors.js';
import type { JobView } from '../../model/jobs.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, countsText, print, table } from '../output.js';
import { parseCount } from '../sizes.js';

interface WaitOptions extends CommonOptions {
  readonly wait: string;
}

export function addJobCommands(parent: Command, world: CliWorld): void {
  const job = parent.command('job').description('list, show, await and cancel operations that take a while');
  job
    .command('list')
    .description('list the jobs, the oldest first')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const jobs = await (await apiClient(world, options)).jobs();
      print(world, options, jobs, jobTable(jobs));
    });
  job
    .command('show <id>')
    .description('show one job: how far it is, what it waits for, what happened')
    .action(async (id: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const found = await (await apiClient(world, options)).job(id);
      print(world, options, found, jobText(found));
    });
  job
    .command('wait <id>')
    .description('wait until a job has ended; fails when the job did')
    .option('--wait <seconds>', 'how long at most', '3600')
    .action(async (id: string, _options, command: Command) => {
      const options: WaitOptions = command.optsWithGlobals();
      const client = await apiClient(world, options);
      const ended = await waitForJob(world, client, { job: await client.job(id), wait: options.wait });
      print(world, options, ended, jobText(ended));
    });
  job
    .command('cancel <id>')
    .description('ask for the end of a job; what it has done stays done')
    .action(async (id: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const found = await (await apiClient(world, options)).cancelJob(id);
      print(world, options, found, jobText(found));
    });
}

const pollMs = 100;

/** `wait` 0: as it is now. @throws JOB_FAILED, CANCELLED, DEADLINE_EXCEEDED */
export async function waitForJob(
  world: CliWorld,
  client: ApiClient,
  at: { job: JobView; wait: string },
): Promise<JobView> {
  const timeoutMs = parseCount(at.wait, '--wait') * 1000;
  const endMs = world.now() + timeoutMs;
  let { job } = at;
  while (timeoutMs > 0 && (job.state === 'queued' || job.state === 'running')) {
    if (world.now() > endMs) {
      const waits = job.waitsFor === null ? '' : `, and waits: ${job.waitsFor}`;
      throw new BasaltError('DEADLINE_EXCEEDED', { operation: `job ${job.id} (it goes on${waits})`, timeoutMs });
    }
    await world.sleep(pollMs);
    job = await client.job(job.id);
  }
  if (job.state === 'failed')
    throw new BasaltError('JOB_FAILED', { id: job.id, kind: job.kind, detail: job.error?.message ?? '' });
  if (job.state === 'cancelled') throw new BasaltError('CANCELLED', { operation: `job ${job.id}` });
  return job;
}

function jobTable(jobs: readonly JobView[]): string {
  if (jobs.length === 0) return 'no jobs';
  const head = ['ID', 'KIND', 'OF', 'STATE', 'PROGRESS'];
  return table([head, ...jobs.map((job) => [job.id, job.kind, subject(job), job.state, progress(job)])]);
}

export function jobText(job: JobView): string {
  const facts = [
    ['id', job.id],
    ['kind', job.kind],
    ['of', subject(job)],
    ['state', job.state + (job.cancelling && job.endedAtMs === null ? ', to be cancelled' : '')],
    ['progress', progress(job)],
    ...(job.waitsFor === null ? [] : [['waits', job.waitsFor]]),
    ...(job.error === null ? [] : [['error', `${job.error.message} [${job.error.code}]`]]),
    ['run by', job.runner?.node ?? '-'],
    ...(job.result === undefined ? [] : [['found', countsText(job.result)]]),
  ];
  const events = job.events.map((event) => [new Date(event.atMs).toISOString(), event.text]);
  return [table(facts), ...(events.length === 0 ? [] : [table(events)])].join('\n');
}

/** Of a job that compares: something was not as it should be. */
export function foundDamage({ kind, result = {} }: JobView): boolean {
  const { differentBlocks = 0, unreadableBlocks = 0 } = result;
  return kind === 'volume.scrub' && differentBlocks + unreadableBlocks > 0;
}

function subject(job: JobView): string {
  const { volume, from, to, disk, node, snapshot } = job.arguments;
  if (from !== undefined) return `${volume} from ${from} to ${to}`;
  if (job.kind === 'volume.scrub') return volume ?? '-';
  return volume === undefined ? (disk ?? node ?? '-') : `${volume} to ${to ?? snapshot}`;
}

function progress({ progress: { done, total, unit } }: JobView): string {
  return `${done} of ${total} ${unit}`;
}
