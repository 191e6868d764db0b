// SPDX-License-Identifier: Apache-2.0
// Whole clusters on the memory store and fake engines: who serves what, after whatever happened.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { isGrantInstance } from '../model/grant.js';
import type { Leadership } from '../model/objects.js';
import { ClusterBed } from './testing/cluster-bed.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
});

afterEach(() => bed.close());

describe('a volume', () => {
  it('is made, served by the first controller, and keeps what is written', async () => {
    await bed.create({ name: 'v1' });
    const view = await bed.redundant('v1');
    expect(view).toMatchObject({ epoch: 1, controller: 'c1', phase: 'live' });
    expect(view.paths.map((path) => [path.node, path.state])).toEqual([
      ['c1', 'active'],
      ['c2', 'standby'],
    ]);
    await bed.write('c1', 'v1', 0, 7);
    expect(await bed.read('c1', 'v1', 0)).toBe(7);
    expect(await bed.read('c1', 'v1', 1)).toBe(0);
  });

  it('is served by the standby, one epoch higher, after its controller was killed', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    for (let block = 0; block < 64; block++) await bed.write('c1', 'v1', block, block + 1);
    await bed.kill('c1');
    const view = await bed.served('v1', 'c2');
    expect(view.epoch).toBe(2);
    for (let block = 0; block < 64; block++) expect(await bed.read('c2', 'v1', block)).toBe(block + 1);
    await bed.redundant('v1');
  });

  // The set may go back to the one before, and nobody may have written anything under it then.
  it('is made of who is left only when these keep that they are', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    const rpc = vi.spyOn(bed.node('c2').engine, 'rpc');
    await Promise.all([bed.kill('d1'), bed.kill('c1')]);
    await bed.served('v1', 'c2');
    const asked = rpc.mock.calls.map(([method]) => method);
    expect(asked).toContain('basalt_leg_create');
    const made = asked.indexOf('basalt_leg_create');
    expect(asked.slice(0, made)).toContain('basalt_member_write_note');
    expect(asked.slice(made)).not.toContain('basalt_member_write_note');
  });

  it('goes on without a disk node that was killed, and comes back to full redundancy by itself', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.write('c1', 'v1', 3, 1);
    await bed.kill('d1');
    for (let block = 0; block < 64; block++) await bed.write('c1', 'v1', block, 9);
    const degraded = await bed.view('v1');
    expect(degraded.health).toBe('degraded');
    expect(degraded.epoch).toBe(1);
    await bed.startDiskNode('d1');
    await bed.redundant('v1');
    await bed.kill('d2');
    await bed.kill('d3');
    // What d1 holds now is all that is left of its legs: it must be what was acknowledged without it.
    const view = await bed.view('v1');
    const onD1 = view.legs.flatMap((leg, index) => (leg.some((entry) => entry.node === 'd1') ? [index] : []));
    expect(onD1.length).toBeGreaterThan(0);
    for (const leg of onD1) expect(await bed.read('c1', 'v1', leg * 16)).toBe(9);
  });

  it('is handed over clean on a stop, without a resync', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.write('c1', 'v1', 0, 5);
    const left: unknown[] = [];
    const watch = bed.connect().watch('/basalt/v1/leadership/', bed.server.revision + 1);
    const watching = (async () => {
      for await (const batch of watch) {
        for (const event of batch.kind === 'events' ? batch.events : []) {
          if (event.kind === 'put') left.push(JSON.parse(event.entry.value.toString()));
        }
      }
    })();
    await bed.stop('c1');
    const view = await bed.served('v1', 'c2');
    expect(view).toMatchObject({ epoch: 2, health: 'redundant' });
    watch.close();
    await watching;
    // One swap for all of it: c2 serves under the epoch that was drawn for its process.
    expect(left[0]).toMatchObject({ epoch: 2, controller: 'c2', clean: false });
    expect(isGrantInstance((left[0] as Leadership).instance, 2)).toBe(true);
    expect(left).toHaveLength(1);
    expect(await bed.read('c2', 'v1', 0)).toBe(5);
  });

  it('serves the same bytes after everything was killed and started in another order', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    for (let block = 0; block < 32; block++) await bed.write('c1', 'v1', block, block + 1);
    for (const name of ['c1', 'd1', 'c2', 'd2', 'd3']) await bed.kill(name);
    await bed.startController('c2');
    await bed.startDiskNode('d3');
    await bed.startDiskNode('d1');
    await bed.startController('c1');
    await bed.startDiskNode('d2');
    const { controller } = await bed.redundant('v1');
    for (let block = 0; block < 32; block++) expect(await bed.read(controller ?? '', 'v1', block)).toBe(block + 1);
  });

  it('waits while every replica of a leg is away, and goes on when one is back', async () => {
    await bed.create({ name: 'v1', legs: 1 });
    const view = await bed.redundant('v1');
    const holders = view.legs[0]?.map((entry) => entry.node) ?? [];
    await bed.write('c1', 'v1', 0, 6);
    for (const name of holders) await bed.kill(name);
    await bed.until('v1', 'waiting', (now) => now.health === 'unserved');
    for (const name of holders) await bed.startDiskNode(name);
    const { controller } = await bed.redundant('v1');
    expect(await bed.read(controller ?? '', 'v1', 0)).toBe(6);
  });

  it('goes on while the store is away, and shrinks when the store is back', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    bed.server.away = true;
    const slot = bed
      .node('c1')
      .engine.openBdev(`slot-${bed.server.list('/basalt/v1/volumes/')[0]?.key.split('/').at(-1)}`);
    const handle = await slot;
    await handle.write(0, new Uint8Array(4096).fill(1));
    await bed.kill('d1');
    let acknowledged = false;
    const waiting = handle.write(0, new Uint8Array(64 * 4096).fill(2)).then(() => {
      acknowledged = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(acknowledged).toBe(false);
    bed.server.away = false;
    await waiting;
    await handle.close();
    const view = await bed.view('v1');
    expect(
      view.legs
        .flat()
        .filter((entry) => entry.node === 'd1')
        .every((entry) => entry.state === 'out'),
    ).toBe(true);
  });
});

describe('a controller that was stopped and let go', () => {
  it('is fenced, serves nothing, and stands by', async () => {
    await bed.create({ name: 'v1' });
    await bed.redundant('v1');
    await bed.acquainted('c1', 'c2');
    const c1 = bed.node('c1');
    c1.engine.pause();
    const { epoch } = await bed.served('v1', 'c2');
    expect(epoch).toBe(2);
    await bed.write('c2', 'v1', 0, 2);
    c1.engine.resume();
    await expect(bed.write('c1', 'v1', 0, 1)).rejects.toThrow();
    await bed.until('v1', 'a standby', (view) => view.paths.find((path) => path.node === 'c1')?.state === 'standby');
    expect(await bed.read('c2', 'v1', 0)).toBe(2);
    expect((await bed.view('v1')).controller).toBe('c2');
  });
});
