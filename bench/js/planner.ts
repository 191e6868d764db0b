// SPDX-License-Identifier: Apache-2.0
// The planners on sizes that a busy node meets: they run at every change, on the event loop.

import { chooseSeed } from '../../src/placement/choose-seed.js';
import { type DesiredReplica, lvolPath, planDiskNode } from '../../src/reconcile/disk-node.js';
import type { JsCases } from './main.js';

const gib = 1024 ** 3;

export async function plannerCases(): Promise<JsCases> {
  const diskCount = 120;
  const capacityBytes = Array.from({ length: diskCount }, (_, i) => (1000 + i) * gib);
  const pgs = Array.from({ length: 4096 }, (_, pg) => [pg % diskCount, (pg * 7 + 1) % diskCount]);
  const replicas = Array.from(
    { length: 1000 },
    (_, i): DesiredReplica => ({
      replica: `replica${i}`,
      volumeId: `volume${i >> 2}`,
      leg: i & 3,
      lvstore: 'store',
      disk: 'disk0',
      sizeBytes: 16 * gib,
      epoch: 1,
      hosts: ['nqn.2024-01.io.basalt:controller-a', 'nqn.2024-01.io.basalt:controller-b'],
      deleteEpoch: null,
      reported: 'ready',
      reportedBytes: 16 * gib,
      reportedProblem: null,
    }),
  );
  const settled = {
    lvols: new Map(replicas.map((replica) => [lvolPath(replica), replica.sizeBytes])),
    subsystems: replicas.map(({ replica, hosts }) => ({ replica, hosts, hasNamespace: true, hasListener: true })),
  };
  const empty = { lvols: new Map<string, number>(), subsystems: [] };
  const seedRequest = {
    pgs,
    capacityBytes,
    availableBytes: capacityBytes,
    legCount: 16,
    legSizeBytes: 16 * gib,
    overheadBytes: 0,
    conflict: 'spread' as const,
    firstSeed: 1,
    awayText: 'none',
  };
  return {
    cases: [
      { name: 'choose-seed/16-legs/120-disks', run: () => chooseSeed(seedRequest) },
      { name: 'plan-disk-node/1000-replicas/settled', run: () => planDiskNode(replicas, settled) },
      { name: 'plan-disk-node/1000-replicas/missing', run: () => planDiskNode(replicas, empty) },
    ],
    end: () => Promise.resolve(),
  };
}
