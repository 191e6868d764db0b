// SPDX-License-Identifier: Apache-2.0
//
// Goal: what is asked of a cluster in a random run happens once, whatever the store does with questions and answers; and
// what is not as it was asked for is seen.

import { describe, expect, it } from 'vitest';
import { keys } from '../model/keys.js';
import { ClusterSim, plainShape } from './cluster-sim.js';

async function started(seed: bigint): Promise<ClusterSim> {
  const cluster = new ClusterSim(seed, plainShape);
  await cluster.start();
  return cluster;
}

const atRest = (cluster: ClusterSim) => () => cluster.operator.unrest(cluster.state) === null;

describe('the operator', () => {
  it('makes a volume once and deletes it wholly, over a store that loses every other answer', async () => {
    const cluster = await started(1n);
    const { operator } = cluster;
    cluster.server.knobs = { ...cluster.server.knobs, answerLostChance: 0.5 };
    operator.make('w1', 2);
    expect(operator.unrest(cluster.state)).toBe('no answer about w1');
    expect([operator.freeName, operator.made]).toEqual(['w2', []]);
    expect(await cluster.runUntil(atRest(cluster), 120_000)).toBe(true);
    // Such a store costs nodes their leases as well: while one is taken for dead, the volume is refused.
    for (let again = 0; operator.made.length === 0 && again < 20; again += 1) {
      operator.make('w1', 2);
      expect(await cluster.runUntil(atRest(cluster), 120_000)).toBe(true);
    }
    expect(operator.made).toEqual(['w1']);
    operator.delete('w1');
    expect(await cluster.runUntil(atRest(cluster), 120_000)).toBe(true);
    expect(cluster.state.all('volumes').map(({ name }) => name)).toEqual(['v1']);
    expect(cluster.rareEvents.count('store_answer_lost')).toBeGreaterThan(0);
    cluster.close();
  });

  it('is refused while a node is away, and asks for nothing then', async () => {
    const cluster = await started(2n);
    cluster.process('d2').kill();
    expect(await cluster.runUntil(() => cluster.state.get('lives', 'd2') === null, 10_000)).toBe(true);
    cluster.operator.make('w1', 2);
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect(cluster.operator.made).toEqual([]);
    expect(cluster.state.volumeByName('w1')).toBeNull();
    cluster.close();
  });

  it('keeps a pool that holds a volume, and deletes it when the volume is gone', async () => {
    const cluster = await started(4n);
    const { operator } = cluster;
    operator.makePool('p1', { redundancy: { kind: 'copies', copies: 2 }, pgCount: 4 });
    expect(operator.unrest(cluster.state)).toBe('no answer about p1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect([operator.madePools, operator.freePool]).toEqual([['p1'], 'p2']);
    operator.makeIn('w1', 'p1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect(cluster.state.volumeByName('w1')?.pool).toBe(cluster.state.poolByName('p1')?.id);
    operator.deletePool('p1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect(operator.madePools).toEqual(['p1']);
    operator.delete('w1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    operator.deletePool('p1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect(cluster.state.poolByName('p1')).toBeNull();
    operator.makeIn('w1', 'p1');
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    expect(operator.made).toEqual([]);
    cluster.close();
  });

  it('sees a volume that somebody else has deleted, and two of one name', async () => {
    const cluster = await started(3n);
    const { operator, server } = cluster;
    operator.make('w1', 2);
    expect(await cluster.runUntil(atRest(cluster), 10_000)).toBe(true);
    const made = cluster.state.volumeByName('w1');
    const text = JSON.stringify({ ...made, id: '00000000-0000-4000-8000-000000000000' });
    expect(operator.violation(cluster.state)).toBeNull();
    server.apply([{ kind: 'put', key: keys.volume('00000000-0000-4000-8000-000000000000'), value: text }]);
    expect(operator.violation(cluster.state)).toBe('volumes: two are called w1');
    server.apply([{ kind: 'delete', key: keys.volumeName('w1') }]);
    expect(operator.unrest(cluster.state)).toBe('volume w1 is not there');
    cluster.close();
  });
});
