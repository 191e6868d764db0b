// SPDX-License-Identifier: Apache-2.0
//
// Goal: createEngine({env: 'sim', seed}) gives engines whose time only step() moves, the same every time.

import { describe, expect, it } from 'vitest';
import { createEngine, type SimEngine } from './create-engine.js';

const malloc = { name: 'm0', num_blocks: 256, block_size: 4096 };
const nqn = 'nqn.2026-01.io.basalt:test:step';
const address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '4420' } as const;

/** Steps until it is there; how long that took. */
async function stepped<T>(engine: SimEngine, promise: Promise<T>): Promise<T> {
  let settled = false;
  void promise.then(() => {
    settled = true;
  });
  for (let steps = 0; !settled; steps++) {
    expect(steps).toBeLessThan(1_000);
    await engine.step(1e6);
  }
  return promise;
}

async function story(seed: bigint): Promise<{ hash: bigint; nowNs: number }> {
  const target = createEngine({ env: 'sim', seed, node: 't' });
  const host = createEngine({ env: 'sim', beside: target, node: 'h' });
  const file = { name: 'a0', filename: '/disk', block_size: 4096, create_bytes: 1 << 22 };
  await stepped(target, target.rpc('bdev_aio_create', file));
  await stepped(target, target.rpc('nvmf_create_transport', { trtype: 'TCP' }));
  await stepped(target, target.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true }));
  await stepped(target, target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'a0' } }));
  await stepped(target, target.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: address }));
  const [bdev = ''] = await stepped(
    host,
    host.rpc('bdev_nvme_attach_controller', { name: 'c', ...address, subnqn: nqn }),
  );
  const handle = await stepped(host, host.openBdev(bdev));
  await stepped(host, handle.write(0, Buffer.alloc(8192, 7)));
  const back = Buffer.alloc(8192);
  await stepped(host, handle.read(0, back));
  expect(back.every((byte) => byte === 7)).toBe(true);
  const end = { hash: target.world.traceHash(), nowNs: host.nowNs };
  for (const { node } of [host, target]) target.world.kill(node);
  return end;
}

describe('createEngine({env: "sim"})', () => {
  it('lets time go by only in step(), and exactly so much', async () => {
    const engine = createEngine({ env: 'sim', seed: 1n });
    const beganNs = engine.nowNs;
    let woke = false;
    void engine.clock.sleep(2).then(() => {
      woke = true;
    });
    const made = engine.rpc('bdev_malloc_create', malloc);
    await engine.step(1e6);
    expect(await made).toBe('m0');
    expect([engine.nowNs - beganNs, woke]).toEqual([1e6, false]);
    await engine.step(1e6);
    expect([engine.nowNs - beganNs, woke]).toEqual([2e6, true]);
    await expect(engine.step(-1)).rejects.toThrow('step: nanoseconds of at least 0, not -1');
    engine.world.kill('n1');
  });

  it('puts engines into one world, and gives one history for one seed', async () => {
    const first = await story(1n);
    expect(await story(1n)).toEqual(first);
    expect((await story(2n)).hash).not.toBe(first.hash);
  });
});

describe('createEngine()', () => {
  it('stands on the machine otherwise', async () => {
    const engine = createEngine({ memoryBytes: 64 * 1024 * 1024 });
    expect('step' in engine).toBe(false);
    expect(await engine.rpc('bdev_malloc_create', malloc)).toBe('m0');
    await engine.close();
  });
});
