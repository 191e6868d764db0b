// SPDX-License-Identifier: Apache-2.0
//
// What operators do to a cluster in use: snapshots, volumes made of them, drains and cordons. Same form as the changes of
// cluster-changes.ts; drawn apart from those.

import type { SeededRandom } from '../env/seeded-random.js';
import type { DrainTarget } from '../reconcile/drain.js';
import type { Change } from './cluster-changes.js';
import type { ClusterSim } from './cluster-sim.js';

function anyTarget(cluster: ClusterSim, random: SeededRandom): DrainTarget {
  const disks = cluster.state.all('disks');
  if (disks.length > 0 && random.chance(0.5)) return { kind: 'disk', name: random.pick(disks).id };
  return { kind: 'node', name: random.pick([...cluster.processes.keys()]) };
}

function drain(cluster: ClusterSim, target: DrainTarget): string | null {
  // What is drained already needs its places elsewhere first.
  if (cluster.isMoving) return null;
  cluster.drainer.drain(target);
  return `drain ${target.kind} ${target.name}`;
}

export const operations = {
  'make a snapshot': {
    weight: 6,
    begin: (cluster) => {
      const name = cluster.snapshots.freeName;
      if (name === null) return null;
      cluster.snapshots.make(name);
      return `make snapshot ${name}`;
    },
  },
  // It is copied for a while then, and no snapshot may count it before it holds everything.
  'snapshots while a disk node returns': {
    weight: 2,
    begin: (cluster, random) => {
      const process = random.pick(cluster.diskNodes);
      if (!process.isRunning || process.isPaused || cluster.snapshots.freeName === null) return null;
      const downMs = random.between(100, 3_000);
      process.kill();
      cluster.after(downMs, () => process.start());
      if (random.chance(0.7)) {
        const bytes_per_s = random.pick([64, 256, 1024]) * 1024;
        // Whoever drives the volume may end meanwhile.
        cluster.paceCopying({ bytes_per_s }).catch(() => {});
        cluster.after(downMs + 2_000, () => void cluster.paceCopying({ bytes_per_s: 0 }).catch(() => {}));
      }
      for (let ask = 1; ask <= 4; ask++) {
        cluster.after(downMs + 100 + 150 * ask, () => {
          const name = cluster.snapshots.freeName;
          if (name !== null) cluster.snapshots.make(name);
        });
      }
      return `kill ${process.name} for ${downMs} ms, and make snapshots when it returns`;
    },
  },
  'delete a snapshot': {
    weight: 2,
    begin: (cluster, random) => {
      const { kept } = cluster.snapshots;
      if (kept.length === 0) return null;
      const name = random.pick(kept);
      cluster.snapshots.delete(name);
      return `delete snapshot ${name}`;
    },
  },
  'clone a snapshot': {
    weight: 3,
    begin: (cluster, random) => {
      const { kept } = cluster.snapshots;
      const { freeName: name } = cluster.operator;
      if (name === null || kept.length === 0) return null;
      const snapshot = random.pick(kept);
      cluster.operator.clone(name, { volume: cluster.volumeName, snapshot });
      return `make volume ${name} of snapshot ${snapshot}`;
    },
  },
  'drain a disk': {
    weight: 2,
    begin: (cluster, random) => {
      const disks = cluster.state.all('disks');
      return disks.length === 0 ? null : drain(cluster, { kind: 'disk', name: random.pick(disks).id });
    },
  },
  'drain a node': {
    weight: 2,
    begin: (cluster, random) => drain(cluster, { kind: 'node', name: random.pick([...cluster.processes.keys()]) }),
  },
  cordon: {
    weight: 1,
    begin: (cluster, random) => {
      if (cluster.drainer.isBusy) return null;
      const target = anyTarget(cluster, random);
      cluster.drainer.cordon(target);
      return `cordon ${target.kind} ${target.name}`;
    },
  },
  uncordon: {
    weight: 3,
    begin: (cluster, random) => {
      const cordons = cluster.state.all('cordons');
      if (cluster.drainer.isBusy || cordons.length === 0) return null;
      const { kind, name } = random.pick(cordons);
      cluster.drainer.uncordon({ kind, name }, cluster.state);
      return `uncordon ${kind} ${name}`;
    },
  },
} satisfies Readonly<Record<string, Change>>;
