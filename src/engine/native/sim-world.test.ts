// SPDX-License-Identifier: Apache-2.0
//
// Goal: native engines in a simulated world do as they are told, in virtual time, the same every time.
// Method: two engines, a target and its host, driven by hand.

import { describe, expect, it } from 'vitest';
import { quiet } from '../../env/virtual-clock.js';
import type { Engine } from '../engine.js';
import { loadAddon } from './addon.js';
import { SimClockwork } from './sim-clockwork.js';
import { createSimWorld, type SimWorld, type SimWorldOptions } from './sim-world.js';

const nqn = 'nqn.2026-01.io.basalt:test:sim';
const address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '4420' } as const;

class Bench {
  readonly world: SimWorld;
  readonly clockwork: SimClockwork;

  constructor(seed: bigint, knobs: Partial<SimWorldOptions> = {}) {
    this.world = createSimWorld({ ...knobs, seed });
    this.clockwork = new SimClockwork(this.world);
  }

  engine(node: string): Engine {
    return this.world.createEngine(node, { clock: this.clockwork.time.clock() });
  }

  run<T>(promise: Promise<T>, limitMs?: number): Promise<T> {
    return this.clockwork.wait(promise, limitMs);
  }

  async target(node: string): Promise<Engine> {
    const engine = this.engine(node);
    await this.run(
      engine.rpc('bdev_aio_create', { name: 'a0', filename: '/disk', block_size: 4096, create_bytes: 1 << 24 }),
    );
    await this.run(engine.rpc('nvmf_create_transport', { trtype: 'TCP' }));
    await this.run(engine.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true }));
    await this.run(engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'a0' } }));
    await this.run(engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: address }));
    return engine;
  }
}

interface Story {
  readonly hash: bigint;
  readonly nowNs: number;
  readonly links: SimWorld['linkCounts'];
}

async function story(seed: bigint, way: Parameters<SimWorld['setLink']>[2] | null = null): Promise<Story> {
  const bench = new Bench(seed);
  const target = await bench.target('t');
  const host = bench.engine('h');
  if (way !== null) bench.world.setLink('h', 't', way);
  const [bdev = ''] = await bench.run(
    host.rpc('bdev_nvme_attach_controller', { name: 'c', ...address, subnqn: nqn, keep_alive_ms: 500 }),
  );
  const handle = await bench.run(host.openBdev(bdev));
  for (let block = 0; block < 20; block++) await bench.run(handle.write(block * 4096, Buffer.alloc(4096, block + 1)));
  const back = Buffer.alloc(20 * 4096);
  await bench.run(handle.read(0, back));
  for (let block = 0; block < 20; block++) expect(back[block * 4096 + 7]).toBe(block + 1);
  await bench.run(handle.close());
  await bench.run(host.close());
  await bench.run(target.close());
  return { hash: bench.world.traceHash(), nowNs: bench.world.nowNs, links: bench.world.linkCounts };
}

/** Of a block whose writer was killed before its disk answered. */
async function leftOfAWrite(seed: bigint, diskAtomicBytes: number): Promise<'old' | 'new' | 'torn'> {
  const bench = new Bench(seed, { diskAtomicBytes });
  const file = { name: 'a0', filename: '/disk', block_size: 4096 };
  const writer = bench.engine('t');
  await bench.run(writer.rpc('bdev_aio_create', { ...file, create_bytes: 1 << 20 }));
  const handle = await bench.run(writer.openBdev('a0'));
  bench.world.setDisk('t', '/disk', { extraDelayNs: 5e9 });
  handle.write(0, Buffer.alloc(4096, 7)).catch(() => {});
  await bench.run(writer.rpc('bdev_get_bdevs', {}));
  await bench.clockwork.step(1e9);
  bench.world.kill('t');
  bench.world.setDisk('t', '/disk', {});
  const reader = bench.engine('t');
  await bench.run(reader.rpc('bdev_aio_create', file));
  const back = Buffer.alloc(4096);
  await bench.run((await bench.run(reader.openBdev('a0'))).read(0, back));
  bench.world.kill('t');
  if (back.every((byte) => byte === 0)) return 'old';
  return back.every((byte) => byte === 7) ? 'new' : 'torn';
}

