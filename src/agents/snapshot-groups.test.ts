// SPDX-License-Identifier: Apache-2.0
// Snapshots of several volumes of one instant, over whole clusters: whole or not there, whatever fails in the middle, with
// nothing left behind, and requests held for a bounded time.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readState } from '../api/read-state.js';
import { createGroup, deleteGroup, showGroup } from '../api/snapshot-groups.js';
import { cloneSnapshot, createSnapshot, deleteSnapshot } from '../api/snapshots.js';
import { systemClock } from '../env/clock.js';
import type { SnapshotGroupView } from '../model/api.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import type { Txn } from '../store/store.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { faultyStore, type TxnFault } from './testing/faulty-store.js';
import { eventually } from './testing/waiting.js';

const volumes = ['v1', 'v2'];

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
  bed.placement = { graceMs: 60_000, settleMs: 50 };
});

afterEach(() => bed.close());

/** Two volumes, each driven by a controller of its own. */
async function start(): Promise<void> {
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  await bed.create({ name: 'v1', controllers: ['c1', 'c2'] });
  await bed.create({ name: 'v2', controllers: ['c2', 'c1'] });
  for (const name of volumes) await bed.redundant(name);
  await bed.acquainted('c1', 'c2');
  expect(await Promise.all(volumes.map(active))).toEqual(['c1', 'c2']);
}

const active = async (volume: string): Promise<string> => (await bed.view(volume)).controller ?? '';

const ask = (name: string, of = volumes): Promise<boolean> => createGroup(bed.api, systemClock, { name, volumes: of });

/** Asked for again when it failed: what else the machine does may be the reason. */
async function ready(name: string): Promise<SnapshotGroupView> {
  await eventually(`${name} is made`, async () => {
    const { state } = await showGroup(bed.api, name);
    if (state === 'failed') await ask(name);
    return state === 'ready';
  });
  const view = await showGroup(bed.api, name);
  for (const each of view.snapshots) expect(each).toMatchObject({ state: 'ready', name, group: name, copies: 2 });
  return view;
}

let clones = 0;

/** What block 0 to `count` of each volume held at that instant. */
async function held(name: string, count: number): Promise<number[][]> {
  return Promise.all(
    volumes.map(async (volume) => {
      const clone = `${volume}-${name}-${++clones}`;
      await cloneSnapshot(bed.api, { volume, snapshot: name, request: { name: clone } });
      await bed.served(clone);
      const at = await active(clone);
      const blocks: number[] = [];
      for (let block = 0; block < count; block++) blocks.push(await bed.read(at, clone, block * 16));
      return blocks;
    }),
  );
}

/** Nothing on the disks but replicas, and copies that the store names; nothing of a round in the store. */
function clean(): Promise<void> {
  return eventually('nothing stays behind', async () => {
    const { state } = await readState(bed.server.connect());
    const replicas = state.all('volumes').flatMap((volume) => volume.legs.flatMap((leg) => leg.replicas));
    const known = new Set(replicas.map((entry) => entry.replica));
    const whole = state.all('snapshots').filter(({ phase }) => phase === 'ready');
    const attempts = whole.map(({ id, cut }) => `${id}.${cut?.attempt}.`);
    const lvols = await Promise.all(['d1', 'd2'].map((node) => bed.lvols(node)));
    const isKnown = (lvol: string): boolean => known.has(lvol) || attempts.some((prefix) => lvol.startsWith(prefix));
    return lvols.flat().every(({ name }) => isKnown(name)) && bed.server.list(keys.snapshotHolds).length === 0;
  });
}

