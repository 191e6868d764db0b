// SPDX-License-Identifier: Apache-2.0
//
// Goal: a controller has one association with each disk node, whatever number of replicas it drives there; losing it costs
// what losing that node costs, and no more; nodes that know no links work among others, before, in and after an upgrade.
// Method: agents on native engines in virtual time, under hosts whose histories are judged.

import { afterEach, describe, expect, it } from 'vitest';
import type { LinkDescription } from '../engine/descriptions.js';
import { nqns } from '../model/keys.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';

const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.1, blocksMax: 2, thinkMaxMs: 20, blocksOwn: 16 };
const seedText = process.env['BASALT_SEED'];
const seed = seedText === undefined ? 17n : BigInt(seedText);
/** Each disk node has a replica of each leg. */
const shape: ClusterShape = { ...plainShape, legs: 4 };
const [d1, d2] = ['127.0.0.1:21000', '127.0.0.1:21001'];

let cluster: ClusterSim;

async function start(of: Partial<ClusterShape> = {}): Promise<void> {
  cluster = new ClusterSim(seed, { ...shape, ...of });
  await cluster.start();
  cluster.startWorkload(mix);
  await cluster.runFor(200);
}

afterEach(() => cluster.close());

async function links(name: string): Promise<LinkDescription[]> {
  const engine = cluster.process(name).engine;
  if (engine === null) throw new Error(`${name} does not run`);
  const found = await cluster.wait(engine.rpc('basalt_link_get', {}));
  return found.sort((a, b) => (a.address < b.address ? -1 : 1));
}

/** By whom the volume is driven: node, number of members. */
async function shared(): Promise<Record<string, number>> {
  const found = await links(cluster.view.controller ?? '');
  for (const link of found) expect(link).toMatchObject({ state: 'live', connections: 5 });
  return Object.fromEntries(found.map(({ address, members }) => [address, members]));
}

async function whole(): Promise<void> {
  expect(await cluster.runUntil(() => cluster.redundant, 60_000), JSON.stringify(cluster.view)).toBe(true);
  expect(cluster.violation).toBeNull();
}

async function restart(name: string): Promise<void> {
  cluster.process(name).kill();
  expect(await cluster.runUntil(() => cluster.view.health === 'degraded', 30_000)).toBe(true);
  cluster.process(name).start();
  await whole();
}

describe('node links', { timeout: 60_000 }, () => {
  it('carry all members of a node, under whichever controller drives them', async () => {
    await start();
    expect(await shared()).toEqual({ [d1]: 4, [d2]: 4 });
    const before = cluster.view.controller ?? '';
    cluster.process(before).kill();
    expect(await cluster.runUntil(() => (cluster.view.controller ?? before) !== before, 30_000)).toBe(true);
    await whole();
    expect(await shared()).toEqual({ [d1]: 4, [d2]: 4 });
  });

  it('fail all their members at once and serve them again when the node can be reached', async () => {
    await start();
    const active = cluster.view.controller ?? '';
    cluster.world.partition(active, 'd1');
    const isOut = () =>
      cluster.view.legs.every((leg) => leg.some(({ node, state }) => node === 'd1' && state === 'out'));
    expect(await cluster.runUntil(isOut, 10_000)).toBe(true);
    const { operations } = cluster.history;
    expect(await cluster.runUntil(() => cluster.history.operations > operations + 50, 10_000)).toBe(true);
    expect(await shared()).toEqual({ [d2]: 4 });
    cluster.world.heal(active, 'd1');
    await whole();
    expect(await shared()).toEqual({ [d1]: 4, [d2]: 4 });
    expect(cluster.view.controller).toBe(active);
  });

  it('are not needed: nodes are upgraded one after the other, and back', async () => {
    await start({ withoutLinks: ['d1', 'd2'] });
    expect(await shared()).toEqual({});
    cluster.withoutLinks.delete('d1');
    await restart('d1');
    expect(await shared()).toEqual({ [d1]: 4 });
    cluster.withoutLinks.delete('d2');
    await restart('d2');
    expect(await shared()).toEqual({ [d1]: 4, [d2]: 4 });
    // What d1 announced is of a process that is no more.
    cluster.withoutLinks.add('d1');
    await restart('d1');
    expect(await shared()).toEqual({ [d2]: 4 });
  });

  it('let in every controller of the cluster', async () => {
    await start();
    const hosts = async (): Promise<string[]> => {
      const engine = cluster.process('d1').engine;
      const [link] =
        engine === null ? [] : await cluster.wait(engine.rpc('nvmf_get_subsystems', { nqn: nqns.nodeLink }));
      return (link?.hosts ?? []).map(({ nqn }) => nqn);
    };
    expect(await hosts()).toEqual(['c1', 'c2'].map((name) => nqns.controller(name)));
  });
});
