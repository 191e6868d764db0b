// SPDX-License-Identifier: Apache-2.0
//
// The engine of a node, and where its disks come from: the engine itself, or an SPDK that runs beside it.

import type { AgentContext } from '../agents/context.js';
import { type AttachedEngine, attachEngine } from '../engine/attached/attached-engine.js';
import { type Engine, isEngineError } from '../engine/engine.js';
import { SpdkDisks } from '../engine/spdk/spdk-disks.js';
import { shortVersion, spdkProblem } from '../engine/spdk/spdk-version.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { CompiledNode, SpdkEngine } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { createEngine } from './create-engine.js';
import type { PinoLogger } from './daemon.js';

export interface NodeEngine {
  readonly engine: Engine;
  readonly disks?: NonNullable<AgentContext['disks']>;
  /** Says that the disks are lost. */
  readonly failed?: Promise<string>;
  close(): Promise<void>;
}

export async function openNodeEngine(node: CompiledNode, log: PinoLogger): Promise<NodeEngine> {
  if (typeof node.engine === 'string') {
    const engine = await createEngine(node.engine);
    return { engine, close: () => engine.close() };
  }
  const spdk = await attachSpdk(node.engine);
  const engine = await createEngine('native').catch(async (error: unknown) => {
    await spdk.close();
    throw error;
  });
  const { version, missing } = spdk.capabilities;
  log.info(
    { spdk: version, rpc: node.engine.rpc, missing },
    "SPDK has this node's drives; replicas are kept by Basalt",
  );
  const { port } = node.engine;
  const disks = new SpdkDisks({ spdk, engine, clock: systemClock, random: systemRandom, node: node.name, port });
  return {
    engine,
    disks: { source: disks, description: `drives by ${shortVersion(version)}, which has no member gate` },
    failed: new Promise((resolve) => disks.watch(resolve)),
    close: async () => {
      disks.stop();
      await engine.close();
      await spdk.close();
    },
  };
}

/** @throws INVALID_ARGUMENT in one line, before anything is started */
async function attachSpdk({ rpc }: SpdkEngine): Promise<AttachedEngine> {
  const field = 'engine.rpc';
  const spdk = await attachEngine({ rpcPath: rpc }).catch((error: unknown) => {
    if (!isEngineError(error)) throw error;
    const problem = `no SPDK answers there (${error.message}); start spdk_tgt first`;
    throw new BasaltError('INVALID_ARGUMENT', { field, problem }, { cause: error });
  });
  const problem = spdkProblem(spdk.capabilities);
  if (problem === null) return spdk;
  await spdk.close();
  throw new BasaltError('INVALID_ARGUMENT', { field, problem: `${rpc} ${problem}` });
}
