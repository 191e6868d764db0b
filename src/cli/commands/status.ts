// SPDX-License-Identifier: Apache-2.0

import type { Command } from 'commander';
import type { StatusView } from '../../model/api.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { formatBytes } from '../sizes.js';
import { volumeTable } from './volume.js';

export function addStatusCommand(parent: Command, world: CliWorld): void {
  parent
    .command('status')
    .description('show nodes, disks and volumes')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const status = await (await apiClient(world, options)).status();
      print(world, options, status, statusText(status));
    });
}

function statusText(status: StatusView): string {
  const nodes = status.nodes.map((node) => [node.name, node.state, node.roles.join('+'), node.engine ?? '-']);
  const disks = status.disks.map((disk) => [
    disk.node,
    disk.path,
    `${disk.state}${disk.buffered ? ', buffered' : ''}`,
    `${formatBytes(disk.freeBytes)} free of ${formatBytes(disk.totalBytes)}`,
  ]);
  return [
    `cluster ${status.cluster.id}: ${status.health}`,
    table([['NODE', 'STATE', 'ROLES', 'ENGINE'], ...nodes]),
    disks.length === 0 ? 'no disks' : table([['DISK OF', 'PATH', 'STATE', 'SPACE'], ...disks]),
    volumeTable(status.volumes),
  ].join('\n\n');
}