describe('engines in a simulated world', () => {
  it('move bytes over simulated sockets and disks, the same for the same seed', async () => {
    const first = await story(1n);
    expect(await story(1n)).toEqual(first);
    expect((await story(2n)).hash).not.toBe(first.hash);
  });

  it('wait for what is lost on a way, and for a way that is long', async () => {
    const direct = await story(1n);
    expect(direct.links).toEqual({ lost: 0, slowed: 0 });
    const lossy = await story(1n, { lossChance: 0.5, retransmitNs: 1e6, extraDelayNs: 0 });
    expect(lossy.links.lost).toBeGreaterThan(5);
    expect(lossy.links.slowed).toBe(0);
    expect(lossy.nowNs - direct.nowNs).toBeGreaterThan(5e6);
    const long = await story(1n, { lossChance: 0, retransmitNs: 1, extraDelayNs: 1e6 });
    expect(long.links.lost).toBe(0);
    // Each of the writes, and what comes before and after them.
    expect(long.nowNs - direct.nowNs).toBeGreaterThan(20e6);
  });

  it('refuse ways that are none', () => {
    const { world } = new Bench(1n);
    world.createEngine('t', { clock: new SimClockwork(world).time.clock() });
    const way = { lossChance: 0.1, retransmitNs: 1e6, extraDelayNs: 0 };
    expect(() => world.setLink('t', 'nobody', way)).toThrow('node: must be a node of this world');
    for (const wrong of [{ lossChance: 1.1 }, { lossChance: -1 }, { lossChance: Number.NaN }, { retransmitNs: 0 }])
      expect(() => world.setLink('t', 't', { ...way, ...wrong }), JSON.stringify(wrong)).toThrow(TypeError);
    world.kill('t');
  });

  it('let no time pass while nothing is asked to pass', async () => {
    const bench = new Bench(3n);
    const engine = bench.engine('t');
    const answer = engine.rpc('bdev_get_bdevs', {});
    let answered = false;
    void answer.then(() => {
      answered = true;
    });
    await quiet();
    expect(answered).toBe(false);
    expect(await bench.run(answer)).toEqual([]);
    expect(bench.world.nowNs).toBe(1000e9);
  });

  it('never answer once they are killed, and keep their disk for the next process of the node', async () => {
    const bench = new Bench(4n);
    const target = await bench.target('t');
    const handle = await bench.run(target.openBdev('a0'));
    await bench.run(handle.write(0, Buffer.alloc(4096, 7)));
    const unanswered = target.rpc('bdev_get_bdevs', {});
    bench.world.kill('t');
    await expect(bench.run(unanswered, 1000)).rejects.toThrow('not settled');
    await expect(target.rpc('bdev_get_bdevs', {})).rejects.toThrow('closed');
    const again = bench.engine('t');
    await bench.run(again.rpc('bdev_aio_create', { name: 'a0', filename: '/disk', block_size: 4096 }));
    const second = await bench.run(again.openBdev('a0'));
    const back = Buffer.alloc(4096);
    await bench.run(second.read(0, back));
    expect(back.every((byte) => byte === 7)).toBe(true);
    bench.world.kill('t');
  });

  it('stand still while they are paused', async () => {
    const bench = new Bench(5n);
    const engine = bench.engine('t');
    bench.world.pause('t');
    const answer = engine.rpc('bdev_get_bdevs', {});
    await expect(bench.run(answer, 1000)).rejects.toThrow('not settled');
    bench.world.resume('t');
    expect(await bench.run(answer)).toEqual([]);
  });

  it.each([
    { diskAtomicBytes: 512, torn: true },
    { diskAtomicBytes: 4096, torn: false },
  ])('tear a block that a killed process was writing: $torn, by units of $diskAtomicBytes bytes', async (wanted) => {
    const found = new Set<string>();
    for (let seed = 1n; seed <= 24n; seed++) found.add(await leftOfAWrite(seed, wanted.diskAtomicBytes));
    expect(found.has('torn')).toBe(wanted.torn);
    expect(found).toContain('old');
    expect(found).toContain('new');
  });

  it('refuse names that nobody has, and a second living process on a node', async () => {
    const bench = new Bench(6n);
    bench.engine('t');
    expect(() => bench.engine('t')).toThrow(TypeError);
    expect(() => bench.world.kill('x')).toThrow(TypeError);
    expect(() => bench.world.partition('t', 'x')).toThrow(TypeError);
    bench.world.kill('t');
    expect(() => bench.world.kill('t')).toThrow(TypeError);
  });

  it('count the rare events of native code, one counter at a time', async () => {
    const { MarkCounter } = loadAddon();
    const counter = new MarkCounter();
    expect(() => new MarkCounter()).toThrow('another MarkCounter counts');
    const count = (wanted: string): number => counter.counts().find(({ name }) => name === wanted)?.count ?? -1;
    const bench = new Bench(7n);
    const target = await bench.target('t');
    const handle = await bench.run(target.openBdev('a0'));
    expect(count('fault_disk_failed')).toBe(0);
    bench.world.setDisk('t', '/disk', { failWrites: true });
    await expect(bench.run(handle.write(0, Buffer.alloc(4096)))).rejects.toThrow();
    expect(count('fault_disk_failed')).toBe(1);
    bench.world.kill('t');
  });

  it('have disks that are read and damaged behind their backs', async () => {
    const bench = new Bench(8n);
    const target = await bench.target('t');
    const handle = await bench.run(target.openBdev('a0'));
    await bench.run(handle.write(4096, Buffer.alloc(8192, 7)));
    const at = (offsetBytes: number) => ({ offsetBytes, bytes: Buffer.alloc(4096) });
    const seen = at(4096);
    bench.world.readDisk('t', '/disk', seen);
    expect(seen.bytes.every((byte) => byte === 7)).toBe(true);
    bench.world.damageDisk('t', '/disk', { offsetBytes: 4096, how: 'changed' });
    bench.world.damageDisk('t', '/disk', { offsetBytes: 8192, how: 'unreadable' });
    const back = Buffer.alloc(4096);
    await bench.run(handle.read(4096, back));
    expect([back[0], back[1]]).toEqual([6, 7]);
    await expect(bench.run(handle.read(8192, back))).rejects.toThrow();
    await bench.run(handle.write(8192, Buffer.alloc(4096, 8)));
    await bench.run(handle.read(8192, back));
    expect(back[0]).toBe(8);
    for (const offsetBytes of [-1, (1 << 24) - 4095, 1 << 30]) {
      expect(() => bench.world.readDisk('t', '/disk', at(offsetBytes))).toThrow(TypeError);
      expect(() => bench.world.damageDisk('t', '/disk', { offsetBytes, how: 'changed' })).toThrow(TypeError);
    }
    bench.world.kill('t');
  });

  it('refuse units of disks that are no sectors', () => {
    for (const diskAtomicBytes of [0, 100, 513, -512])
      expect(() => createSimWorld({ seed: 7n, diskAtomicBytes })).toThrow(TypeError);
  });
});
