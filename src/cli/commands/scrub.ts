// SPDX-License-Identifier: Apache-2.0
//
// `basalt scrub`: reads and verifies what an engine that runs alone (`basalt engine`, engined) has, while it is used.

import type { Command } from 'commander';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, countsText, print } from '../output.js';
import { parseBytes } from '../sizes.js';
import { type Exit, exitDamage } from './daemons.js';

const exitEnded = 6;

interface ScrubOptions extends CommonOptions {
  readonly rpc: string;
  readonly rate?: string;
  readonly from?: string;
  readonly repair?: boolean;
}

export function addScrubCommand(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('scrub')
    .description('read and verify an lvol, compare the members of a leg, or the parity of a raid5 or raid6')
    .argument('<name>', 'as <lvstore>/<lvol>, or the name of a leg or raid')
    .requiredOption('--rpc <path>', "the engine's Unix socket")
    .option('--rate <bytes>', 'bytes per second at most, such as 50M (default: as fast as it goes)')
    .option('--from <bytes>', 'of an lvol: where to begin, as an ended scrub says')
    .option('--repair', 'of a leg or raid: rewrite what differs or cannot be read')
    .addHelpText('after', '\nCtrl-C ends it. Exit codes: 0 nothing is wrong, 8 damage was found, 6 it was ended before')
    .action(async (name: string, _options, command: Command) => {
      const options: ScrubOptions = command.optsWithGlobals();
      const choice = {
        rpcPath: options.rpc,
        name,
        bytesPerS: options.rate === undefined ? 0 : parseBytes(options.rate, '--rate'),
        fromBytes: options.from === undefined ? 0 : parseBytes(options.from, '--from'),
        repair: options.repair === true,
      };
      const json = options.json === true;
      const report = await world.launchers.scrub(choice, (percent, counts) => {
        world.err(json ? `${JSON.stringify({ percent, ...counts })}\n` : `${percent} %: ${countsText(counts)}\n`);
      });
      const end = report.finished ? 'finished' : `ended at ${report.percent} %`;
      const next = report.nextBytes === null ? '' : `; go on with --from ${report.nextBytes}`;
      const wrong = report.sound ? 'nothing is wrong' : 'damage was found';
      print(world, options, report, `${report.kind} ${name}: ${end}, ${wrong}: ${countsText(report.counts)}${next}`);
      if (!report.sound) exit(exitDamage);
      else if (!report.finished) exit(exitEnded);
    });
}
