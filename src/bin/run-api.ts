// SPDX-License-Identifier: Apache-2.0

import { ensureCluster } from '../agents/cluster-identity.js';
import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { FollowedStore } from '../api/followed-store.js';
import { startApiServer } from '../api/server.js';
import type { DaemonOutput } from '../cli/launch.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { CompiledConfig } from '../model/config.js';
import { WorkerPlanner } from '../placement/planner.js';
import { daemonLog, runDaemon } from './daemon.js';
import { openStore, storeUrls } from './open-store.js';
import { version } from './version.js';

export function runApi(config: CompiledConfig, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, 'basalt-api');
  return runDaemon(log, output, async (signal) => {
    const store = new FollowedStore(await openStore(config, log), systemClock);
    await ensureCluster(store, { clock: systemClock, random: systemRandom, log }, signal);
    const server = await startApiServer({
      store,
      random: systemRandom,
      planner: new WorkerPlanner(),
      keys: new ClusterKeyFile(config.clusterKey.file, systemRandom),
      version: version(),
      storeEndpoints: storeUrls(config),
      listen: config.api.listen,
      log,
    });
    return {
      ready: { ready: 'api', url: server.url },
      text: `API ready at ${server.url}`,
      drain: () => server.close(),
      close: () => store.close(),
    };
  });
}