/** Never is one of the snapshots there while another is not. Until `stop`; what was seen to be wrong. */
function watchWholeness(): { stop: () => Promise<string[]> } {
  const seen: string[] = [];
  const watch = bed.connect().watch(keys.snapshots, bed.server.revision + 1);
  const phases = new Map<string, { group: string; phase: string }>();
  const watching = (async () => {
    for await (const batch of watch) {
      for (const event of batch.kind === 'events' ? batch.events : []) {
        if (event.kind !== 'put') continue;
        const snapshot = codecs.snapshot.decode(event.entry.value.toString(), event.entry.key);
        phases.set(snapshot.id, { group: snapshot.group?.id ?? '', phase: snapshot.phase });
      }
      for (const { group, phase } of phases.values()) {
        const all = [...phases.values()].filter((other) => other.group === group);
        if (phase === 'ready' && all.some((other) => other.phase !== 'ready' && other.phase !== 'deleting'))
          seen.push(JSON.stringify(all));
      }
    }
  })();
  const stop = async (): Promise<string[]> => {
    watch.close();
    await watching;
    return seen;
  };
  return { stop };
}

/** Numbers come again after so many: none that a cut can hold beside them. */
const fillsMax = 250;

/** Writers that each write a number to one volume, and then the same to the other, over and over. */
class Chains {
  readonly #workers: Promise<void>[];
  #running = true;
  #rounds = 0;

  constructor(count: number) {
    this.#workers = Array.from({ length: count }, (_, index) => this.#work(index));
    for (const worker of this.#workers) worker.catch(() => {});
  }

  async #work(index: number): Promise<void> {
    for (let round = 0; this.#running; round++) {
      const fill = 1 + (round % fillsMax);
      for (const volume of volumes) await bed.write(volume === 'v1' ? 'c1' : 'c2', volume, index * 16, fill);
      this.#rounds++;
      await systemClock.sleep(1);
    }
  }

