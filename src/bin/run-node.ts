// SPDX-License-Identifier: Apache-2.0

import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { NodeAgent } from '../agents/node-agent.js';
import type { DaemonOutput } from '../cli/launch.js';
import { bootTag } from '../env/boot.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { CompiledConfig, CompiledNode } from '../model/config.js';
import { createEngine } from './create-engine.js';
import { daemonLog, runDaemon } from './daemon.js';
import { openStore } from './open-store.js';

export function runNode(config: CompiledConfig, node: CompiledNode, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, `basalt-node ${node.name}`);
  return runDaemon(log, output, async (signal) => {
    const engine = await createEngine(node.engine);
    const store = openStore(config, log);
    const keys = new ClusterKeyFile(config.clusterKey.file, systemRandom);
    const context = { engine, clock: systemClock, random: systemRandom, log, keys, boot: bootTag() };
    const { graceSeconds, ...limits } = config.placement;
    const agent = new NodeAgent({ context, store, node, placement: { ...limits, graceMs: graceSeconds * 1000 } });
    try {
      await agent.start(signal);
    } catch (error) {
      await agent.stop().catch(() => {});
      await engine.close().catch(() => {});
      await store.close();
      throw error;
    }
    const { internal, hosts } = { internal: agent.live?.internal ?? null, hosts: agent.live?.hosts ?? null };
    const shown = [internal, hosts].map((at) => (at === null ? '-' : `${at.traddr}:${at.trsvcid}`));
    return {
      ready: { ready: 'node', name: node.name, internal, hosts },
      text: `node ${node.name} ready; internal ${shown[0]}, hosts ${shown[1]}`,
      drain: () => agent.drain(),
      close: async () => {
        await agent.stop();
        await engine.close();
        await store.close();
      },
    };
  });
}
