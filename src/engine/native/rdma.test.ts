// SPDX-License-Identifier: Apache-2.0
//
// Goal: the engine's methods offer NVMe/RDMA as they do TCP. Method: two engines over simulated adapters; a real engine on a
// machine that may have no adapter.

import { afterEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine.js';
import { createNativeEngine } from './native-engine.js';
import { SimClockwork } from './sim-clockwork.js';
import { createSimWorld } from './sim-world.js';

const nqn = 'nqn.2026-01.io.basalt:test:rdma';
const address = { trtype: 'RDMA', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '4420' } as const;

const open: Engine[] = [];
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close();
});

describe("NVMe/RDMA by the engine's methods", () => {
  it('serves a bdev to another engine, which finds what it wrote', async () => {
    const world = createSimWorld({ seed: 5n });
    const clockwork = new SimClockwork(world);
    const run = <T>(promise: Promise<T>): Promise<T> => clockwork.wait(promise);
    const target = world.createEngine('t', { clock: clockwork.time.clock() });
    const host = world.createEngine('h', { clock: clockwork.time.clock() });
    await run(target.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 1024, block_size: 4096 }));
    await run(target.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true }));
    await run(target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm0' } }));
    const listen = (listen_address: typeof address | { trtype: 'RDMA'; traddr: string; trsvcid: string }) =>
      run(target.rpc('nvmf_subsystem_add_listener', { nqn, listen_address }));
    await expect(listen(address)).rejects.toThrow('nvmf_create_transport');
    await run(target.rpc('nvmf_create_transport', { trtype: 'RDMA' }));
    await expect(run(target.rpc('nvmf_create_transport', { trtype: 'RDMA' }))).rejects.toThrow('exists');
    await expect(listen({ trtype: 'RDMA', traddr: '192.0.2.1', trsvcid: '4420' })).rejects.toThrow('trusted');
    await listen(address);

    const path = { name: 'c', ...address, subnqn: nqn };
    const attach = (more: object) => run(host.rpc('bdev_nvme_attach_controller', { ...path, ...more }));
    await expect(attach({ hdgst: true })).rejects.toThrow('hdgst');
    const [bdev = ''] = await attach({});
    const handle = await run(host.openBdev(bdev));
    const data = Buffer.alloc(64 * 4096).map((_, index) => index * 31);
    await run(handle.write(0, data));
    const back = Buffer.alloc(data.length);
    await run(handle.read(0, back));
    expect(back.equals(data)).toBe(true);
    await run(handle.close());

    const [seen] = await run(target.rpc('nvmf_get_transports', {}));
    expect(seen).toMatchObject({ trtype: 'RDMA', connections: 2, rdma: { rejected: 0, broken: 0, copied_bytes: 0 } });
    const [controller] = await run(host.rpc('bdev_nvme_get_controllers', {}));
    expect(controller?.ctrlrs).toEqual([expect.objectContaining({ trtype: 'RDMA', state: 'live' })]);
    const [subsystem] = await run(target.rpc('nvmf_get_subsystems', { nqn }));
    expect(subsystem?.listen_addresses).toEqual([expect.objectContaining(address)]);
    await run(host.close());
    await run(target.close());
  });

  it('is refused in one line, or there, on a real machine', async () => {
    const engine = createNativeEngine({});
    open.push(engine);
    const made = engine.rpc('nvmf_create_transport', { trtype: 'RDMA' }).then(
      () => 'there',
      (error: unknown) => String(error),
    );
    expect(await made).toMatch(/^there$|there is no RDMA[^\n]*$/);
  });
});
