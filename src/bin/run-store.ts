// SPDX-License-Identifier: Apache-2.0

import type { DaemonOutput } from '../cli/launch.js';
import { type CompiledConfig, splitHostPort } from '../model/config.js';
import { startEmbeddedStore } from '../store/embedded/server.js';
import { daemonLog, runDaemon } from './daemon.js';

export function runStore(config: CompiledConfig, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, 'basalt-store');
  return runDaemon(log, output, async () => {
    const { host, port } = splitHostPort(config.store.listen, 'store.listen');
    const store = await startEmbeddedStore({ directory: config.store.directory, host, port, logger: log });
    return {
      ready: { ready: 'store', endpoint: store.endpoint, directory: config.store.directory },
      text: `store ready at ${store.endpoint}, data in ${config.store.directory}`,
      drain: async () => {},
      close: () => store.close(),
    };
  });
}
