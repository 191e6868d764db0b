// SPDX-License-Identifier: Apache-2.0

import type { DaemonOutput, EngineChoice } from '../cli/launch.js';
import { createNativeEngine } from '../engine/native/native-engine.js';
import type { CompiledConfig } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { daemonLog, runDaemon } from './daemon.js';

export function runEngine(config: CompiledConfig, choice: EngineChoice, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, 'basalt-engine');
  return runDaemon(log, output, async () => {
    const { memoryBytes, ...options } = choice;
    const engine = (() => {
      try {
        return createNativeEngine({ ...options, ...(memoryBytes === null ? {} : { memoryBytes }) });
      } catch (error) {
        // The path is taken, the memory is not there, a core does not exist: what the engine says.
        const problem = error instanceof Error ? error.message : String(error);
        throw new BasaltError('INVALID_ARGUMENT', { field: 'engine', problem });
      }
    })();
    engine.on('event', (event) => log.info(event.params, event.method));
    return {
      ready: { ready: 'engine', rpc: choice.rpcPath },
      text: `engine ready; JSON-RPC on ${choice.rpcPath}`,
      drain: async () => {},
      close: () => engine.close(),
    };
  });
}
