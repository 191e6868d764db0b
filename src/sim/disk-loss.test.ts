// SPDX-License-Identifier: Apache-2.0
//
// Goal: a disk that is lost for good costs nothing that was redundant, and can be taken out of the cluster; ways that lose
// packets and take long cost nothing but time; what chance seldom does happens in the recipe that is there for it. Method:
// simulated clusters in which each of them is asked for.

import { describe, expect, it } from 'vitest';
import { recipes } from './recipes.js';
import { type RunOptions, type RunResult, run } from './run.js';

const mix = { writers: 2, readers: 1, readChance: 0.4, flushChance: 0.02, blocksMax: 4, thinkMaxMs: 20, blocksOwn: 16 };
const faults = ['kill', 'pause'] as const;

async function passed(options: RunOptions): Promise<RunResult> {
  const result = await run(options);
  expect(result, result.explanation).toMatchObject({ failure: 'none' });
  return result;
}

function count(result: RunResult, name: string): number {
  return result.rareEvents.find((event) => event.name === name)?.count ?? 0;
}

describe('a disk that is lost for good', { timeout: 300_000 }, () => {
  const small = { copies: 2, disks: 2, controllers: 2, hosts: 1, legs: 1 };
  const shapes = {
    'by itself': { ...small, disks: 3, rebuildAfterMs: 300 },
    'when it is drained': { ...small, disks: 3, rebuildAfterMs: 600_000 },
    'when a machine was added': { ...small, rebuildAfterMs: 300 },
    'of a coded volume': { ...small, erasure: { data: 2, parity: 1 }, disks: 4, rebuildAfterMs: 300 },
  } as const;
  for (const [how, shape] of Object.entries(shapes)) {
    it(`is made up for elsewhere, ${how}, with its snapshots, and is removed`, async () => {
      const changes = ['make a snapshot'] as const;
      const result = await passed({ seed: 3n, shape, mix, faults, changes, loss: true });
      expect(count(result, 'snapshot_made')).toBeGreaterThan(0);
      expect([count(result, 'disk_lost'), count(result, 'lost_disk_removed')]).toEqual([1, 1]);
      expect(count(result, 'disk_node_added')).toBe(how === 'when a machine was added' ? 1 : 0);
    });
  }
});

describe('what fails while a lost disk is made up for', { timeout: 300_000 }, () => {
  it('loses nothing', async () => {
    const shape = { copies: 2, disks: 3, controllers: 2, hosts: 1, legs: 2, rebuildAfterMs: 300 };
    let faultCount = 0;
    for (const seed of [1n, 2n, 4n]) {
      const result = await passed({ seed, shape, mix, faults: ['pause'], loss: true });
      faultCount += count(result, 'fault_while_rebuilding');
    }
    expect(faultCount).toBeGreaterThan(0);
  });
});

describe('a way between two nodes', { timeout: 300_000 }, () => {
  it('may lose packets and take long, until all faults end', async () => {
    const links = { share: 1, lossChance: 0.02, extraDelayMs: 5, retransmitMs: 200 };
    const result = await passed({ seed: 2n, mix, faults, links });
    expect(result.summary).toContain('100 % of the ways lose up to 2 % and take up to 5 ms more');
    expect(count(result, 'fault_agents_packet_lost')).toBeGreaterThan(0);
    expect(count(result, 'fault_agents_link_slow')).toBeGreaterThan(0);
  });
});

describe('a cluster whose operators think better of things', { timeout: 300_000 }, () => {
  it('has drains, moves and changes of pools that are called off, and moves that cannot be', async () => {
    const results = [];
    for (const seed of [5n, 8n]) results.push(await passed({ ...recipes.wavering, seed }));
    for (const name of ['pool_change_called_off', 'move_called_off', 'drain_ended_early', 'move_refused'])
      expect(
        results.reduce((sum, result) => sum + count(result, name), 0),
        name,
      ).toBeGreaterThan(0);
  });
});

describe('a crowded cluster', { timeout: 300_000 }, () => {
  it('has drains that wait for room', async () => {
    const result = await passed({ ...recipes.crowded, seed: 1n });
    expect(count(result, 'drain_given_room'), result.summary).toBe(1);
  });
});
