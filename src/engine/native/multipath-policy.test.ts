// SPDX-License-Identifier: Apache-2.0
//
// bdev_nvme_set_multipath_policy on a live controller with two paths.

import { afterEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine.js';
import { createNativeEngine } from './native-engine.js';

const open: Engine[] = [];
function start(): Engine {
  const engine = createNativeEngine();
  open.push(engine);
  return engine;
}
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close();
});

describe('bdev_nvme_set_multipath_policy', () => {
  it('is set for a bdev, shown, and followed by what is sent from then on', async () => {
    const [target, host] = [start(), start()];
    await target.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
    await target.rpc('nvmf_create_transport', { trtype: 'TCP' });
    const nqn = 'nqn.2025-01.io.basalt:test:policy';
    await target.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
    await target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm0' } });
    const attach = { name: 'c', trtype: 'TCP', traddr: '127.0.0.1', subnqn: nqn, multipath: 'multipath' } as const;
    for (let i = 0; i < 2; i++) {
      const listen_address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
      const { trsvcid } = await target.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
      expect(await host.rpc('bdev_nvme_attach_controller', { ...attach, trsvcid })).toEqual(['cn1']);
    }
    const handle = await host.openBdev('cn1');
    const counts = async (): Promise<number[]> => {
      const [controller] = await host.rpc('bdev_nvme_get_controllers', { name: 'c' });
      return (controller?.ctrlrs ?? []).map((path) => path.io_count);
    };
    const shares = async (): Promise<number[]> => {
      const before = await counts();
      for (let i = 0; i < 40; i++) await handle.write(i * 4096, new Uint8Array(4096));
      return (await counts()).map((count, i) => count - (before[i] ?? 0));
    };
    const [controller] = await host.rpc('bdev_nvme_get_controllers', {});
    expect(controller?.bdevs).toEqual([
      { name: 'cn1', policy: 'active_active', selector: 'round_robin', rr_min_io: 1 },
    ]);
    expect(await shares()).toEqual([20, 20]);

    await host.rpc('bdev_nvme_set_multipath_policy', { name: 'cn1', policy: 'active_passive' });
    expect((await shares()).sort((a, b) => a - b)).toEqual([0, 40]);
    const wish = { name: 'cn1', policy: 'active_active', selector: 'queue_depth' } as const;
    await host.rpc('bdev_nvme_set_multipath_policy', wish);
    expect((await host.rpc('bdev_nvme_get_controllers', {}))[0]?.bdevs).toEqual([wish]);
    expect(await shares()).toEqual([20, 20]);
    await host.rpc('bdev_nvme_set_multipath_policy', { ...wish, selector: 'latency' });
    expect((await shares()).reduce((a, b) => a + b)).toBe(40);

    const set = (params: object): Promise<true> =>
      host.rpc('bdev_nvme_set_multipath_policy', { name: 'cn1', policy: 'active_active', ...params });
    await expect(set({ selector: 'queue_depth', rr_min_io: 4 })).rejects.toThrow(/rr_min_io/);
    await expect(set({ policy: 'active_passive', selector: 'latency' })).rejects.toThrow(/selector/);
    await expect(set({ name: 'm0' })).rejects.toThrow(/m0/);
    await handle.close();
  });
});
