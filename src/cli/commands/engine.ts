// SPDX-License-Identifier: Apache-2.0
//
// `basalt engine`: the native engine alone, behind the JSON-RPC that SPDK's tools speak. No cluster, no store.

import type { Command } from 'commander';
import { BasaltError } from '../../model/errors.js';
import { readConfig } from '../config-file.js';
import type { CliWorld, EngineChoice } from '../launch.js';
import type { CommonOptions } from '../output.js';
import { parseBytes, parseCount } from '../sizes.js';
import type { Exit } from './daemons.js';

interface EngineOptions extends CommonOptions {
  readonly rpc: string;
  readonly reactors?: string;
  readonly cores?: string;
  readonly poll?: string;
  readonly memory?: string;
  readonly logLevel?: string;
}

const pollModes = ['adaptive', 'busy', 'interrupt'] as const;

export function addEngineCommand(parent: Command, world: CliWorld, exit: Exit): void {
  parent
    .command('engine')
    .description("run the storage engine alone, behind SPDK's JSON-RPC")
    .requiredOption('--rpc <path>', 'Unix socket to serve, for this user only')
    .option('--reactors <count>', 'threads of the data path (default: 1)')
    .option('--cores <numbers>', 'cores to pin them to, with commas')
    .option('--poll <mode>', 'adaptive, busy or interrupt (default: adaptive)')
    .option('--memory <bytes>', 'what the engine maps at most (default: 1G)')
    .option('--log-level <level>', 'debug, info, warn, error or silent (default: info)')
    .action(async (_options, command: Command) => {
      const options: EngineOptions = command.optsWithGlobals();
      const overrides = options.logLevel === undefined ? {} : { logLevel: options.logLevel };
      const config = await readConfig(world, options.config, overrides);
      exit(await world.launchers.engine(config, engineChoice(options), { json: options.json === true }));
    });
}

function engineChoice(options: EngineOptions): EngineChoice {
  // What connect(2) takes: sun_path has 108 bytes, the last of them zero.
  if (options.rpc === '' || Buffer.byteLength(options.rpc) > 107)
    throw invalid('--rpc', 'must be a path of 1 to 107 bytes');
  const reactors = options.reactors === undefined ? 1 : parseCount(options.reactors, '--reactors');
  if (reactors < 1 || reactors > 64) throw invalid('--reactors', 'must be from 1 to 64');
  const poll = pollModes.find((mode) => mode === (options.poll ?? 'adaptive'));
  if (poll === undefined) throw invalid('--poll', `must be one of ${pollModes.join(', ')}`);
  const cores = options.cores === undefined ? [] : options.cores.split(',').map((core) => parseCount(core, '--cores'));
  if (cores.length > reactors) throw invalid('--cores', `names ${cores.length} cores for ${reactors} reactors`);
  const memoryBytes = options.memory === undefined ? null : parseBytes(options.memory, '--memory');
  return { rpcPath: options.rpc, reactors, cores, poll, memoryBytes };
}

function invalid(field: string, problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem });
}
