// SPDX-License-Identifier: Apache-2.0
// The placement agent plans for all volumes at once and writes one after the other: what changes meanwhile is not undone.
// What there was no place for is planned again when there is one.

import { expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type LiveObject, type VolumeObject } from '../model/objects.js';
import { InlinePlanner, type PgPlanner } from '../placement/planner.js';
import { pgsOfVolume } from '../placement/pool.js';
import { PlacementAgent } from './placement-agent.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const [one, two] = [uuid(1), uuid(2)];

/** Deleted by force, with one replica on a node that is up and one on a node that is not. */
function deleted(id: string, name: string): VolumeObject {
  const at = Number(id.slice(-1)) * 10;
  return {
    format: 1,
    id,
    name,
    sizeBytes: 4096,
    blockSizeBytes: 4096,
    stripeSizeBytes: 65536,
    copies: 2,
    legSizeBytes: 2 ** 20,
    legs: [
      {
        replicas: [
          { replica: uuid(at + 1), disk: uuid(101), node: 'n1' },
          { replica: uuid(at + 2), disk: uuid(102), node: 'n2' },
        ],
      },
    ],
    controllers: [],
    hosts: [],
    nbd: [],
    phase: 'deleting',
    forced: true,
  };
}

const live: LiveObject = {
  format: 1,
  name: 'n1',
  kind: 'node',
  incarnation: 'n1-1',
  engine: 'fake',
  roles: ['controller', 'disk'],
  internal: null,
  hosts: null,
  draining: false,
};
const leadership: Leadership = {
  format: 1,
  volumeId: one,
  epoch: 3,
  controller: null,
  instance: null,
  clean: false,
  leaseMs: 300,
  legs: [],
};

it.each(['volume', 'leadership'] as const)(
  'plans again for a volume whose %s changed while others were written',
  async (what) => {
    const link = new MemoryLink();
    const volumes = [deleted(one, 'v1'), deleted(two, 'v2')];
    const put = (volume: VolumeObject): void => link.put(keys.volume(volume.id), codecs.volume.encode(volume));
    const lead = (volumeId: string, epoch: number): void =>
      link.put(keys.leadership(volumeId), codecs.leadership.encode({ ...leadership, volumeId, epoch }));
    link.put(keys.live('n1'), codecs.live.encode(live));
    for (const volume of volumes) {
      put(volume);
      lead(volume.id, 3);
    }
    let commits = 0;
    link.beforeCommit = () => {
      // The first volume is being written, and both are planned.
      if (commits++ > 0) return;
      if (what === 'leadership') return lead(two, 4);
      const [second] = volumes.slice(1);
      if (second !== undefined) put({ ...second, hosts: ['nqn.2024-01.org.example:h'] });
    };
    const context = { engine: {} as Engine, clock: systemClock, random: systemRandom, log: quietLog };
    const agent = new PlacementAgent({ context, link, node: 'n1', planner: new InlinePlanner() });
    agent.start();
    const nodesOf = (id: string): string[] =>
      link.state.get('volumes', id)?.legs.flatMap((leg) => leg.replicas.map(({ node }) => node)) ?? [];
    await expect.poll(() => [nodesOf(one), nodesOf(two)]).toEqual([['n1'], ['n1']]);
    await agent.stop();
    expect(link.state.get('volumes', two)?.hosts).toEqual(what === 'volume' ? ['nqn.2024-01.org.example:h'] : []);
    // The disk obeys a burial only under the epoch that it has come to.
    const buried = link.state.all('tombstones').map(({ volumeId, epoch }) => [volumeId, epoch]);
    expect(buried).toEqual([
      [one, 3],
      [two, what === 'leadership' ? 4 : 3],
    ]);
    expect(commits).toBe(3);
  },
);

const poolId = uuid(9);
const nodes = ['n1', 'n2', 'n3'];
const pgCount = 4;
const pgs = Array.from({ length: pgCount }, (_, pg) => [pg % 3, (pg + 1) % 3]);
const diskOf = (node: string): string => uuid(100 + Number(node.slice(1)));

