// SPDX-License-Identifier: Apache-2.0
//
// Bugs that can be planted into a simulated cluster, to see that its checks find them. None is on unless a test asks.

import type { AgentContext } from '../agents/context.js';
import type { AddonPlantedBugs } from '../engine/native/addon.js';

export interface PlantedBugs {
  /** Replicas let every controller in, whatever its epoch. */
  readonly skipFence: boolean;
}

export const noBugs: PlantedBugs = Object.freeze({ skipFence: false });

export function enginePlants(bugs: PlantedBugs): Partial<AddonPlantedBugs> {
  return { noGate: bugs.skipFence };
}

export function withBugs(context: AgentContext, _bugs: PlantedBugs): AgentContext {
  return context;
}
