// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of basalt_slot_snapshot; part of the engine contract (contract.ts).

import { expect, it } from 'vitest';
import { expectRefusal } from './contract-tools.js';
import type { Engine } from './engine.js';

const hostnqn = 'nqn.2025-01.io.basalt:controller:test';
const nqnOf = (name: string): string => `nqn.2025-01.io.basalt:replica:${name}`;
const blockBytes = 4096;
const legBlocks = 1792;

interface Bed {
  readonly disks: readonly Engine[];
  readonly addresses: readonly { traddr: string; trsvcid: string }[];
  readonly controller: Engine;
}

async function serve(engine: Engine, path: string, name: string): Promise<{ traddr: string; trsvcid: string }> {
  const file = { filename: path, block_size: blockBytes, create_bytes: 64 * 2 ** 20, buffered: true };
  await engine.rpc('bdev_aio_create', { name: 'disk', ...file });
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  await engine.rpc('bdev_lvol_create', { lvol_name: 'r', size_in_mib: 8, lvs_name: 'lvs', thin_provision: true });
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  const nqn = nqnOf(name);
  await engine.rpc('nvmf_create_subsystem', { nqn, serial_number: `INCARNATION${name}`, internal: true });
  await engine.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn });
  await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'lvs/r', one_writer: true } });
  const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '0' } as const;
  const { traddr, trsvcid } = await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
  return { traddr, trsvcid };
}

function attach(bed: Bed, at: { from: Engine; member: string; replica: number; epoch: number }): Promise<unknown> {
  const { traddr = '', trsvcid = '' } = bed.addresses[at.replica] ?? {};
  const subnqn = nqnOf(String(at.replica));
  const { member: name, epoch } = at;
  return at.from.rpc('basalt_member_attach', { name, traddr, trsvcid, subnqn, hostnqn, epoch, timeout_ms: 5000 });
}

/** Two legs of two members each, striped, behind a slot; disk nodes are engines of their own. */
async function volume(start: () => Engine, diskPath: (name: string) => string): Promise<Bed> {
  const disks = [start(), start(), start(), start()];
  const addresses = [];
  for (const [index, engine] of disks.entries())
    addresses.push(await serve(engine, diskPath(`d${index}`), String(index)));
  const bed = { disks, addresses, controller: start() };
  const { controller } = bed;
  for (let replica = 0; replica < 4; replica++)
    await attach(bed, { from: controller, member: `m${replica}`, replica, epoch: 3 });
  for (const [leg, names] of [
    ['m0', 'm1'],
    ['m2', 'm3'],
  ].entries()) {
    await controller.rpc('basalt_leg_create', {
      name: `leg${leg}`,
      epoch: 3,
      members: names.map((name) => ({ name, in_sync: true })),
      all_dirty: false,
      lease_ms: 300,
      num_blocks: legBlocks,
      identity: `v/${leg}`,
      replicas: [nqnOf(String(leg * 2)), nqnOf(String(leg * 2 + 1))],
    });
  }
  const raid = { name: 'raid', raid_level: 'raid0' as const, base_bdevs: ['leg0', 'leg1'], strip_size_kb: 64 };
  await controller.rpc('bdev_raid_create', raid);
  const uuid = '00000000-0000-0000-0000-0000000000ab';
  await controller.rpc('basalt_slot_create', { name: 'slot', num_blocks: 2 * legBlocks, block_size: blockBytes, uuid });
  return bed;
}

const members = (snapshot_name: string, names = ['m0', 'm1', 'm2', 'm3']): { name: string; snapshot_name: string }[] =>
  names.map((name) => ({ name, snapshot_name }));

async function namesOn(engine: Engine): Promise<string[]> {
  return (await engine.rpc('bdev_lvol_get_lvols', {})).map((lvol) => lvol.name).sort();
}

async function firstOf(engine: Engine, name: string): Promise<number> {
  const handle = await engine.openBdev(name);
  const block = new Uint8Array(blockBytes);
  await handle.read(0, block);
  await handle.close();
  return block[0] ?? -1;
}

