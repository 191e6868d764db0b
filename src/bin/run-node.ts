// SPDX-License-Identifier: Apache-2.0

import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { NodeAgent } from '../agents/node-agent.js';
import { type Identity, NodeIdentity, noIdentity } from '../agents/node-identity.js';
import { NodeKeyFile } from '../agents/node-key-file.js';
import type { DaemonOutput } from '../cli/launch.js';
import { bootTag } from '../env/boot.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { type CompiledConfig, type CompiledNode, isLoopback } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { daemonLog, type PinoLogger, runDaemon } from './daemon.js';
import { openNodeEngine } from './node-engine.js';
import { openStore } from './open-store.js';

export function runNode(config: CompiledConfig, node: CompiledNode, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, `basalt-node ${node.name}`);
  return runDaemon(log, output, async (signal) => {
    const identity = await identityOf(config, node, log);
    const { engine, ...beside } = await openNodeEngine(node, log);
    const store = await openStore(config, log).catch(async (error: unknown) => {
      // What stays open keeps the process from ending.
      await beside.close();
      throw error;
    });
    const keys = new ClusterKeyFile(config.clusterKey.file, systemRandom);
    const around = { clock: systemClock, random: systemRandom, log, keys, identity, boot: bootOf(node) };
    const context = { engine, ...around, ...(beside.disks === undefined ? {} : { disks: beside.disks }) };
    const { graceSeconds, ...limits } = config.placement;
    const agent = new NodeAgent({ context, store, node, placement: { ...limits, graceMs: graceSeconds * 1000 } });
    try {
      await agent.start(signal);
    } catch (error) {
      await agent.stop().catch(() => {});
      await beside.close().catch(() => {});
      await store.close();
      throw error;
    }
    const { internal, hosts } = { internal: agent.live?.internal ?? null, hosts: agent.live?.hosts ?? null };
    const shown = [internal, hosts].map((at) => (at === null ? '-' : `${at.traddr}:${at.trsvcid}`));
    return {
      ready: { ready: 'node', name: node.name, internal, hosts },
      text: `node ${node.name} ready; internal ${shown[0]}, hosts ${shown[1]}`,
      ...(beside.failed === undefined ? {} : { failed: beside.failed }),
      drain: () => agent.drain(),
      close: async () => {
        await agent.stop();
        await beside.close();
        await store.close();
      },
    };
  });
}

/** A drive that SPDK has is reset when SPDK ends: nobody knows then what its cache lost, as after a boot. */
function bootOf(node: CompiledNode): string | null {
  return typeof node.engine === 'string' ? bootTag() : null;
}

/** @throws NODE_KEY_FILE */
async function identityOf(config: CompiledConfig, node: CompiledNode, log: PinoLogger): Promise<Identity> {
  const file = new NodeKeyFile(config.nodeKey.file, systemRandom);
  const ring = config.nodeKey.required ? await file.ring() : await file.ringIfAny();
  if (ring !== null) return new NodeIdentity(ring);
  if (node.secure || !isLoopback(node.address)) {
    const how = node.secure ? ' by TLS' : '';
    const problem = `is not there, and node ${node.name} listens on ${node.address}${how}: make one with "basalt key create --node"`;
    throw new BasaltError('NODE_KEY_FILE', { path: file.path, problem });
  }
  log.warn({ file: file.path }, 'no node key: replicas admit controllers by their names alone');
  return noIdentity;
}
