// SPDX-License-Identifier: Apache-2.0
//
// Bugs that can be planted into a simulated cluster, to see that its checks find them: those of the control plane
// (src/agents/planted-bugs.ts) and those of its engines.

import type { PlantedBugs as ControlBugs } from '../agents/planted-bugs.js';
import type { AddonPlantedBugs } from '../engine/native/addon.js';

export interface PlantedBugs extends ControlBugs {
  /** Replicas let every controller in, whatever its epoch. */
  readonly skipFence?: boolean;
  /** A part lets every controller in that ever had a front, whatever its epoch. */
  readonly skipExportFence?: boolean;
  /** A restarted replica does not remember what it had accepted. */
  readonly forgetEpoch?: boolean;
  /** Reads are answered however old the members' last word is. */
  readonly ignoreReadLease?: boolean;
  /** What a member of a leg with parity misses while it is away is not marked. */
  readonly forgetAbsent?: boolean;
  /** The members of a volume cut their snapshots one after another, while requests go on. */
  readonly cutLegByLeg?: boolean;
}

export const noBugs: PlantedBugs = Object.freeze({});

export function enginePlants(bugs: PlantedBugs): AddonPlantedBugs {
  return {
    noGate: bugs.skipFence === true,
    noExportGate: bugs.skipExportFence === true,
    forgetEpoch: bugs.forgetEpoch === true,
    ignoreLease: bugs.ignoreReadLease === true,
    cutUnheld: bugs.cutLegByLeg === true,
    cutJoining: bugs.resyncHeadOnly === true,
    awayUnmarked: bugs.forgetAbsent === true,
  };
}
