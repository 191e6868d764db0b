// SPDX-License-Identifier: Apache-2.0
//
// Goal: the store may go away at any moment of a planned hand-over, for everybody or for one of the two controllers, with
// answers lost and changes carried out seconds later: requests go on within a bounded time - the store is still away then -
// nothing that was acknowledged is lost, and all is whole when the store is back.
// Method: virtual time; the moment is moved on from round to round over all that a hand-over takes.

import { describe, expect, it } from 'vitest';
import { keys } from '../model/keys.js';
import { codecs, formatVersion } from '../model/objects.js';
import { type ClusterShape, ClusterSim, plainShape } from './cluster-sim.js';
import { calmStore } from './sim-store.js';

const shape: ClusterShape = { ...plainShape, legs: 2, networkDelayMaxMs: 0.5, diskDelayMaxMs: 1 };
const mix = { writers: 3, readers: 1, readChance: 0.4, flushChance: 0, blocksMax: 2, thinkMaxMs: 20, blocksOwn: 16 };
const seedText = process.env['BASALT_SEED'];
const seed = seedText === undefined ? 11n : BigInt(seedText);

/** One round after the other on one cluster, with a hand-over in each. */
class HandOverRun {
  readonly cluster: ClusterSim;
  handOvers = 0;
  takenBack = 0;

  constructor() {
    this.cluster = new ClusterSim(seed, shape, {
      tell: ({ text }) => {
        if (text.includes('volume taken back')) this.takenBack += 1;
      },
    });
  }

  async start(): Promise<void> {
    await this.cluster.start();
    this.cluster.startWorkload(mix);
    await this.cluster.runFor(100);
  }

  /** Asks for one, and does not wait for it. */
  async ask(): Promise<{ from: string; to: string }> {
    const { cluster } = this;
    const [volume] = cluster.state.all('volumes');
    const leadership = cluster.state.get('leaderships', volume?.id ?? '');
    const from = leadership?.controller ?? '';
    const to = volume?.controllers.find((name) => name !== from) ?? '';
    if (volume === undefined || leadership === null) throw new Error('no volume');
    const wish = { format: formatVersion, volumeId: volume.id, to, epoch: leadership.epoch } as const;
    cluster.admin.store.put(keys.handOver(volume.id), codecs.handOver.encode(wish)).catch(() => {});
    return { from, to };
  }

  /** The longest time without an answer to any client, within so long. */
  async longestGapMs(withinMs: number): Promise<number> {
    const { cluster } = this;
    const endMs = cluster.nowMs + withinMs;
    let longestMs = 0;
    while (cluster.nowMs < endMs) {
      const [beganMs, before] = [cluster.nowMs, cluster.history.operations];
      await cluster.runUntil(() => cluster.history.operations > before, endMs - beganMs);
      longestMs = Math.max(longestMs, cluster.nowMs - beganMs);
    }
    return longestMs;
  }

  async whole(what: string): Promise<void> {
    const { cluster } = this;
    const settled = (): boolean =>
      cluster.redundant &&
      cluster.view.paths
        .map((path) => path.state)
        .sort()
        .join() === 'active,standby';
    const found = await cluster.runUntil(settled, 60_000);
    const views = cluster.controllerNodes.flatMap(({ agent }) =>
      [...(agent?.controllers?.volumes.values() ?? [])].map((volume) => volume.controller.view),
    );
    expect(found, `${what}: ${cluster.view.health}, ${JSON.stringify(views)}`).toBe(true);
    expect(cluster.violation, what).toBeNull();
    await cluster.runFor(500);
  }

  async judge(): Promise<void> {
    const { cluster } = this;
    cluster.stopWorkload();
    cluster.heal();
    expect(await cluster.runUntil(() => cluster.history.pending === 0 && cluster.redundant, 60_000)).toBe(true);
    expect(cluster.violation).toBeNull();
    cluster.close();
  }
}

type Outage = (run: HandOverRun, at: { from: string; to: string }) => void;

const outages: Record<string, Outage> = {
  'is down for everybody': ({ cluster }) => {
    cluster.server.down = true;
  },
  'hears nobody, and what it was asked before is carried out late': ({ cluster }) => {
    cluster.server.knobs = { ...calmStore, lateChance: 0.7, answerLostChance: 0.5 };
    cluster.after(150, () => {
      cluster.server.knobs = calmStore;
      cluster.server.down = true;
    });
  },
  'does not answer the one that gives the volume away': ({ cluster }, { from }) => {
    cluster.server.cutFrom.add(from);
  },
  'does not hear the one that gives the volume away': ({ cluster }, { from }) => {
    cluster.server.cutTo.add(from);
  },
};

const awayMs = 2_500;
/** Until it is taken back, and what hosts need to see that. */
const gapMsMax = 2_200;

describe('a hand-over', { timeout: 600_000 }, () => {
  it.each(Object.keys(outages))('ends with requests that go on when the store %s', async (name) => {
    const run = new HandOverRun();
    await run.start();
    for (let afterMs = 0; afterMs <= 40; afterMs += 5) {
      const what = `seed ${seed}, store away ${afterMs} ms after the wish`;
      const at = await run.ask();
      await run.cluster.runFor(afterMs + 0.5);
      outages[name]?.(run, at);
      const gapMs = await run.longestGapMs(awayMs);
      expect(gapMs, what).toBeLessThan(gapMsMax);
      run.cluster.server.knobs = calmStore;
      run.cluster.server.heal();
      await run.whole(what);
    }
    if (name === 'is down for everybody') expect(run.takenBack).toBeGreaterThan(0);
    await run.judge();
  });

  it('is a pause of some round trips when the store is there', async () => {
    const run = new HandOverRun();
    await run.start();
    for (let round = 0; round < 5; round++) {
      const { to } = await run.ask();
      expect(await run.longestGapMs(1_000)).toBeLessThan(100);
      await run.whole(`round ${round}`);
      expect(run.cluster.view.controller).toBe(to);
    }
    expect(run.takenBack).toBe(0);
    await run.judge();
  });
});
