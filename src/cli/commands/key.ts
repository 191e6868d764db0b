// SPDX-License-Identifier: Apache-2.0
//
// `basalt key`: the cluster keys that encrypted volumes need. Only ids are ever shown.

import type { Command } from 'commander';
import type { ClusterKeyView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { apiClient } from '../api-option.js';
import { readConfig } from '../config-file.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';

interface FileOptions extends CommonOptions {
  readonly file?: string;
  readonly node?: boolean;
}

export function addKeyCommands(parent: Command, world: CliWorld): void {
  const key = parent.command('key').description("the cluster keys of encrypted volumes and of hosts' keys");
  key
    .command('create')
    .description('make a key file with one key on this machine')
    .option('--node', 'a node key, by which nodes know each other, instead of a cluster key')
    .option('--file <path>', 'the key file (default: what the configuration file names)')
    .action(async (_options, command: Command) => {
      const { file, kind, options } = await fileOf(world, command);
      const made = await world.launchers.drawKey(file, 'create', kind);
      if (made === null) throw new BasaltError('ALREADY_EXISTS', { kind: 'key file', name: file });
      print(world, options, { file, id: made.id }, `made ${file} with ${kind} key ${made.id}`);
    });
  key
    .command('add')
    .description("draw a new key into this machine's key file; the next rotation changes to it")
    .option('--node', 'a node key, which nodes that start from then on use')
    .option('--file <path>', 'the key file (default: what the configuration file names)')
    .action(async (_options, command: Command) => {
      const { file, kind, options } = await fileOf(world, command);
      const made = await world.launchers.drawKey(file, 'add', kind);
      print(world, options, { file, id: made?.id ?? null }, `added ${kind} key ${made?.id} to ${file}`);
    });
  key
    .command('list')
    .description('list the keys by id, with how many volumes need each')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const view = await (await apiClient(world, options)).clusterKeys();
      print(world, options, view, keyTable(view));
    });
  key
    .command('rotate')
    .description('change to a new key: wraps the key of every volume anew, touches no data; may be repeated')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const done = await (await apiClient(world, options)).rotateClusterKey();
      print(world, options, done, `cluster key is ${done.keyId}; volumes wrapped anew: ${done.rewrapped}`);
    });
  key
    .command('prune')
    .description("take keys that nothing needs any more out of the API server's key file")
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const { removed } = await (await apiClient(world, options)).pruneClusterKeys();
      print(world, options, { removed }, `removed: ${removed.join(', ') || 'none'}`);
    });
}

async function fileOf(
  world: CliWorld,
  command: Command,
): Promise<{ file: string; kind: 'cluster' | 'node'; options: FileOptions }> {
  const options: FileOptions = command.optsWithGlobals();
  const config = await readConfig(world, options.config);
  const kind = options.node === true ? 'node' : 'cluster';
  return { file: options.file ?? config[`${kind}Key`].file, kind, options };
}

function keyTable(view: ClusterKeyView): string {
  if (view.keys.length === 0) return 'no cluster keys';
  const rows = view.keys.map((key) => [
    key.id,
    key.id === view.current ? 'current' : '-',
    key.held ? 'yes' : 'no',
    String(key.volumes),
    String(key.hosts),
  ]);
  return table([['KEY', 'USE', 'HELD', 'VOLUMES', 'HOSTS'], ...rows]);
}
