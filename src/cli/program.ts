// SPDX-License-Identifier: Apache-2.0
//
// The command line: parses, runs one command, gives the exit code. Everything it does to the process goes through CliWorld.

import { Command, CommanderError } from 'commander';
import { BasaltError } from '../model/errors.js';
import { addAttachCommands } from './commands/attach.js';
import { addCordonCommands } from './commands/cordon.js';
import { addDaemonCommands } from './commands/daemons.js';
import { addEngineCommand } from './commands/engine.js';
import { addEtcdRolesCommand } from './commands/etcd-roles.js';
import { addFsckCommand } from './commands/fsck.js';
import { addHostCommands } from './commands/host.js';
import { addJobCommands } from './commands/job.js';
import { addKeyCommands } from './commands/key.js';
import { addPoolCommands } from './commands/pool.js';
import { addScrubCommand } from './commands/scrub.js';
import { addSnapshotCommands } from './commands/snapshot.js';
import { addStatusCommand } from './commands/status.js';
import { addTokenCommands } from './commands/token.js';
import { addVolumeCommands } from './commands/volume.js';
import type { CliWorld } from './launch.js';
import { printError } from './output.js';

const exitHelp = `
Exit codes: 0 done, 1 internal error, 2 bad input, 3 not found, 4 exists or busy, 5 conflict,
            6 unreachable or late, 7 outcome unknown, 8 refused`;

export async function runCli(world: CliWorld, args: readonly string[]): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(world, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    const json = args.includes('--json');
    if (error instanceof CommanderError) return usageExit(world, json, error);
    return printError(world, json, error);
  }
}

function usageExit(world: CliWorld, json: boolean, error: CommanderError): number {
  if (error.exitCode === 0) return 0;
  // Commander's word for "help was shown because the command is missing".
  const missing = error.code === 'commander.help' || error.code === 'commander.helpDisplayed';
  const problem = missing ? 'names no command; --help lists them' : error.message.replace(/^error: /, '');
  return printError(world, json, new BasaltError('INVALID_ARGUMENT', { field: 'command line', problem }));
}

function buildProgram(world: CliWorld, exit: (code: number) => void): Command {
  const program = new Command('basalt')
    .description('Basalt: replicated block volumes, served over NVMe-oF and NBD')
    .version(world.version)
    .option('--config <file>', 'configuration file (JSON)')
    .option('--api <address:port>', 'API server to ask (default: BASALT_API, the file, 127.0.0.1:7420)')
    .option('--token-file <path>', 'API token to show (mode 0600; default: BASALT_TOKEN, BASALT_TOKEN_FILE, the file)')
    .option('--api-ca <path>', 'authority (PEM) of an API server at https:// (default: BASALT_API_CA)')
    .option('--json', 'print one JSON value')
    .addHelpText('after', exitHelp)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ writeOut: world.out, writeErr: () => {}, outputError: () => {} });
  const node = addDaemonCommands(program, world, exit);
  addVolumeCommands(program, world, exit);
  addSnapshotCommands(program, world);
  addPoolCommands(program, world);
  addAttachCommands(program, world);
  addHostCommands(program, world);
  addCordonCommands(program, node, world);
  addJobCommands(program, world);
  addKeyCommands(program, world);
  addTokenCommands(program, world);
  addStatusCommand(program, world);
  addEtcdRolesCommand(program, world);
  addFsckCommand(program, world, exit);
  addScrubCommand(program, world, exit);
  addEngineCommand(program, world, exit);
  for (const command of everyCommand(program)) {
    command.exitOverride().configureOutput({ writeOut: world.out, writeErr: () => {}, outputError: () => {} });
    if (command !== program) addCommonOptions(command);
  }
  return program;
}

/** The common options may stand after the command as well as before it. */
function addCommonOptions(command: Command): void {
  command.option('--config <file>', 'configuration file (JSON)');
  if (!command.options.some((option) => option.long === '--api'))
    command.option('--api <address:port>', 'API server to ask');
  command.option('--token-file <path>', 'API token to show; mode 0600');
  command.option('--api-ca <path>', 'authority (PEM) of an API server at https://');
  command.option('--json', 'print one JSON value');
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap((child) => everyCommand(child))];
}