const wholeDisk = {
  format: 1 as const,
  cluster: uuid(8),
  path: '/d',
  lvstore: 'l',
  clusterSizeBytes: 2 ** 20,
  buffered: false,
};

/** A pool of two copies on three nodes, the first of which is drained. */
function drainedPool(): MemoryLink {
  const link = new MemoryLink();
  link.put(keys.live('c1'), codecs.live.encode({ ...live, name: 'c1' }));
  for (const node of nodes) {
    const disk = { id: diskOf(node), node, totalBytes: 2 ** 30, freeBytes: 2 ** 30 };
    link.put(keys.live(node), codecs.live.encode({ ...live, name: node }));
    link.put(keys.disk(disk.id), codecs.disk.encode({ ...wholeDisk, ...disk }));
  }
  const redundancy = { kind: 'copies' as const, copies: 2 };
  const where = { domain: 'node' as const, selector: { class: null, tags: [] } };
  link.put(keys.pool(poolId), codecs.pool.encode({ format: 1, id: poolId, name: 'p', redundancy, pgCount, ...where }));
  const disks = nodes.map((node) => ({ id: diskOf(node), node, domain: node, capacityBytes: 2 ** 30 }));
  link.put(keys.pgMap(poolId), codecs.pgMap.encode({ format: 1, poolId, version: 1, disks, pgs }));
  cordonNode(link, 'n1', 'drain');
  return link;
}

function cordonNode(link: MemoryLink, name: string, mode: 'cordon' | 'drain'): void {
  const object = { format: 1, kind: 'node', name, mode, sinceMs: 0 } as const;
  link.put(keys.cordon('node', name), codecs.cordon.encode(object));
}

/** Each of its legs is longer than a disk. */
function hugeVolume(): VolumeObject {
  const sizeBytes = 4 * 2 ** 31;
  const range = { startBytes: 0, lengthBytes: sizeBytes, stripeSizeBytes: 65536, firstLeg: 0, legCount: pgCount };
  const route = [{ ...range, legOffsetBytes: 0, seed: 7, conflict: 'spread' as const }];
  const volume = {
    ...deleted(one, 'v1'),
    phase: 'live' as const,
    sizeBytes,
    legSizeBytes: 2 ** 31,
    pool: poolId,
    route,
  };
  const { forced: _, ...live } = volume;
  const legs = pgsOfVolume(live, pgCount).map((pg, leg) => ({
    replicas: (pgs[pg] ?? []).map((at, copy) => {
      const node = nodes[at] ?? '';
      return { replica: uuid(1000 + 10 * leg + copy), disk: diskOf(node), node };
    }),
  }));
  return { ...live, legs };
}

it.each([
  {
    what: 'cordons are lifted',
    prevent: (link: MemoryLink) => {
      for (const name of ['n2', 'n3']) cordonNode(link, name, 'cordon');
    },
    allow: (link: MemoryLink) => {
      for (const name of ['n2', 'n3']) link.put(keys.cordon('node', name), null);
    },
  },
  {
    what: 'a volume is gone',
    prevent: (link: MemoryLink) => link.put(keys.volume(one), codecs.volume.encode(hugeVolume())),
    allow: (link: MemoryLink) => link.put(keys.volume(one), null),
  },
])('makes a map that had been impossible when $what', async ({ prevent, allow }) => {
  const link = drainedPool();
  prevent(link);
  const inline = new InlinePlanner();
  const asked: string[] = [];
  const planner: PgPlanner = {
    plan: async (problem) => {
      const plan = await inline.plan(problem).catch((error: unknown) => {
        asked.push('refused');
        throw error;
      });
      asked.push('planned');
      return plan;
    },
  };
  const context = { engine: {} as Engine, clock: systemClock, random: systemRandom, log: quietLog };
  const agent = new PlacementAgent({ context, link, node: 'c1', planner, timing: { settleMs: 10 } });
  agent.start();
  await expect.poll(() => asked).toEqual(['refused']);
  allow(link);
  await expect.poll(() => link.state.get('pgMaps', poolId)?.disks.map(({ node }) => node)).toEqual(['n2', 'n3']);
  await agent.stop();
});
