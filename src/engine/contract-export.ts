// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of a part that several fronts write through gates of their own (decision 020); part of the
// engine contract (contract.ts).

import { expect, it } from 'vitest';
import { expectRefusal } from './contract-tools.js';
import type { BdevHandle, Engine } from './engine.js';

const hostnqn = 'nqn.2025-01.io.basalt:controller:test';
const replicaNqn = 'nqn.2025-01.io.basalt:replica:r1';
const linkNqn = 'nqn.2025-01.io.basalt:node-link';
const frontNqn = (front: string): string => `nqn.2025-01.io.basalt:part:p:${front}`;
const at = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1' } as const;
const uuid = '00000000-0000-0000-0000-0000000000bb';
const blocks = 1024;

interface Served {
  readonly engine: Engine;
  readonly trsvcid: string;
}

async function listen(engine: Engine, nqn: string, trsvcid: string): Promise<string> {
  return (await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: { ...at, trsvcid } })).trsvcid;
}

async function serveReplica(engine: Engine, path: string): Promise<Served> {
  const file = { filename: path, block_size: 4096, create_bytes: 64 * 2 ** 20, buffered: true };
  await engine.rpc('bdev_aio_create', { name: 'disk', ...file });
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  await engine.rpc('bdev_lvol_create', { lvol_name: 'r1', size_in_mib: 8, lvs_name: 'lvs', thin_provision: true });
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  await engine.rpc('nvmf_create_subsystem', { nqn: replicaNqn, serial_number: 'REPLICA', internal: true });
  await engine.rpc('nvmf_subsystem_add_host', { nqn: replicaNqn, host: hostnqn });
  const namespace = { bdev_name: 'lvs/r1', one_writer: true };
  await engine.rpc('nvmf_subsystem_add_ns', { nqn: replicaNqn, namespace });
  return { engine, trsvcid: await listen(engine, replicaNqn, '0') };
}

async function attach(from: Engine, to: Served, as: { name: string; subnqn: string; epoch: number }): Promise<void> {
  const where = { traddr: at.traddr, trsvcid: to.trsvcid, hostnqn, link_nqn: linkNqn };
  await from.rpc('basalt_member_attach', { ...as, ...where, timeout_ms: 5000, command_timeout_ms: 3000 });
}

/** member → leg → raid0 → slot, of one member. */
async function stack(engine: Engine, member: string, epoch: number): Promise<void> {
  const leg = { name: `leg-${epoch}`, epoch, members: [{ name: member, in_sync: true }], all_dirty: false };
  await engine.rpc('basalt_leg_create', { ...leg, lease_ms: 300 });
  const raid = { name: `raid-${epoch}`, raid_level: 'raid0' as const, base_bdevs: [leg.name], strip_size_kb: 64 };
  await engine.rpc('bdev_raid_create', raid);
  await engine.rpc('basalt_slot_create', { name: 'slot', num_blocks: blocks, block_size: 4096, uuid }).catch(() => {});
  await engine.rpc('basalt_slot_set', { name: 'slot', bdev_name: raid.name });
}

/** Drives the part over that replica, and has an export of it for each front, which obeys no epoch below. */
async function servePart(
  engine: Engine,
  replica: Served,
  wish: { epoch: number; fronts: Readonly<Record<string, number>> },
): Promise<Served> {
  await attach(engine, replica, { name: `m-${wish.epoch}`, subnqn: replicaNqn, epoch: wish.epoch });
  await stack(engine, `m-${wish.epoch}`, wish.epoch);
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' }).catch(() => {});
  await engine.rpc('nvmf_create_subsystem', { nqn: linkNqn, internal: true, node_link: true });
  await engine.rpc('nvmf_subsystem_add_host', { nqn: linkNqn, host: hostnqn });
  const trsvcid = await listen(engine, linkNqn, '0');
  for (const [front, epoch] of Object.entries(wish.fronts)) {
    const nqn = frontNqn(front);
    await engine.rpc('nvmf_create_subsystem', { nqn, serial_number: 'PART', internal: true });
    await engine.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn });
    await engine.rpc('nvmf_subsystem_add_ns', {
      nqn,
      namespace: { bdev_name: 'slot', one_writer: true, gate_epoch: epoch },
    });
    await listen(engine, nqn, trsvcid);
  }
  return { engine, trsvcid };
}

