// SPDX-License-Identifier: Apache-2.0
//
// Of some runs, ways between nodes that lose packets and take their time, from when the cluster has started until all
// faults end. Nothing is lost for good: what follows on a connection waits until it has been sent again, so keep-alives,
// lease renewals and takeovers come late, each way for itself. The suite `cluster` has the same (native/sim/link_plan.h).

import { SeededRandom } from '../env/seeded-random.js';
import type { ClusterSim } from './cluster-sim.js';

export interface BadLinks {
  /** Of the ways, each direction for itself. */
  readonly share: number;
  /** Each way is as bad as this, or less. */
  readonly lossChance: number;
  readonly extraDelayMs: number;
  /** After a loss: Linux waits no less than 200 ms, but for one that the receiver sees by what came behind it. */
  readonly retransmitMs: number;
}

// Drawn apart, so that the plans in test/sim remain what they were when they were found.
const stream = 0x1055n;
const runShare = 0.25;

/** `leaseMs`: of reads; most ways are fast enough that one can be held. */
export function drawBadLinks(seed: bigint, leaseMs: number): BadLinks | null {
  const random = new SeededRandom(seed ^ stream);
  if (!random.chance(runShare)) return null;
  const share = random.pick([0.2, 0.5, 1]);
  const retransmitMs = random.pick([10, 200]);
  for (;;) {
    const lossChance = random.pick([0, 0.002, 0.02, 0.1]);
    const extraDelayMs = random.pick([0, 1, leaseMs / 8, leaseMs / 2]);
    if (lossChance > 0 || extraDelayMs > 0) return { share, lossChance, extraDelayMs, retransmitMs };
  }
}

export function beginBadLinks(cluster: ClusterSim, seed: bigint, links: BadLinks): void {
  const random = new SeededRandom(~seed ^ stream);
  const hosts = [...cluster.hosts, ...(cluster.twin === null ? [] : [cluster.twin.host])];
  const names = [...cluster.processes.keys(), ...hosts.map(({ name }) => name)];
  for (const from of names) {
    for (const to of names) {
      if (from === to || !random.chance(links.share)) continue;
      const degree = random.between(1, 4) / 4;
      cluster.world.setLink(from, to, {
        lossChance: links.lossChance * degree,
        extraDelayNs: Math.round(links.extraDelayMs * degree * 1e6),
        retransmitNs: links.retransmitMs * 1e6,
      });
    }
  }
}

export function badLinksText({ share, lossChance, extraDelayMs }: BadLinks): string {
  return `${share * 100} % of the ways lose up to ${lossChance * 100} % and take up to ${extraDelayMs} ms more`;
}