  progress(count: number): Promise<void> {
    const goal = this.#rounds + count;
    return eventually('the load goes on', () => this.#rounds >= goal);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#workers);
  }
}

describe('a group of snapshots', { timeout: 180_000 }, () => {
  it('is one instant over volumes that different controllers drive, under writes', async () => {
    await start();
    const whole = watchWholeness();
    // One controller is later than the other: what is written in between must not be in its cut alone.
    bed.intercept('c2', 'basalt_slot_snapshot', () => systemClock.sleep(20));
    const chains = new Chains(8);
    await chains.progress(20);
    for (const name of ['g1', 'g2']) {
      await ask(name);
      const view = await ready(name);
      expect(view.heldUs).toBeGreaterThan(0);
      await chains.progress(10);
    }
    await chains.stop();
    expect(await whole.stop()).toEqual([]);
    for (const name of ['g1', 'g2']) {
      const [first = [], second = []] = await held(name, 8);
      first.forEach((fill, index) => {
        // What was written to the second volume had been acknowledged by the first one before.
        const ahead = (fill - (second[index] ?? 0) + fillsMax) % fillsMax;
        expect([0, 1], `${name}: ${first} and ${second}`).toContain(ahead);
      });
    }
    await clean();
  });

  it('holds requests until all are held, and no longer than it may when nobody says so', async () => {
    await start();
    let late = 2;
    bed.intercept('c2', 'basalt_slot_release', () => {
      // As if the others were never heard of.
      if (late-- > 0) throw new Error('injected');
    });
    await ask('g1');
    await eventually('two rounds have failed', async () => {
      const { state } = await readState(bed.server.connect());
      return (state.get('snapshotGroups', 'g1')?.failedCount ?? 0) >= 2;
    });
    // Requests went on by themselves.
    for (const [node, volume] of [
      ['c1', 'v1'],
      ['c2', 'v2'],
    ] as const)
      await bed.write(node, volume, 0, 7);
    await ready('g1');
    await clean();
  });

  it.each(['basalt_slot_snapshot_prepare', 'basalt_slot_snapshot', 'basalt_slot_release'] as const)(
    'is whole or not there when a controller dies at %s',
    async (method) => {
      await start();
      const whole = watchWholeness();
      await bed.write('c1', 'v1', 0, 5);
      await bed.write('c2', 'v2', 0, 6);
      let killed: Promise<void> | null = null;
      bed.intercept('c1', method, () => {
        killed ??= bed.kill('c1');
        throw new Error('dead');
      });
      await ask('g1');
      await eventually('c1 was killed', () => killed !== null);
      await killed;
      await ready('g1');
      expect(await whole.stop()).toEqual([]);
      expect(await active('v1')).toBe('c2');
      const [first, second] = await held('g1', 1);
      expect([first, second]).toEqual([[5], [6]]);
      await clean();
    },
  );

  it('is whole or not there when a controller stands still in the middle of it', async () => {
    await start();
    const whole = watchWholeness();
    let paused = false;
    const { engine } = bed.node('c1');
    bed.intercept('c1', 'basalt_slot_release', () => {
      if (!paused) engine.pause();
      paused = true;
    });
    await ask('g1');
    await eventually('c1 stands still', () => paused);
    // The other one is not kept waiting by it.
    await bed.write('c2', 'v2', 1, 9);
    engine.resume();
    await ready('g1');
    expect(await whole.stop()).toEqual([]);
    await clean();
  });

  it('is made when answers of the store are lost, and when it is away for a while', async () => {
    let count = 0;
    let armed = false;
    const isOfGroup = (txn: Txn): boolean => txn.changes.some(({ key }) => key.startsWith('/basalt/v1/snapshot'));
    const judge = (txn: Txn): TxnFault =>
      armed && isOfGroup(txn) && count < 8
        ? ((['lost-after', 'pass', 'lost-before', 'pass'] as const)[count++ % 4] ?? 'pass')
        : 'pass';
    bed.wrapStore = (store) => faultyStore(store, judge);
    await start();
    const whole = watchWholeness();
    armed = true;
    await ask('g1');
    await eventually('answers were lost', () => count > 3);
    bed.server.away = true;
    await systemClock.sleep(300);
    bed.server.away = false;
    await ready('g1');
    expect(await whole.stop()).toEqual([]);
    await clean();
  });

  it('is asked for once, refused where it cannot be, and goes as a whole', async () => {
    await start();
    await createSnapshot(bed.api, systemClock, { volume: 'v2', request: { name: 'taken' } });
    await expect(ask('taken')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(ask('g1', ['v1', 'nope'])).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(bed.server.list(keys.snapshotGroups)).toEqual([]);
    expect(await ask('g1')).toBe(true);
    expect(await ask('g1', ['v2', 'v1'])).toBe(false);
    await expect(ask('g1', ['v1'])).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await ready('g1');
    expect(await ask('g1')).toBe(false);
    const alone = deleteSnapshot(bed.api, { volume: 'v1', snapshot: 'g1' });
    await expect(alone).rejects.toMatchObject({
      code: 'BUSY',
      message: expect.stringMatching(/group of snapshots g1/),
    });
    await deleteGroup(bed.api, 'g1');
    await expect(deleteGroup(bed.api, 'g1')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await eventually('nothing of it is in the store', async () => {
      const { state } = await readState(bed.server.connect());
      return state.all('snapshots').every(({ name }) => name === 'taken') && state.all('snapshotGroups').length === 0;
    });
    await clean();
    expect(await ask('g1', ['v1'])).toBe(true);
    expect((await ready('g1')).snapshots).toHaveLength(1);
  });

  it('waits for a volume that nobody serves, and the others can be cut alone meanwhile', async () => {
    await start();
    await bed.create({ name: 'v3', controllers: ['c1'] });
    await bed.redundant('v3');
    await ask('g1', ['v1', 'v3']);
    await ready('g1');
    await bed.kill('c1');
    await bed.served('v1', 'c2');
    await ask('g2', ['v1', 'v3']);
    await createSnapshot(bed.api, systemClock, { volume: 'v1', request: { name: 's1' } });
    await eventually('s1 is made', async () => {
      const { state } = await readState(bed.server.connect());
      return state.all('snapshots').some(({ name, phase }) => name === 's1' && phase === 'ready');
    });
    expect(await showGroup(bed.api, 'g2')).toMatchObject({ state: 'pending' });
    await bed.startController('c1');
    await ready('g2');
    await clean();
  });
});
