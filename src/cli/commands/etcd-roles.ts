// SPDX-License-Identifier: Apache-2.0
//
// `basalt etcd-roles`: what an etcd cluster with users is told, so that each component may write what it has to.

import type { Command } from 'commander';
import { roleCommands } from '../../model/store-roles.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print } from '../output.js';

export function addEtcdRolesCommand(parent: Command, world: CliWorld): void {
  parent
    .command('etcd-roles')
    .description('print the etcdctl commands that make the roles basalt-api and basalt-node')
    .action((_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const commands = roleCommands();
      print(world, options, commands, commands.join('\n'));
    });
}