export function volumeSnapshots(start: () => Engine, diskPath: (name: string) => string): void {
  it('cuts one instant of all members of all legs, while the volume goes on', async () => {
    const bed = await volume(start, diskPath);
    const { controller, disks } = bed;
    const ask = (snapshot: string, names?: string[]): Promise<{ held_us: number }> =>
      controller.rpc('basalt_slot_snapshot', { name: 'slot', members: members(snapshot, names), hold_ms: 500 });
    await expectRefusal(ask('s0'), 'busy', 'no leg');
    await controller.rpc('basalt_slot_set', { name: 'slot', bdev_name: 'raid' });
    const handle = await controller.openBdev('slot');
    const stripe = 64 * 1024;
    await handle.write(0, new Uint8Array(blockBytes).fill(1));
    await handle.write(stripe, new Uint8Array(blockBytes).fill(1));
    await expectRefusal(ask('s0', ['m0', 'm1', 'm2']), 'busy', 'others');
    await expect(ask('s0', ['m0', 'm1', 'm2'])).rejects.toMatchObject({ data: { cut: false } });
    expect((await ask('s1')).held_us).toBeLessThan(500_000);
    await handle.write(0, new Uint8Array(blockBytes).fill(2));
    await handle.write(stripe, new Uint8Array(blockBytes).fill(2));
    for (const engine of disks) {
      expect(await namesOn(engine)).toEqual(['r', 's1']);
      expect(await firstOf(engine, 'lvs/s1')).toBe(1);
      const [one] = (await engine.rpc('bdev_lvol_get_lvols', {})).filter((lvol) => lvol.name === 's1');
      expect(one).toMatchObject({ is_snapshot: true, is_read_only: true, epoch: '3' });
    }
    await expectRefusal(ask('s1'), 'invalid', 'm0');
    await expect(ask('s1')).rejects.toMatchObject({ data: { cut: true } });
    const wrong = { name: 'slot', members: [], hold_ms: 500 };
    await expectRefusal(controller.rpc('basalt_slot_snapshot', wrong), 'invalidParams', 'members');
    await handle.write(0, new Uint8Array(blockBytes).fill(3));
    expect(await firstOf(controller, 'slot')).toBe(3);
    await handle.close();
  });

  it('holds requests until all of its group are known to be held, and fails by itself when nobody says so', async () => {
    const bed = await volume(start, diskPath);
    const { controller, disks } = bed;
    await controller.rpc('basalt_slot_set', { name: 'slot', bdev_name: 'raid' });
    const handle = await controller.openBdev('slot');
    for (const stripe of [0, 64 * 1024]) await handle.write(stripe, new Uint8Array(blockBytes).fill(1));
    const ask = (group: string, hold_ms: number): { held: Promise<void>; made: Promise<{ held_us: number }> } => {
      const held = new Promise<void>((resolve) => {
        const stop = controller.on('event', ({ method, params }) => {
          if (method !== 'slot_held' || params.name !== 'slot' || params.group !== group) return;
          stop();
          resolve();
        });
      });
      const made = controller.rpc('basalt_slot_snapshot', { name: 'slot', members: members(group), hold_ms, group });
      return { held, made };
    };
    const release = (group: string): Promise<true> => controller.rpc('basalt_slot_release', { name: 'slot', group });
    await controller.rpc('basalt_slot_snapshot_prepare', { name: 'slot', members: members('g1') });
    await expectRefusal(release('g1'), 'notFound', 'not held');
    // On a machine that does much else a second may be too short.
    const holdOnce = async (group: string): Promise<boolean> => {
      const { held, made } = ask(group, 1000);
      const over = made.then(
        ({ held_us }) => held_us < 1_000_000,
        () => false,
      );
      await Promise.race([held, over]);
      let written = false;
      const writing = handle.write(0, new Uint8Array(blockBytes).fill(1)).then(() => {
        written = true;
      });
      for (const engine of disks) await namesOn(engine);
      const early = written;
      await release(group).catch(() => {});
      await writing;
      const done = await over;
      if (done) expect(early).toBe(false);
      return done;
    };
    let group = '';
    for (let attempt = 1; attempt <= 20 && group === ''; attempt++)
      if (await holdOnce(`g${attempt}`)) group = `g${attempt}`;
    expect(group).not.toBe('');
    await handle.write(0, new Uint8Array(blockBytes).fill(2));
    for (const engine of disks) expect(await firstOf(engine, `lvs/${group}`)).toBe(1);
    // Nobody releases it: what was held goes on, and it is no snapshot.
    const late = ask('late', 20);
    late.made.catch(() => {});
    const writing = handle.write(0, new Uint8Array(blockBytes).fill(3));
    await expectRefusal(late.made, 'timedOut', 'all of its group');
    await expectRefusal(release('late'), 'notFound', 'not held');
    await writing;
    expect(await firstOf(controller, 'slot')).toBe(3);
    await handle.close();
  });

  it('is refused for a controller that one replica obeys no more', async () => {
    const bed = await volume(start, diskPath);
    const { controller, disks } = bed;
    await controller.rpc('basalt_slot_set', { name: 'slot', bdev_name: 'raid' });
    // Both legs are open then.
    const handle = await controller.openBdev('slot');
    for (const stripe of [0, 64 * 1024]) await handle.write(stripe, new Uint8Array(blockBytes));
    await handle.close();
    await attach(bed, { from: start(), member: 'thief', replica: 3, epoch: 4 });
    const ask = controller.rpc('basalt_slot_snapshot', { name: 'slot', members: members('s1'), hold_ms: 500 });
    await expectRefusal(ask, 'fenced', '');
    expect(await namesOn(disks[3] as Engine)).toEqual(['r']);
  });
}
