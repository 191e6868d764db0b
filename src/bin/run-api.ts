// SPDX-License-Identifier: Apache-2.0

import { readFile } from 'node:fs/promises';
import { ensureCluster } from '../agents/cluster-identity.js';
import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { FollowedStore } from '../api/followed-store.js';
import { startApiServer, type TlsListener } from '../api/server.js';
import type { DaemonOutput } from '../cli/launch.js';
import { systemClock } from '../env/clock.js';
import { PrivateFileError, readPrivateFile } from '../env/private-file.js';
import { systemRandom } from '../env/random.js';
import type { CompiledConfig } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { WorkerPlanner } from '../placement/planner.js';
import { daemonLog, runDaemon } from './daemon.js';
import { openStore, storeUrls } from './open-store.js';
import { version } from './version.js';

export function runApi(config: CompiledConfig, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, 'basalt-api');
  return runDaemon(log, output, async (signal) => {
    const tls = await tlsListener(config);
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
      tls,
      log,
    });
    return {
      ready: { ready: 'api', url: server.url, tlsUrl: server.tlsUrl },
      text: `API ready at ${server.url}${server.tlsUrl === null ? '' : ` and, by TLS with a token, at ${server.tlsUrl}`}`,
      drain: () => server.close(),
      close: () => store.close(),
    };
  });
}

async function tlsListener(config: CompiledConfig): Promise<TlsListener | null> {
  const { tls } = config.api;
  if (tls === null) return null;
  const cert = await readFile(tls.cert).catch((cause: NodeJS.ErrnoException) => {
    throw unreadable('api.cert', `${tls.cert} cannot be opened (${cause.code ?? String(cause)})`, cause);
  });
  const key = await readPrivateFile(tls.key).catch((cause: unknown) => {
    const problem = cause instanceof PrivateFileError ? cause.problem : String(cause);
    throw unreadable('api.key', `${tls.key} ${problem}`, cause);
  });
  return { listen: tls.listen, cert, key: Buffer.from(key) };
}

function unreadable(field: string, problem: string, cause: unknown): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem }, { cause });
}
