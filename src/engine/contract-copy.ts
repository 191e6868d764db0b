// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of basalt_bdev_copy, and of reading what another engine exports; part of the engine
// contract (contract.ts).

import { expect, it } from 'vitest';
import { expectRefusal } from './contract-tools.js';
import type { Engine } from './engine.js';

const hostnqn = 'nqn.2025-01.io.basalt:controller:test';
const nqn = 'nqn.2025-01.io.basalt:copy:test';
const blockBytes = 4096;
const blocks = 2048;

async function store(engine: Engine, path: string): Promise<void> {
  const file = { filename: path, block_size: blockBytes, create_bytes: 64 * 2 ** 20, buffered: true };
  await engine.rpc('bdev_aio_create', { name: 'disk', ...file });
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  await engine.rpc('bdev_lvol_create', { lvol_name: 'a', size_in_mib: 8, lvs_name: 'lvs', thin_provision: true });
}

async function put(engine: Engine, name: string, values: Record<number, number>): Promise<void> {
  const handle = await engine.openBdev(name);
  for (const [block, value] of Object.entries(values))
    await handle.write(Number(block) * blockBytes, new Uint8Array(blockBytes).fill(value));
  await handle.close();
}

async function whole(engine: Engine, name: string): Promise<Uint8Array> {
  const handle = await engine.openBdev(name);
  const data = new Uint8Array(blocks * blockBytes);
  await handle.read(0, data);
  await handle.close();
  return data;
}

export function copies(start: () => Engine, diskPath: (name: string) => string): void {
  it('makes a lvol equal to a snapshot of another engine, and writes only what differs', async () => {
    const [from, to] = [start(), start()];
    await store(from, diskPath('from'));
    await store(to, diskPath('to'));
    await put(from, 'lvs/a', { 0: 1, 700: 2, 2047: 3 });
    await from.rpc('bdev_lvol_snapshot', { lvol_name: 'lvs/a', snapshot_name: 's' });
    await put(from, 'lvs/a', { 0: 9 });
    await from.rpc('nvmf_create_transport', { trtype: 'TCP' });
    await from.rpc('nvmf_create_subsystem', { nqn, serial_number: 'S', internal: true, max_namespaces: 1 });
    await from.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'lvs/s', nsid: 1, reservations: false } });
    const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const { traddr, trsvcid } = await from.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
    const path = { name: 'c', trtype: 'TCP', traddr, trsvcid, subnqn: nqn, hostnqn } as const;
    await expect(to.rpc('bdev_nvme_attach_controller', path)).rejects.toMatchObject({ name: 'EngineError' });
    await from.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn });
    expect(await to.rpc('bdev_nvme_attach_controller', path)).toEqual(['cn1']);
    await put(to, 'lvs/a', { 5: 5, 700: 2 });
    const copy = { source: 'cn1', target: 'lvs/a', offset_blocks: 0, num_blocks: blocks, flush: true };
    // Blocks 0 and 2047 are other data, block 5 is zero now; block 700 is equal already.
    expect(await to.rpc('basalt_bdev_copy', copy)).toEqual({ written_blocks: 3 });
    expect(Buffer.compare(await whole(to, 'lvs/a'), await whole(from, 'lvs/s'))).toBe(0);
    expect(await to.rpc('basalt_bdev_copy', copy)).toEqual({ written_blocks: 0 });
    await expectRefusal(to.rpc('basalt_bdev_copy', { ...copy, num_blocks: blocks + 1 }), 'invalid', 'blocks');
    await expectRefusal(to.rpc('basalt_bdev_copy', { ...copy, target: 'cn1' }), 'invalid', 'target');
    await expectRefusal(to.rpc('basalt_bdev_copy', { ...copy, target: 'lvs/b' }), 'notFound', 'lvs/b');
    await to.rpc('bdev_nvme_detach_controller', { name: 'c' });
    await expectRefusal(to.rpc('basalt_bdev_copy', copy), 'notFound', 'cn1');
  });

  it('refuses to write a lvol that is read only, and says so', async () => {
    const engine = start();
    await store(engine, diskPath('one'));
    await engine.rpc('bdev_lvol_create', { lvol_name: 'b', size_in_mib: 8, lvs_name: 'lvs', thin_provision: true });
    await put(engine, 'lvs/a', { 1: 1 });
    await engine.rpc('bdev_lvol_set_read_only', { name: 'lvs/b' });
    const copy = { source: 'lvs/a', target: 'lvs/b', offset_blocks: 0, num_blocks: blocks };
    await expectRefusal(engine.rpc('basalt_bdev_copy', copy), 'io', 'b');
  });
}
