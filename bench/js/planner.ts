// SPDX-License-Identifier: Apache-2.0
// The planners on sizes that a busy node meets: they run at every change, on the event loop.

import { type PlacementDisk, place } from '../../src/placement/place.js';
import { type DesiredReplica, lvolPath, planDiskNode } from '../../src/reconcile/disk-node.js';
import type { JsCases } from './main.js';

const gib = 1024 ** 3;

export async function plannerCases(): Promise<JsCases> {
  const disks = Array.from(
    { length: 120 },
    (_, i): PlacementDisk => ({ id: `disk${i}`, node: `node${i % 12}`, availableBytes: (1000 + i) * gib }),
  );
  const replicas = Array.from(
    { length: 1000 },
    (_, i): DesiredReplica => ({
      replica: `replica${i}`,
      volumeId: `volume${i >> 2}`,
      leg: i & 3,
      lvstore: 'store',
      disk: 'disk0',
      sizeBytes: 16 * gib,
      hosts: ['nqn.2024-01.io.basalt:controller-a', 'nqn.2024-01.io.basalt:controller-b'],
      deleteEpoch: null,
      reported: 'ready',
    }),
  );
  const settled = {
    lvols: new Set(replicas.map(lvolPath)),
    subsystems: replicas.map(({ replica, hosts }) => ({ replica, hosts, hasNamespace: true, hasListener: true })),
  };
  const empty = { lvols: new Set<string>(), subsystems: [] };
  const request = { legs: 16, copies: 2, legSizeBytes: 16 * gib };
  return {
    cases: [
      { name: 'placement/16-legs/120-disks', run: () => place(disks, request) },
      { name: 'plan-disk-node/1000-replicas/settled', run: () => planDiskNode(replicas, settled) },
      { name: 'plan-disk-node/1000-replicas/missing', run: () => planDiskNode(replicas, empty) },
    ],
    end: () => Promise.resolve(),
  };
}