const filled = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

async function firstByte(handle: BdevHandle, offset: number): Promise<number | undefined> {
  const back = new Uint8Array(4096);
  await handle.read(offset, back);
  return back[0];
}

export function partExports(start: () => Engine, diskPath: (name: string) => string): void {
  it('lets several fronts write one part at once, and shuts an earlier epoch of one of them out', async () => {
    const replica = await serveReplica(start(), diskPath('d0'));
    const part = await servePart(start(), replica, { epoch: 4, fronts: { a: 7, b: 2 } });
    const [a, b, next] = [start(), start(), start()];
    const below = attach(a, part, { name: 'early', subnqn: frontNqn('a'), epoch: 6 });
    await expectRefusal(below, 'fenced', '7');
    await attach(a, part, { name: 'm', subnqn: frontNqn('a'), epoch: 7 });
    await attach(b, part, { name: 'm', subnqn: frontNqn('b'), epoch: 2 });
    await stack(a, 'm', 7);
    await stack(b, 'm', 2);
    const [fromA, fromB] = [await a.openBdev('slot'), await b.openBdev('slot')];
    await fromA.write(0, filled(1));
    await fromB.write(4096, filled(2));
    expect(await firstByte(fromA, 4096)).toBe(2);
    expect(await firstByte(fromB, 0)).toBe(1);
    // The front of a host that went to another node: what its first controller still has is refused.
    await attach(next, part, { name: 'm', subnqn: frontNqn('a'), epoch: 8 });
    await stack(next, 'm', 8);
    const fromNext = await next.openBdev('slot');
    await fromNext.write(0, filled(3));
    await expect(fromA.write(0, filled(1))).rejects.toMatchObject({ isPathError: true });
    await fromB.write(4096, filled(4));
    expect(await firstByte(fromNext, 0)).toBe(3);
    expect(await firstByte(fromNext, 4096)).toBe(4);
    await Promise.all([fromA, fromB, fromNext].map((handle) => handle.close()));
  });

  it('lets nothing through a part whose replica obeys another controller, whatever its fronts hold', async () => {
    const replica = await serveReplica(start(), diskPath('d0'));
    const old = await servePart(start(), replica, { epoch: 4, fronts: { a: 7 } });
    const front = start();
    await attach(front, old, { name: 'm', subnqn: frontNqn('a'), epoch: 7 });
    await stack(front, 'm', 7);
    const early = await front.openBdev('slot');
    await early.write(0, filled(1));
    const owner = await servePart(start(), replica, { epoch: 5, fronts: { a: 7 } });
    const late = start();
    await attach(late, owner, { name: 'm', subnqn: frontNqn('a'), epoch: 8 });
    await stack(late, 'm', 8);
    const handle = await late.openBdev('slot');
    await handle.write(0, filled(2));
    // The old owner's gate still has it as its holder; the owner itself is refused.
    let ended = false;
    const writing = early.write(0, filled(9)).then(
      () => expect.unreachable('it was acknowledged'),
      () => {
        ended = true;
      },
    );
    expect(await firstByte(handle, 0)).toBe(2);
    await front.rpc('basalt_leg_fence', { name: 'leg-7' });
    await writing;
    expect(ended).toBe(true);
    expect(await firstByte(handle, 0)).toBe(2);
    await Promise.all([early, handle].map((each) => each.close()));
  });

  it('keeps the gate with the namespace, and nothing of it below', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm', num_blocks: 256, block_size: 4096 });
    await engine.rpc('nvmf_create_subsystem', { nqn: frontNqn('a'), internal: true });
    const nqn = frontNqn('a');
    const add = (more: object): Promise<number> =>
      engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm', ...more } });
    await expectRefusal(add({ gate_epoch: 3 }), 'invalidParams', 'gate_epoch');
    await expectRefusal(add({ gate_epoch: 0, one_writer: true }), 'invalidParams', 'gate_epoch');
    // A bdev that keeps no attribute has no gate of its own.
    await expectRefusal(add({ one_writer: true }), 'unsupported', 'm');
    expect(await add({ gate_epoch: 3, one_writer: true })).toBe(1);
    expect(await engine.rpc('nvmf_get_subsystems', { nqn })).toMatchObject([{ namespaces: [{ one_writer: true }] }]);
  });
}
