// SPDX-License-Identifier: Apache-2.0
// The placement agent plans for all volumes at once and writes one after the other: what changes meanwhile is not undone.

import { expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type LiveObject, type VolumeObject } from '../model/objects.js';
import { InlinePlanner } from '../placement/planner.js';
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
