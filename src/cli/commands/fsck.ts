// SPDX-License-Identifier: Apache-2.0
//
// `basalt fsck`: looks at a disk that no daemon uses, and writes nothing.

import type { Command } from 'commander';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print } from '../output.js';
import type { Exit } from './daemons.js';

/** A store with errors is refused by the daemon, too. */
const exitRefused = 8;

interface FsckOptions extends CommonOptions {
  readonly dump?: boolean;
  readonly buffered?: boolean;
}

export function addFsckCommand(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('fsck')
    .description('check the lvstore on a disk that is not in use; reads only')
    .argument('<path>', 'disk, partition or file')
    .option('--dump', 'also list superblocks, areas and lvols')
    .option('--buffered', 'through the page cache, where O_DIRECT is refused')
    .action(async (path: string, _options, command: Command) => {
      const options: FsckOptions = command.optsWithGlobals();
      const report = await world.launchers.fsck(path, {
        dump: options.dump === true,
        buffered: options.buffered === true,
      });
      print(world, options, report, report.text.trimEnd());
      if (!report.sound) exit(exitRefused);
    });
}
