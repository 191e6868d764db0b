// SPDX-License-Identifier: Apache-2.0
// Volumes with several active controllers, in whole clusters on the memory store and fake engines: who drives which part,
// who serves which host, and what an earlier controller can still do.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { drain } from '../api/cordons.js';
import { rotateClusterKey } from '../api/encryption.js';
import { changePool, moveController, scrubVolume } from '../api/jobs.js';
import { readState } from '../api/read-state.js';
import { attachPatiently, attachVolume, deleteVolume, detachVolume } from '../api/volumes.js';
import type { SubsystemDescription } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { isBasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import type { Store, Watch, WatchBatch, WatchEvent } from '../store/store.js';
import { slotName } from './assembly.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { frontId, isSpread, readByFront, writeByFront } from './testing/fronts.js';
import { MemoryKeys } from './testing/memory-keys.js';
import { eventually } from './testing/waiting.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  late = null;
  bed.wrapStore = (store, node) => withLateWatch(store, node);
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2', 'c3'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

/** Whose watch does not show what becomes of that key, and what it shows when it does again. */
let late: { readonly node: string; readonly key: string; asked: number } | null = null;

function withLateWatch(store: Store, node: string): Store {
  const isLate = (key: string): boolean => late?.node === node && late.key === key;
  async function* shown(watch: Watch): AsyncGenerator<WatchBatch> {
    let kept: WatchEvent[] = [];
    for await (const batch of watch) {
      if (batch.kind !== 'events') {
        yield batch;
        continue;
      }
      const now = batch.events.filter((event) => !isLate(event.kind === 'put' ? event.entry.key : event.key));
      kept.push(...batch.events.filter((event) => !now.includes(event)));
      yield { ...batch, events: late === null ? [...kept, ...now] : now };
      if (late === null) kept = [];
    }
  }
  const watch = (...args: Parameters<Store['watch']>): Watch => {
    const real = store.watch(...args);
    return { close: () => real.close(), [Symbol.asyncIterator]: () => shown(real) };
  };
  const txn = (...args: Parameters<Store['txn']>): ReturnType<Store['txn']> => {
    const [{ conditions, changes }] = args;
    if (changes.length === 0 && conditions.some(({ key }) => isLate(key)) && late !== null) late.asked += 1;
    return store.txn(...args);
  };
  return new Proxy(store, {
    get: (target, property) => {
      if (property === 'watch') return watch;
      if (property === 'txn') return txn;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const hostnqn = (name: string): string => `nqn.2026-01.io.basalt:host:${name}`;
const controllersOf = (view: VolumeView): (string | null)[] => view.fronts?.map(({ controller }) => controller) ?? [];

async function make(active: number, legs = 4): Promise<VolumeView> {
  const controllers = ['c1', 'c2', 'c3'];
  await bed.create({ name: 'v1', active, legs, controllers });
  return bed.until('v1', 'served by all', (view) => view.health === 'redundant' && isSpread(view));
}

/** Once those that were detached have been let go. */
async function attach(name: string): Promise<void> {
  await eventually(`${name} is attached`, () =>
    attachVolume(bed.api, 'v1', { host: hostnqn(name) }).then(
      () => true,
      (error: unknown) => {
        if (isBasaltError(error, 'BUSY')) return false;
        throw error;
      },
    ),
  );
}

async function admittedTo(node: string, nqn: string): Promise<string[]> {
  const [found] = await bed.node(node).engine.rpc('nvmf_get_subsystems', { nqn });
  return found?.hosts.map((host) => host.nqn) ?? [];
}

async function admitted(node: string, name: string): Promise<void> {
  const { fronts = [] } = await bed.view('v1');
  const { nqn = '' } = fronts.find((front) => front.hosts.includes(hostnqn(name))) ?? {};
  await eventually(`${node} admits ${name}`, async () => (await admittedTo(node, nqn)).includes(hostnqn(name)));
}

async function leaving(): Promise<string[]> {
  const { state } = await readState(bed.connect());
  const [volume] = state.all('volumes').filter((each) => each.fronts !== undefined);
  return volume?.hostFronts?.filter((entry) => entry.leaving === true).map(({ host }) => host) ?? [];
}

const write = (view: VolumeView, front: number, at: { block: number; fill: number; node?: string }): Promise<void> =>
  writeByFront(bed, view, { front, ...at });
const read = (_: VolumeView, front: number, block: number): Promise<number> => readByFront(bed, 'v1', { front, block });

async function wish(volumeId: string, text: string): Promise<void> {
  const change = { kind: 'put' as const, key: keys.handOver(volumeId), value: text };
  expect(await bed.connect().txn({ conditions: [], changes: [change] })).toMatchObject({ outcome: 'committed' });
}

describe('a volume with several active controllers', () => {
  it('has its legs and its fronts spread over them, and each sees what the others wrote', async () => {
    const view = await make(3, 6);
    expect(controllersOf(view)).toEqual(['c1', 'c2', 'c3']);
    expect(view.parts?.map(({ controller }) => controller)).toEqual(['c1', 'c2', 'c3']);
    expect(view.legs).toHaveLength(6);
    expect(new Set(view.fronts?.map(({ nqn }) => nqn)).size).toBe(3);
    // Every stripe, so that all parts are written through each front.
    for (let block = 0; block < 96; block += 8) await write(view, block % 3, { block, fill: (block % 250) + 1 });
    for (let block = 0; block < 96; block += 8)
      for (const front of [0, 1, 2]) expect(await read(view, front, block), `${block}`).toBe((block % 250) + 1);
  });

  it('gives each host one front, the emptiest, and the same one again when it comes back', async () => {
    await make(2);
    for (const name of ['h1', 'h2', 'h3']) await attach(name);
    const frontsWith = async (name: string): Promise<number[]> =>
      (await bed.view('v1')).fronts?.flatMap(({ hosts }, index) => (hosts.includes(hostnqn(name)) ? [index] : [])) ??
      [];
    expect([await frontsWith('h1'), await frontsWith('h2'), await frontsWith('h3')]).toEqual([[0], [1], [0]]);
    await detachVolume(bed.api, 'v1', { host: hostnqn('h1') });
    await detachVolume(bed.api, 'v1', { host: hostnqn('h2') });
    for (const name of ['h4', 'h1', 'h2']) await attach(name);
    expect([await frontsWith('h1'), await frontsWith('h2'), await frontsWith('h4')]).toEqual([[0], [1], [1]]);
    // Each host is admitted by every controller node, in the subsystem of its front alone; one path is optimized.
    const view = await bed.view('v1');
    for (const [index, front] of view.fronts?.entries() ?? []) {
      const states = front.paths.map(({ node, state }) => `${node} ${state}`);
      expect(states).toEqual(['c1', 'c2', 'c3'].map((c) => `${c} ${c === `c${index + 1}` ? 'active' : 'standby'}`));
      for (const node of ['c1', 'c2', 'c3']) {
        const seen = async (): Promise<SubsystemDescription | undefined> =>
          (await bed.node(node).engine.rpc('nvmf_get_subsystems', { nqn: front.nqn }))[0];
        const hosts = async (): Promise<string[] | undefined> => (await seen())?.hosts.map(({ nqn }) => nqn).sort();
        await expect.poll(hosts, { timeout: 10_000 }).toEqual([...front.hosts].sort());
        const subsystem = await seen();
        const optimized = subsystem?.listen_addresses.some(({ ana_state }) => ana_state === 'optimized');
        expect(optimized, `${front.nqn} at ${node}`).toBe(node === front.controller);
      }
    }
  });

  it('moves the part and the front of a controller that was killed, and keeps what was written', async () => {
    const view = await make(2);
    for (let block = 0; block < 64; block++) await write(view, block % 2, { block, fill: block + 1 });
    await bed.acquainted('c1', 'c2', 'c3');
    await bed.kill('c1');
    const after = await bed.until(
      'v1',
      'served by the others',
      (now) =>
        now.health === 'redundant' &&
        [...controllersOf(now), ...(now.parts ?? []).map((p) => p.controller)].every((c) => c !== 'c1' && c !== null),
    );
    for (let block = 0; block < 64; block++)
      for (const front of [0, 1]) expect(await read(after, front, block), `${block} by ${front}`).toBe(block + 1);
  });

  // Founding systems, S0 0.22: A gets a write and stalls, the host writes elsewhere, A wakes.
  it('refuses what a controller that stalled sends late, to its own part and to others', async () => {
    const view = await make(2);
    await bed.acquainted('c1', 'c2', 'c3');
    const stalled = bed.node('c1');
    const late = await stalled.engine.openBdev(slotName(frontId(view, 0)));
    stalled.engine.pause();
    const parked = Array.from({ length: 64 }, (_, block) => block).map((block) =>
      late.write(block * 4096, new Uint8Array(4096).fill(1)).then(
        () => 'acknowledged',
        () => 'refused',
      ),
    );
    const after = await bed.until('v1', 'the front elsewhere', (now) => {
      const all = [...controllersOf(now), ...(now.parts ?? []).map(({ controller }) => controller)];
      return now.health !== 'unserved' && all.every((name) => name !== null && name !== 'c1');
    });
    for (let block = 0; block < 64; block++) {
      expect(await read(after, 0, block)).toBe(0);
      await write(await bed.view('v1'), 0, { block, fill: 2 });
    }
    stalled.engine.resume();
    expect(new Set(await Promise.all(parked))).toEqual(new Set(['refused']));
    await late.close();
    // Were it to drive its part again, the gates of then would know nothing of what happened meanwhile.
    const exported = async (): Promise<string[]> =>
      (await stalled.engine.rpc('nvmf_get_subsystems', {}))
        .map(({ nqn }) => nqn)
        .filter((nqn) => nqn.includes(':part:'));
    await expect.poll(exported, { timeout: 10_000 }).toEqual([]);
    for (let block = 0; block < 64; block++)
      for (const front of [0, 1]) expect(await read(after, front, block), `${block}`).toBe(2);
  });

  it('serves the same bytes after everything was killed and started in another order', async () => {
    const view = await make(2);
    for (let block = 0; block < 32; block++) await write(view, 1, { block: block * 8, fill: block + 1 });
    for (const name of ['c1', 'd1', 'c2', 'd2', 'c3', 'd3']) await bed.kill(name);
    for (const name of ['c3', 'c2']) await bed.startController(name);
    for (const name of ['d3', 'd1']) await bed.startDiskNode(name);
    await bed.startController('c1');
    await bed.startDiskNode('d2');
    const after = await bed.redundant('v1');
    for (let block = 0; block < 32; block++)
      for (const front of [0, 1]) expect(await read(after, front, block * 8)).toBe(block + 1);
  });

  it('is handed over by a controller that stops, without anybody waiting for its lease', async () => {
    const view = await make(2);
    await write(view, 0, { block: 1, fill: 7 });
    await bed.stop('c2');
    const after = await bed.until(
      'v1',
      'served without c2',
      (now) => now.health === 'redundant' && !controllersOf(now).includes('c2') && !controllersOf(now).includes(null),
    );
    for (const front of [0, 1]) expect(await read(after, front, 1)).toBe(7);
  });

  it('leaves a node that is drained, whole, with its hosts looked after by others', async () => {
    const view = await make(2);
    await write(view, 0, { block: 3, fill: 9 });
    await drain(bed.api, { kind: 'node', name: 'c1' });
    const after = await bed.until(
      'v1',
      'drained from c1',
      (now) =>
        now.health === 'redundant' &&
        !now.controllers.includes('c1') &&
        controllersOf(now).every((name) => name !== null && name !== 'c1') &&
        now.parts?.every(({ controller }) => controller !== 'c1') === true,
    );
    for (const front of [0, 1]) expect(await read(after, front, 3)).toBe(9);
  });

  it('goes with everything that it is made of', async () => {
    const view = await make(2);
    // Asked for by somebody who gave it up since.
    for (const id of [frontId(view, 0), view.parts?.[1]?.id ?? ''])
      await wish(id, codecs.handOver.encode({ format: 1, volumeId: id, to: 'c3', epoch: 99 }));
    await deleteVolume(bed.api, 'v1');
    expect(bed.server.list(keys.handOvers)).toEqual([]);
    await expect(bed.view('v1')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const left = (prefix: string): string[] => bed.server.list(`/basalt/v1/${prefix}/`).map(({ key }) => key);
    const endMs = systemClock.now() + 20_000;
    while ([...left('volumes'), ...left('leadership'), ...left('observed/replicas')].length > 0) {
      if (systemClock.now() > endMs) expect([...left('volumes'), ...left('leadership')]).toEqual([]);
      await systemClock.sleep(10);
    }
    for (const node of ['c1', 'c2', 'c3']) {
      const bdevs = await bed.node(node).engine.rpc('bdev_get_bdevs', {});
      expect(bdevs.filter(({ name }) => name.includes(frontId(view, 0)))).toEqual([]);
    }
  });

  it('takes no other host before the one that was detached is let go by the controller that served it', async () => {
    await make(2);
    await attach('h1');
    await admitted('c1', 'h1');
    let open = (): void => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    let asked = false;
    bed.intercept('c1', 'nvmf_subsystem_remove_host', () => {
      asked = true;
      return opened;
    });
    await attach('h2');
    await detachVolume(bed.api, 'v1', {});
    // By the front of the other one, which does let go of its own.
    await eventually('c1 was asked', () => asked);
    await eventually('c2 has let go', async () => (await leaving()).join() === hostnqn('h1'));
    for (const name of ['h2', 'h3']) {
      const attached = attachVolume(bed.api, 'v1', { host: hostnqn(name) });
      if (name === 'h2') await expect(attached).rejects.toMatchObject({ code: 'BUSY' });
      // The emptiest front is the first one's: there it waits its turn.
      else await attached;
    }
    open();
    await attachPatiently(bed.api, systemClock, { name: 'v1', request: { host: hostnqn('h2') } });
    expect(await leaving()).toEqual([]);
  });

  it('takes another host when the controller of the one that was detached is gone, and its front is served by the next', async () => {
    await make(2);
    for (const name of ['h1', 'h2']) await attach(name);
    await admitted('c1', 'h1');
    await bed.acquainted('c1', 'c2', 'c3');
    bed.intercept('c1', 'nvmf_subsystem_remove_host', () => new Promise(() => {}));
    await detachVolume(bed.api, 'v1', { host: hostnqn('h1') });
    await detachVolume(bed.api, 'v1', { host: hostnqn('h2') });
    await expect(attachVolume(bed.api, 'v1', { host: hostnqn('h2') })).rejects.toMatchObject({ code: 'BUSY' });
    await bed.kill('c1');
    await attach('h2');
    expect(controllersOf(await bed.view('v1'))).not.toContain('c1');
  });

  it('lets no host in by a controller that takes over and has not heard that it was let go', async () => {
    await bed.create({ name: 'v1', active: 2, legs: 2, controllers: ['c1', 'c2'] });
    const view = await bed.until('v1', 'served', (now) => now.health === 'redundant' && isSpread(now));
    for (const name of ['h1', 'h2']) await attach(name);
    await bed.acquainted('c1', 'c2');
    const front = view.fronts?.[0]?.nqn ?? '';
    const { engine } = bed.node('c2');
    const hosts = (): Promise<string[]> => admittedTo('c2', front);
    await admitted('c2', 'h1');
    const key = keys.volume(view.id);
    late = { node: 'c2', key, asked: 0 };
    await detachVolume(bed.api, 'v1', { host: hostnqn('h1') });
    await eventually('c1 lets it go', async () => (await leaving()).length === 0);
    const isOptimized = async (): Promise<boolean> =>
      (await engine.rpc('nvmf_get_subsystems', { nqn: front }))[0]?.listen_addresses.some(
        ({ ana_state }) => ana_state === 'optimized',
      ) === true;
    await bed.kill('c1');
    const { asked } = late;
    await eventually('c2 takes the front', async () => (await isOptimized()) || (late?.asked ?? 0) >= asked + 2);
    const served = await isOptimized();
    expect(served && (await hosts()).includes(hostnqn('h1'))).toBe(false);
    late = null;
    // Anything that happens brings along what was late.
    await detachVolume(bed.api, 'v1', { host: hostnqn('h2') });
    await eventually('c2 serves the front', isOptimized);
    expect(await hosts()).toEqual([]);
  });

  it('is encrypted by its fronts under one key, above its parts, and served by nobody who lacks that', async () => {
    await bed.create({ name: 'v1', active: 2, legs: 2, controllers: ['c1', 'c2', 'c3'], encrypt: true });
    const view = await bed.until('v1', 'served by all', (now) => now.health === 'redundant' && isSpread(now));
    for (let block = 0; block < 64; block++) await write(view, block % 2, { block, fill: 7 });
    for (let block = 0; block < 64; block++) expect(await read(view, (block + 1) % 2, block)).toBe(7);
    for (const part of view.parts ?? []) {
      const handle = await bed.node(part.controller ?? '').engine.openBdev(slotName(part.id));
      const found = new Uint8Array(16 * 4096);
      await handle.read(0, found);
      await handle.close();
      for (let at = 0; at < found.length; at += 4096)
        expect(found.subarray(at, at + 4096).every((byte) => byte === 7 || byte === 0)).toBe(false);
    }
    // After a change of the cluster key too; c2 has not got the new one, and leaves to who has the front that is taken over,
    // and its own, which has to be made anew over the part that moves.
    bed.nodeKeys.set('c2', new MemoryKeys());
    const before = view.encryptedBy;
    await rotateClusterKey(bed.api);
    expect((await bed.view('v1')).encryptedBy).not.toBe(before);
    await bed.acquainted('c1', 'c2', 'c3');
    await bed.kill('c1');
    const isElsewhere = (now: VolumeView): boolean =>
      controllersOf(now).join() === 'c3,c3' && now.health !== 'unserved';
    const after = await bed.until('v1', 'served by who has the key', isElsewhere);
    for (let block = 0; block < 64; block++)
      for (const front of [0, 1]) expect(await read(after, front, block)).toBe(7);
  });

  it('is refused what it cannot do yet, by name', async () => {
    await make(2);
    const refused = { code: 'VOLUME_MULTI_ACTIVE' };
    await expect(attachVolume(bed.api, 'v1', { nbd: { path: '/run/x' } })).rejects.toMatchObject(refused);
    await expect(moveController(bed.api, 'v1', 'c3')).rejects.toMatchObject(refused);
    await expect(scrubVolume(bed.api, 'v1', {})).rejects.toMatchObject(refused);
    await expect(changePool(bed.api, 'v1', { pool: 'default' })).rejects.toMatchObject(refused);
    const undivided = bed.create({ name: 'v2', active: 2, legs: 3 });
    await expect(undivided).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', fields: { field: 'active' } });
    const few = bed.create({ name: 'v2', active: 3, legs: 3, controllers: ['c1', 'c2'] });
    await expect(few).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', fields: { field: 'active' } });
  });
});
