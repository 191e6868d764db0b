// SPDX-License-Identifier: Apache-2.0
//
// Goal: whole clusters - real agents, native engines - come through random faults, and a seed names a run exactly.
// Method: a few random runs, each twice; `npm run sim -- --suite cluster-ts` runs more of them.

import { describe, expect, it } from 'vitest';
import { ClusterSim, plainShape } from './cluster-sim.js';
import type { Reduction } from './plan.js';
import { type RunResult, run } from './run.js';
import { readable, type TraceLine } from './trace.js';

describe('a random run', () => {
  for (const seed of [1n, 2n, 3n, 11n]) {
    it(`of seed ${seed} passes, twice with the same trace`, { timeout: 120_000 }, async () => {
      const first = await run({ seed });
      expect(first, first.explanation).toMatchObject({ failure: 'none' });
      const second = await run({ seed });
      expect(second.trace).toBe(first.trace);
      expect(second.history).toBe(first.history);
    });
  }
});

describe('a run in which somebody changes the cluster', () => {
  it('adds disk nodes, has others replaced, makes pools and volumes in them, and passes', {
    timeout: 120_000,
  }, async () => {
    const changes = ['add a disk node', 'away for long', 'make a pool', 'make a volume in a pool'] as const;
    const result = await run({ seed: 7n, changes, shape: { rebuildAfterMs: 300 } });
    expect(result, result.explanation).toMatchObject({ failure: 'none' });
    const count = (name: string): number => result.rareEvents.find((event) => event.name === name)?.count ?? 0;
    for (const name of ['disk_node_added', 'pool_made', 'volume_made', 'replica_moved'])
      expect(count(name), `${name}: ${result.summary}`).toBeGreaterThan(0);
  });
});

describe('a reduced run', () => {
  const seed = 4n;
  async function notes(reduction: Reduction): Promise<{ result: RunResult; notes: string[] }> {
    const seen: string[] = [];
    const tell = ({ what, text }: TraceLine): void => {
      if (what === 'note') seen.push(text);
    };
    const result = await run({ seed, reduction, tell });
    expect(result, result.explanation).toMatchObject({ failure: 'none' });
    return { result, notes: seen };
  }

  it('keeps the steps that it does not leave out as they are', { timeout: 120_000 }, async () => {
    const whole = await notes({});
    const [first] = whole.notes;
    expect(whole.notes.length).toBeGreaterThan(2);
    const damage: unknown = expect.stringMatching(/^damage blocks /);
    expect((await notes({ steps: [0] })).notes).toEqual([first, 'heal', damage]);
  });

  it('has fewer clients, operations and nodes', { timeout: 120_000 }, async () => {
    const shape = { hosts: 1, copies: 2, controllers: 2, legs: 1, legBlocks: 16 };
    const { result } = await notes({ steps: [], clients: [2], opsMax: 5, pauseMsMax: 10, ...shape });
    expect(result.summary).toMatch(/2 copies,( encrypted,)? 1 legs, 3 disk nodes, 2 controllers, 1 hosts/);
    const clients = new Set([...result.history.matchAll(/"client":(\d+)/g)].map(([, client]) => client));
    // The last one reads everything, three times, after snapshots were judged, and once more when damage was mended.
    expect([...clients].sort()).toEqual(['0', '2']);
    expect(result.operations).toBe(5 + 5);
  });
});

describe('the trace for people', () => {
  it('is in columns, and leaves out calls that went well', () => {
    const lines: string[] = [];
    const tell = readable((line) => lines.push(line));
    const at = (who: string, what: string, text: string): void => tell({ nowNs: 1000e9, who, what, text });
    at('run', 'note', 'kill c1 for 3 ms');
    at('c1', 'basalt_leg_create', '{"name":"leg-aa2cf6e4-8e4e-4a6c-a5a9-0f2f1f1e0001-0"}');
    at('c1', 'basalt_leg_create answer', '{"result":true}');
    at('c1', 'bdev_aio_create answer', '{"error":{"code":-2,"message":"no such file"}}');
    at('c1', 'bdev_get_bdevs', '{}');
    at('store', 'delete', '/basalt/v1/live/c1 @7 ');
    expect(lines).toEqual([
      ' 1000.000000  run      == kill c1 for 3 ms',
      ' 1000.000000  c1       basalt_leg_create {"name":"leg-aa2cf6e4-0"}',
      ' 1000.000000  c1       bdev_aio_create refused {"code":-2,"message":"no such file"}',
      ' 1000.000000  store    delete live/c1 @7',
    ]);
  });
});

describe('a simulated cluster', () => {
  it('fails over to the standby when the active controller is killed, and loses no acknowledged write', async () => {
    const cluster = new ClusterSim(1n, plainShape);
    await cluster.start();
    cluster.startWorkload({
      writers: 2,
      readers: 0,
      readChance: 0.5,
      flushChance: 0,
      blocksMax: 2,
      thinkMaxMs: 5,
      blocksOwn: 64,
    });
    await cluster.runFor(300);
    expect(cluster.view.controller).toBe('c1');
    cluster.process('c1').kill();
    expect(await cluster.runUntil(() => cluster.view.controller === 'c2' && cluster.redundant, 5_000)).toBe(true);
    const before = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(before + 20);
    cluster.process('c1').start();
    cluster.stopWorkload();
    expect(await cluster.runUntil(() => cluster.history.pending === 0, 5_000)).toBe(true);
    expect(cluster.history.violation).toBeNull();
    expect(cluster.monitor.violation).toBeNull();
    cluster.close();
  });

  it('gives what a node held to one that was added, when it is away for too long', async () => {
    const cluster = new ClusterSim(3n, { ...plainShape, rebuildAfterMs: 300 });
    await cluster.start();
    expect(cluster.addDiskNode()).toBe('d3');
    cluster.process('d2').kill();
    const nodes = (): string[] => cluster.view.legs.flat().map(({ node }) => node);
    const moved = (): boolean => cluster.redundant && !nodes().includes('d2');
    expect(await cluster.runUntil(moved, 20_000)).toBe(true);
    expect(cluster.rareEvents.count('replica_moved')).toBeGreaterThan(0);
    expect([cluster.addDiskNode(), cluster.addDiskNode()]).toEqual(['d4', null]);
    expect(cluster.violation).toBeNull();
    cluster.close();
  });

  it('goes on writing while the store is away, and shrinks only when it is back', async () => {
    const cluster = new ClusterSim(2n, { ...plainShape, disks: 3, copies: 3 });
    await cluster.start();
    cluster.startWorkload({
      writers: 2,
      readers: 0,
      readChance: 0.3,
      flushChance: 0,
      blocksMax: 1,
      thinkMaxMs: 5,
      blocksOwn: 64,
    });
    cluster.server.down = true;
    await cluster.runFor(4_000);
    const before = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(before + 20);
    cluster.process('d2').kill();
    await cluster.runFor(3_000);
    const parked = cluster.history.operations;
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBe(parked);
    expect(cluster.monitor.shrinks).toBe(0);
    cluster.server.rise();
    expect(await cluster.runUntil(() => cluster.monitor.shrinks === 1, 5_000)).toBe(true);
    await cluster.runFor(1_000);
    expect(cluster.history.operations).toBeGreaterThan(parked);
    expect(cluster.history.violation).toBeNull();
    cluster.close();
  });
});
