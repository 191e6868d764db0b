// SPDX-License-Identifier: Apache-2.0
//
// `basalt store survey` and `basalt store rebuild`: when the store is lost (docs/operations.md).

import type { Command } from 'commander';
import type { CompiledConfig } from '../../model/config.js';
import { BasaltError } from '../../model/errors.js';
import { readConfig } from '../config-file.js';
import type { CliWorld, StoreRebuildReport, SurveyFile } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes } from '../sizes.js';
import type { Exit } from './daemons.js';

const exitRefused = 8;

interface SurveyOptions extends CommonOptions {
  readonly name?: string;
  readonly disk: string[];
  readonly buffered?: boolean;
  readonly nodeKeyFile?: string;
}

interface RebuildOptions extends CommonOptions {
  readonly store?: string;
  readonly acceptLoss: string[];
  readonly leaveOut: string[];
  readonly write?: boolean;
}

/** Below `store`. */
export function addStoreRebuildCommands(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('survey')
    .description("read what this machine's disks say of their cluster; no daemon uses them, nothing is written")
    .option('--name <node>', "of the configuration file's nodes, this one (default: all)")
    .option('--disk <path>', 'a disk: block device, partition or file; may be repeated', collect, [])
    .option('--buffered', 'through the page cache, where O_DIRECT is refused')
    .option('--node-key-file <path>', 'by which nodes know each other; mode 0600')
    .addHelpText('after', '\nThe answer is for `basalt store rebuild`. Keep it from others: it says who may do what.')
    .action(async (_options, command: Command) => {
      const options: SurveyOptions = command.optsWithGlobals();
      const nodeKey = options.nodeKeyFile === undefined ? {} : { file: options.nodeKeyFile };
      const config = await readConfig(world, options.config, { nodeKey });
      world.out(`${JSON.stringify(await world.launchers.storeSurvey(config, chosenDisks(config, options)))}\n`);
    });
  parent
    .command('rebuild')
    .description('make a new store out of surveys of all disks; shows what it would be, until --write')
    .argument('<survey...>', 'files with the answers of `basalt store survey`, of all nodes with disks')
    .option('--store <endpoints>', 'endpoints of the new, empty store, with commas')
    .option('--accept-loss <volume>', 'begin it with what is left of it; may be repeated', collect, [])
    .option('--leave-out <volume>', 'make the store without it; its bytes stay on the disks', collect, [])
    .option('--write', 'write the store; never into one that has a cluster')
    .action(async (files: string[], _options, command: Command) => {
      const options: RebuildOptions = command.optsWithGlobals();
      const store =
        options.store === undefined ? {} : { endpoints: options.store.split(',').map((each) => each.trim()) };
      const config = await readConfig(world, options.config, { store });
      const report = await world.launchers.storeRebuild(config, {
        surveys: await Promise.all(files.map((path) => readSurvey(world, path))),
        acceptLoss: new Set(options.acceptLoss),
        leaveOut: new Set(options.leaveOut),
        write: options.write === true,
      });
      print(world, options, report, reportText(report));
      if (report.obstacles.length > 0) exit(exitRefused);
    });
}

function chosenDisks(config: CompiledConfig, options: SurveyOptions) {
  const buffered = options.buffered === true;
  if (options.disk.length > 0)
    return options.disk.map((path) => ({ node: options.name ?? 'this machine', path, buffered }));
  const nodes = config.nodes.filter(({ name }) => options.name === undefined || name === options.name);
  const disks = nodes.flatMap((node) =>
    node.disks.map((disk) => ({ node: node.name, path: disk.path, buffered: buffered || disk.buffered })),
  );
  if (disks.length > 0) return disks;
  throw new BasaltError('INVALID_ARGUMENT', {
    field: '--disk',
    problem: 'is missing, and the configuration file describes no disks here',
  });
}

async function readSurvey(world: CliWorld, path: string): Promise<SurveyFile> {
  const wrong = (problem: string, cause?: unknown): BasaltError =>
    new BasaltError('INVALID_ARGUMENT', { field: path, problem }, { cause });
  try {
    const found: unknown = JSON.parse(await world.readFile(path));
    if (typeof found === 'object' && found !== null && Array.isArray((found as Partial<SurveyFile>).disks))
      return found as SurveyFile;
  } catch (cause) {
    throw wrong(cause instanceof Error ? cause.message : String(cause), cause);
  }
  throw wrong('is no answer of `basalt store survey`');
}

function reportText(report: StoreRebuildReport): string {
  const volumes = report.volumes.map(({ name, sizeBytes, is, problems }) => [
    name,
    formatBytes(sizeBytes),
    is,
    problems.join('; '),
  ]);
  const list = (title: string, lines: readonly string[]): string[] =>
    lines.length === 0 ? [] : [title, ...lines.map((line) => `  ${line}`)];
  return [
    `cluster ${report.cluster}, generation ${report.generation}: ${report.objectCount} objects`,
    table([['volume', 'size', 'is', 'why'], ...volumes]),
    ...list(
      'disks that were not seen:',
      report.missingDisks.map(({ id, node, path }) => `${node}:${path} (${id})`),
    ),
    ...list(
      'deleted or moved before the store was lost:',
      report.gone.map(({ key, why }) => `${key}: ${why}`),
    ),
    ...list('what is wrong with what disks say:', report.problems),
    ...list('in the way, until the disks are seen, or --accept-loss or --leave-out says otherwise:', report.obstacles),
    report.written ? 'the store is written: start the daemons' : 'nothing was written',
  ].join('\n');
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}
