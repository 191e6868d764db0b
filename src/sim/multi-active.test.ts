// SPDX-License-Identifier: Apache-2.0
//
// Goal: a volume with several active controllers goes on as far as it can when something that one of them needs is away: a
// part that waits stops nobody else, and controllers that lose each other do not stop the volume between them.
// Method: agents on native engines in virtual time, under hosts whose histories are judged.

import { afterEach, describe, expect, it } from 'vitest';
import { slotName } from '../agents/assembly.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { blockBytes } from './stamp.js';

const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0.1, blocksMax: 2, thinkMaxMs: 20, blocksOwn: 16 };
const seedText = process.env['BASALT_SEED'];
const seed = seedText === undefined ? 17n : BigInt(seedText);
const shape: ClusterShape = { ...plainShape, active: 2, legs: 2, disks: 4, controllers: 3, hosts: 2 };
/** In blocks: from one part to the next. */
const stripe = 65536 / blockBytes;

let cluster: ClusterSim;

async function start(of: Partial<ClusterShape> = {}): Promise<void> {
  cluster = new ClusterSim(seed, { ...shape, ...of });
  await cluster.start();
  expect(await cluster.runUntil(() => fronts().join() === 'c1,c2' && parts().join() === 'c1,c2', 30_000)).toBe(true);
}

afterEach(() => cluster.close());

const fronts = (): (string | null)[] => cluster.view.fronts?.map(({ controller }) => controller) ?? [];
const parts = (): (string | null)[] => cluster.view.parts?.map(({ controller }) => controller) ?? [];

function frontEpochs(): number[] {
  const ids = cluster.view.fronts?.map(({ nqn }) => nqn.split(':').at(-1) ?? '') ?? [];
  return ids.map((id) => cluster.state.get('leaderships', id)?.epoch ?? 0);
}

/** By the front's own controller: what it says of one part, which it may not have at all for the moment. */
async function readPart(front: number, part: number): Promise<string> {
  const { engine } = cluster.process(fronts()[front] ?? '');
  const id = cluster.view.fronts?.[front]?.nqn.split(':').at(-1) ?? '';
  if (engine === null) return 'its controller does not run';
  const handle = await cluster.wait(engine.openBdev(slotName(id)));
  let ended = 'waits';
  handle.read(part * stripe * blockBytes, Buffer.alloc(blockBytes)).then(
    () => {
      ended = 'read';
    },
    (error: unknown) => {
      ended = String(error);
    },
  );
  await cluster.runUntil(() => ended !== 'waits', 1_000);
  return ended;
}

async function whole(): Promise<void> {
  cluster.stopWorkload();
  cluster.heal();
  const rests = (): boolean => cluster.history.pending === 0 && cluster.redundant;
  expect(await cluster.runUntil(rests, 120_000), JSON.stringify(cluster.view)).toBe(true);
  expect(cluster.violation).toBeNull();
}

describe('a front', { timeout: 300_000 }, () => {
  it('goes on with the other parts while one waits for the store, and has lost nothing when that is back', async () => {
    await start();
    const nodes = (cluster.view.legs ?? []).map((leg) => leg.map(({ node }) => node));
    const only = nodes[1]?.find((node) => nodes[0]?.includes(node) !== true) ?? '';
    expect(only, JSON.stringify(nodes)).not.toBe('');
    cluster.startWorkload(mix);
    await cluster.runFor(300);
    const before = frontEpochs();
    cluster.server.down = true;
    cluster.process(only).kill();
    // Far longer than commands towards replicas may take.
    await cluster.runFor(30_000);
    for (const front of [0, 1]) expect(await readPart(front, 0), `front ${front}`).toBe('read');
    cluster.server.rise();
    const { operations } = cluster.history;
    expect(await cluster.runUntil(() => cluster.history.operations > operations + 100, 30_000)).toBe(true);
    expect(frontEpochs()).toEqual(before);
    await whole();
  });
});
