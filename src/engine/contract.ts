// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises, as one suite: run on the fake and on the native engine. A `world` is what engines share -
// a directory for disks and a way to make engines that can reach each other.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { copies } from './contract-copy.js';
import { partExports } from './contract-export.js';
import { encryption, keys } from './contract-keys.js';
import { nodeLinks } from './contract-link.js';
import { reservations } from './contract-reservation.js';
import { scrubbing } from './contract-scrub.js';
import { volumeSnapshots } from './contract-snapshot.js';
import { expectRefusal, pattern, refusal } from './contract-tools.js';
import { type Engine, engineErrorCodes } from './engine.js';

export interface ContractWorld {
  makeEngine(): Engine;
  /** A path at which bdev_aio_create may create a disk. */
  diskPath(name: string): string;
  dispose(): Promise<void>;
}

const mib = 1024 * 1024;
const hostnqn = 'nqn.2025-01.io.basalt:controller:test';
const replicaNqn = 'nqn.2025-01.io.basalt:replica:test';

export function engineContract(name: string, makeWorld: () => Promise<ContractWorld>): void {
  describe(`engine contract: ${name}`, () => {
    let world: ContractWorld;
    const engines: Engine[] = [];
    const start = (): Engine => {
      const engine = world.makeEngine();
      engines.push(engine);
      return engine;
    };
    beforeEach(async () => {
      world = await makeWorld();
    });
    afterEach(async () => {
      for (const engine of engines.splice(0)) await engine.close();
      await world.dispose();
    });

    basics(start);
    encryption(start);
    storage(start, () => world);
    snapshots(start, () => world);
    fabric(start, () => world);
    keys(start);
    nodeLinks(start, (disk) => world.diskPath(disk));
    partExports(start, (disk) => world.diskPath(disk));
    volumeSnapshots(start, (disk) => world.diskPath(disk));
    copies(start, (disk) => world.diskPath(disk));
    reservations(start);
    scrubbing(start, (disk) => world.diskPath(disk));
  });
}

function basics(start: () => Engine): void {
  it('lists its methods and refuses others', async () => {
    const engine = start();
    expect(await engine.rpc('rpc_get_methods')).toContain('bdev_malloc_create');
    await expectRefusal(engine.rpc('no_such_method' as 'rpc_get_methods'), 'methodNotFound', 'no_such_method');
  });

  it('gives back what was written, through views of any memory', async () => {
    const engine = start();
    expect(await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 1024, block_size: 4096 })).toBe('m0');
    const handle = await engine.openBdev('m0');
    const written = pattern(2 * mib, 1);
    await handle.write(4096, written);
    await handle.flush();
    const read = new Uint8Array(engine.allocate(2 * mib));
    await handle.read(4096, read);
    expect(Buffer.compare(read, written)).toBe(0);
    const before = new Uint8Array(4096).fill(1);
    await handle.read(0, before);
    expect(before.every((byte) => byte === 0)).toBe(true);
    await expect(handle.read(1, before)).rejects.toThrow(RangeError);
    await expect(handle.write(1024 * 4096, before)).rejects.toThrow(RangeError);
    await handle.close();
  });

  it('changes how a reactor waits while it runs', async () => {
    const engine = start();
    const modes = async (): Promise<string[]> =>
      (await engine.rpc('framework_get_reactors')).reactors.map((reactor) => reactor.mode);
    expect((await modes())[0]).toBe('adaptive');
    for (const mode of ['busy', 'interrupt', 'adaptive'] as const) {
      expect(await engine.rpc('basalt_reactor_set_mode', { mode, lcore: 0 })).toBe(true);
      expect((await modes())[0]).toBe(mode);
    }
    expect(await engine.rpc('basalt_reactor_set_mode', { mode: 'busy' })).toBe(true);
    expect(new Set(await modes())).toEqual(new Set(['busy']));
    const wrong = { mode: 'lazy' } as unknown as { mode: 'busy' };
    await expectRefusal(engine.rpc('basalt_reactor_set_mode', wrong), 'invalidParams', 'params.mode');
    const nobody = engine.rpc('basalt_reactor_set_mode', { mode: 'busy', lcore: 64 });
    await expectRefusal(nobody, 'invalidParams', 'params.lcore');
  });

  it('names the field of a wrong parameter', async () => {
    const engine = start();
    const malloc = (params: object): Promise<unknown> =>
      engine.rpc('bdev_malloc_create', params as { num_blocks: number; block_size: number });
    await expectRefusal(malloc({ block_size: 4096 }), 'invalidParams', 'params.num_blocks: is missing');
    await expectRefusal(malloc({ num_blocks: 0, block_size: 4096 }), 'invalidParams', 'params.num_blocks');
    await expectRefusal(malloc({ num_blocks: 1, block_size: 1000 }), 'invalidParams', 'params.block_size');
    await expectRefusal(malloc({ num_blocks: 1, block_size: 512, size: 1 }), 'invalidParams', 'params.size');
    await expectRefusal(malloc({ num_blocks: '1', block_size: 512 }), 'invalidParams', 'params.num_blocks');
    expect(await engine.rpc('bdev_get_bdevs')).toEqual([]);
  });

  it('refuses taken names, missing objects and objects in use', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    const again = engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    await expectRefusal(again, 'exists', 'm0');
    await expectRefusal(engine.rpc('bdev_malloc_delete', { name: 'm1' }), 'notFound', 'm1');
    await expectRefusal(engine.rpc('bdev_get_bdevs', { name: 'm1' }), 'noDevice', 'm1');
    await expectRefusal(engine.rpc('bdev_null_delete', { name: 'm0' }), 'invalid', 'malloc');
    const handle = await engine.openBdev('m0');
    await expectRefusal(engine.rpc('bdev_malloc_delete', { name: 'm0' }), 'busy', 'open handle');
    await handle.close();
    await engine.rpc('bdev_error_create', { base_name: 'm0' });
    await expectRefusal(engine.rpc('bdev_malloc_delete', { name: 'm0' }), 'busy', 'EE_m0');
    await engine.rpc('bdev_error_delete', { name: 'EE_m0' });
    expect(await engine.rpc('bdev_malloc_delete', { name: 'm0' })).toBe(true);
  });

  it('reports an injected failure with its NVMe status', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    await engine.rpc('bdev_error_create', { base_name: 'm0' });
    await engine.rpc('bdev_error_inject_error', { name: 'EE_m0', io_type: 'write', error_type: 'failure' });
    const handle = await engine.openBdev('EE_m0');
    await expect(handle.write(0, new Uint8Array(4096))).rejects.toMatchObject({ name: 'EngineIoError' });
    await handle.write(0, new Uint8Array(4096));
    await handle.close();
  });

  it('stripes over members, and serves a slot while it has a backing', async () => {
    const engine = start();
    for (const name of ['a', 'b']) await engine.rpc('bdev_malloc_create', { name, num_blocks: 64, block_size: 4096 });
    await engine.rpc('bdev_raid_create', { name: 'r', raid_level: 'raid0', base_bdevs: ['a', 'b'], strip_size_kb: 16 });
    const uuid = '6fbe5ee2-8d0a-4c5e-9f0e-0c3b7a5b7e11';
    await engine.rpc('basalt_slot_create', { name: 's', num_blocks: 128, block_size: 4096, uuid });
    const handle = await engine.openBdev('s');
    const data = pattern(128 * 4096, 3);
    await expect(handle.write(0, data)).rejects.toMatchObject({ isPathError: true });
    await engine.rpc('basalt_slot_set', { name: 's', bdev_name: 'r' });
    await expectRefusal(engine.rpc('bdev_raid_delete', { name: 'r' }), 'busy', 's');
    await handle.write(0, data);
    const back = new Uint8Array(data.length);
    await handle.read(0, back);
    expect(Buffer.compare(back, data)).toBe(0);
    await engine.rpc('basalt_slot_set', { name: 's', bdev_name: null });
    await expect(handle.read(0, back)).rejects.toMatchObject({ isPathError: true });
    await handle.close();
    await engine.rpc('bdev_raid_delete', { name: 'r' });
  });

  it('refuses everything after close, and closes twice', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    const handle = await engine.openBdev('m0');
    await engine.close();
    await engine.close();
    await expect(engine.rpc('rpc_get_methods')).rejects.toMatchObject({ code: 'ILLEGAL_STATE' });
    await expect(handle.flush()).rejects.toMatchObject({ code: 'ILLEGAL_STATE' });
    await handle.close();
    await handle.close();
  });
}

async function makeStore(engine: Engine, path: string, create: boolean): Promise<void> {
  const size = create ? { create_bytes: 64 * mib } : {};
  await engine.rpc('bdev_aio_create', { name: 'disk', filename: path, block_size: 4096, ...size });
  if (create) await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  else await engine.rpc('bdev_examine', { name: 'disk' });
}

const lvolParams = { lvs_name: 'lvs', lvol_name: 'r1', size_in_mib: 8, thin_provision: true };

function storage(start: () => Engine, world: () => ContractWorld): void {
  it('keeps lvols and their bytes through a restart', async () => {
    const path = world().diskPath('d0');
    const first = start();
    await makeStore(first, path, true);
    expect(await first.rpc('bdev_lvol_create', lvolParams)).toBe('lvs/r1');
    const handle = await first.openBdev('lvs/r1');
    const data = pattern(mib, 7);
    await handle.write(mib, data);
    await handle.flush();
    await handle.close();
    await first.close();

    const second = start();
    await makeStore(second, path, false);
    const [lvol] = await second.rpc('bdev_lvol_get_lvols');
    expect(lvol).toMatchObject({ alias: 'lvs/r1', num_blocks: 2048, epoch: '0', is_thin_provisioned: true });
    const again = await second.openBdev('lvs/r1');
    const back = new Uint8Array(mib);
    await again.read(mib, back);
    expect(Buffer.compare(back, data)).toBe(0);
    await again.close();
  });

  it('refuses a second lvstore, a used disk and unknown lvstores, and changes nothing', async () => {
    const path = world().diskPath('d0');
    const engine = start();
    await makeStore(engine, path, true);
    const second = engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'other' });
    await expectRefusal(second, 'busy', 'lvs');
    await expectRefusal(engine.rpc('bdev_aio_delete', { name: 'disk' }), 'busy', 'lvs');
    const locked = engine.rpc('bdev_aio_create', { name: 'disk2', filename: path });
    await expectRefusal(locked, 'busy', path);
    await expectRefusal(engine.rpc('bdev_lvol_create', { ...lvolParams, lvs_name: 'none' }), 'notFound', 'none');
    await expectRefusal(
      engine.rpc('bdev_lvol_create', { ...lvolParams, size_in_mib: 0 }),
      'invalidParams',
      'size_in_mib',
    );
    await engine.rpc('bdev_lvol_create', lvolParams);
    await expectRefusal(engine.rpc('bdev_lvol_create', lvolParams), 'exists', 'r1');
    await expectRefusal(engine.rpc('bdev_lvol_delete_lvstore', { lvs_name: 'lvs' }), 'busy', 'lvs');
    expect(await engine.rpc('bdev_lvol_delete', { name: 'lvs/r1' })).toBe(true);
    expect(await engine.rpc('bdev_lvol_get_lvols')).toEqual([]);
    expect(await engine.rpc('bdev_lvol_delete_lvstore', { lvs_name: 'lvs' })).toBe(true);
    await expectRefusal(engine.rpc('bdev_examine', { name: 'disk' }), 'notFound', 'disk');
  });

  it('checks an lvstore that is not in use, and writes nothing', async () => {
    const path = world().diskPath('d0');
    const first = start();
    await makeStore(first, path, true);
    await first.rpc('bdev_lvol_create', lvolParams);
    await expectRefusal(first.rpc('basalt_lvstore_fsck', { bdev_name: 'disk' }), 'busy', 'lvs');
    await first.close();
    const second = start();
    await second.rpc('bdev_aio_create', { name: 'disk', filename: path, block_size: 4096, readonly: true });
    const report = await second.rpc('basalt_lvstore_fsck', { bdev_name: 'disk', dump: true });
    expect(report).toMatchObject({ sound: true, name: 'lvs', problems: [] });
    expect(report.text).toContain('no errors');
  });
}

/** What the first 4 KiB of a bdev hold: one byte repeated. */
async function firstByte(engine: Engine, name: string): Promise<number> {
  const handle = await engine.openBdev(name);
  const block = new Uint8Array(4096);
  await handle.read(0, block);
  await handle.close();
  expect(new Set(block).size).toBe(1);
  return block[0] as number;
}

async function writeFirst(engine: Engine, name: string, value: number): Promise<void> {
  const handle = await engine.openBdev(name);
  await handle.write(0, new Uint8Array(4096).fill(value)).finally(() => handle.close());
}

function snapshots(start: () => Engine, world: () => ContractWorld): void {
  it('keeps snapshots and clones apart, deletes them in any order, and keeps them through a restart', async () => {
    const path = world().diskPath('d0');
    const first = start();
    await makeStore(first, path, true);
    await first.rpc('bdev_lvol_create', lvolParams);
    await writeFirst(first, 'lvs/r1', 1);
    const snapshot = { lvol_name: 'lvs/r1', snapshot_name: 's1' };
    expect(await first.rpc('bdev_lvol_snapshot', snapshot)).toBe('lvs/s1');
    await writeFirst(first, 'lvs/r1', 2);
    const clone = { snapshot_name: 'lvs/s1', clone_name: 'c1' };
    expect(await first.rpc('bdev_lvol_clone', clone)).toBe('lvs/c1');
    expect(await first.rpc('bdev_lvol_clone', { snapshot_name: 'lvs/r1', clone_name: 'c2' })).toBe('lvs/c2');
    expect(await firstByte(first, 'lvs/c1')).toBe(1);
    await writeFirst(first, 'lvs/c1', 3);
    await expect(writeFirst(first, 'lvs/s1', 9)).rejects.toMatchObject({ name: 'EngineIoError', status: 0x4020 });
    await expectRefusal(first.rpc('bdev_lvol_snapshot', snapshot), 'exists', 's1');
    const again = { lvol_name: 'lvs/s1', snapshot_name: 's2' };
    await expectRefusal(first.rpc('bdev_lvol_snapshot', again), 'invalid', 'read-only');
    const lvols = await first.rpc('bdev_lvol_get_lvols', { sizes: true });
    const byName = new Map(lvols.map((lvol) => [lvol.name, lvol]));
    expect(byName.get('s1')).toMatchObject({ is_snapshot: true, is_read_only: true, base_snapshot: null });
    expect(byName.get('s1')?.clones.toSorted()).toEqual(['c1', 'c2', 'r1']);
    expect(byName.get('c1')).toMatchObject({ is_snapshot: false, is_clone: true, base_snapshot: 's1' });
    expect(byName.get('c1')?.exclusive_bytes).toBe(byName.get('c1')?.allocated_bytes);
    await first.rpc('bdev_lvol_delete', { name: 'lvs/s1' });
    await first.close();

    const second = start();
    await makeStore(second, path, false);
    expect(await firstByte(second, 'lvs/r1')).toBe(2);
    expect(await firstByte(second, 'lvs/c1')).toBe(3);
    expect(await firstByte(second, 'lvs/c2')).toBe(2);
    await second.rpc('bdev_lvol_delete', { name: 'lvs/r1' });
    expect(await firstByte(second, 'lvs/c2')).toBe(2);
    for (const name of ['lvs/c1', 'lvs/c2']) await second.rpc('bdev_lvol_delete', { name });
    expect(await second.rpc('bdev_lvol_delete_lvstore', { lvs_name: 'lvs' })).toBe(true);
  });

  it('keeps checksums for the lvols that asked for them, their snapshots and clones, and looks through what they hold', async () => {
    const path = world().diskPath('d0');
    const first = start();
    await makeStore(first, path, true);
    await first.rpc('bdev_lvol_create', { ...lvolParams, checksums: true });
    await first.rpc('bdev_lvol_create', { ...lvolParams, lvol_name: 'plain' });
    const handle = await first.openBdev('lvs/r1');
    await handle.write(0, pattern(mib, 7));
    await handle.flush();
    await handle.close();
    await first.rpc('bdev_lvol_snapshot', { lvol_name: 'lvs/r1', snapshot_name: 's1' });
    await first.rpc('bdev_lvol_clone', { snapshot_name: 'lvs/s1', clone_name: 'c1' });
    await first.close();

    const second = start();
    await makeStore(second, path, false);
    const lvols = await second.rpc('bdev_lvol_get_lvols');
    const having = lvols.filter(({ checksums }) => checksums === true).map(({ name }) => name);
    expect(having.toSorted()).toEqual(['c1', 'r1', 's1']);
    for (const name of having)
      expect(await second.rpc('basalt_lvol_scrub', { name: `lvs/${name}` })).toEqual({
        checked_blocks: 256,
        bad_blocks: 0,
      });
    await expectRefusal(second.rpc('basalt_lvol_scrub', { name: 'lvs/none' }), 'notFound', 'none');
  });

  it('resizes, renames, makes read-only and takes parents in', async () => {
    const engine = start();
    await makeStore(engine, world().diskPath('d0'), true);
    await engine.rpc('bdev_lvol_create', lvolParams);
    await writeFirst(engine, 'lvs/r1', 1);
    for (const snapshot_name of ['s1', 's2'])
      await engine.rpc('bdev_lvol_snapshot', { lvol_name: 'lvs/r1', snapshot_name });
    expect(await engine.rpc('bdev_lvol_decouple_parent', { name: 'lvs/r1' })).toBe(true);
    const baseOf = async (name: string): Promise<string | null | undefined> =>
      (await engine.rpc('bdev_lvol_get_lvols')).find((lvol) => lvol.name === name)?.base_snapshot;
    expect(await baseOf('r1')).toBe('s1');
    expect(await engine.rpc('bdev_lvol_inflate', { name: 'lvs/r1' })).toBe(true);
    expect(await baseOf('r1')).toBe(null);
    expect(await firstByte(engine, 'lvs/r1')).toBe(1);

    expect(await engine.rpc('bdev_lvol_resize', { name: 'lvs/r1', size_in_mib: 16 })).toBe(true);
    expect(await engine.rpc('bdev_get_bdevs', { name: 'lvs/r1' })).toMatchObject([{ num_blocks: 4096 }]);
    const handle = await engine.openBdev('lvs/r1');
    await expectRefusal(engine.rpc('bdev_lvol_resize', { name: 'lvs/r1', size_in_mib: 1 }), 'busy', 'cannot shrink');
    const renamed = { old_name: 'lvs/r1', new_name: 'r2' };
    await expectRefusal(engine.rpc('bdev_lvol_rename', renamed), 'busy', 'open handle');
    await handle.close();
    await expectRefusal(engine.rpc('bdev_lvol_rename', { ...renamed, new_name: 's1' }), 'exists', 's1');
    expect(await engine.rpc('bdev_lvol_rename', renamed)).toBe(true);
    expect(await engine.rpc('bdev_lvol_resize', { name: 'lvs/r2', size_in_mib: 1 })).toBe(true);
    expect(await firstByte(engine, 'lvs/r2')).toBe(1);
    expect(await engine.rpc('bdev_lvol_set_read_only', { name: 'lvs/r2' })).toBe(true);
    await expect(writeFirst(engine, 'lvs/r2', 9)).rejects.toMatchObject({ status: 0x4020 });
    await expectRefusal(engine.rpc('bdev_lvol_inflate', { name: 'lvs/r2' }), 'invalid', 'read-only');
    await expectRefusal(engine.rpc('bdev_lvol_inflate', { name: 'lvs/none' }), 'notFound', 'lvs/none');
    const thresholds = { lvs_name: 'lvs', used_percent: [80, 70] };
    await expectRefusal(engine.rpc('basalt_lvstore_set_thresholds', thresholds), 'invalidParams', 'used_percent');
    expect(await engine.rpc('basalt_lvstore_set_thresholds', { ...thresholds, used_percent: [70, 80] })).toBe(true);
  });
}

interface Replica {
  readonly engine: Engine;
  readonly traddr: string;
  readonly trsvcid: string;
}

async function serveReplica(engine: Engine, path: string, create: boolean): Promise<Replica> {
  await makeStore(engine, path, create);
  if (create) await engine.rpc('bdev_lvol_create', lvolParams);
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  await engine.rpc('nvmf_create_subsystem', { nqn: replicaNqn, serial_number: 'INCARNATION1', internal: true });
  await engine.rpc('nvmf_subsystem_add_host', { nqn: replicaNqn, host: hostnqn });
  const namespace = { bdev_name: 'lvs/r1', one_writer: true };
  expect(await engine.rpc('nvmf_subsystem_add_ns', { nqn: replicaNqn, namespace })).toBe(1);
  const { traddr, trsvcid } = await engine.rpc('nvmf_subsystem_add_listener', {
    nqn: replicaNqn,
    listen_address: { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '0' },
  });
  expect(Number(trsvcid)).toBeGreaterThan(0);
  return { engine, traddr, trsvcid };
}

function attach(from: Engine, name: string, replica: Replica, epoch: number, as = hostnqn): Promise<unknown> {
  const { traddr, trsvcid } = replica;
  return from.rpc('basalt_member_attach', {
    name,
    traddr,
    trsvcid,
    subnqn: replicaNqn,
    hostnqn: as,
    epoch,
    timeout_ms: 5000,
  });
}

function fabric(start: () => Engine, world: () => ContractWorld): void {
  it('lets the higher epoch take a replica over, and fences the lower one', async () => {
    const replica = await serveReplica(start(), world().diskPath('d0'), true);
    const [old, young] = [start(), start()];
    expect(await attach(old, 'm', replica, 5)).toEqual({
      incarnation: 'INCARNATION1',
      num_blocks: 2048,
      block_size: 4096,
      shared: false,
    });
    const handle = await old.openBdev('m');
    await handle.write(0, pattern(4096, 1));
    await attach(young, 'm', replica, 6);
    await expect(handle.write(0, pattern(4096, 2))).rejects.toMatchObject({ isReservationConflict: true });
    await handle.close();
    const fenced = await refusal(attach(old, 'm2', replica, 5));
    expect(fenced.code).toBe(engineErrorCodes.fenced);
    expect(fenced.data).toMatchObject({ epoch: '6' });
    const stale = replica.engine.rpc('nvmf_delete_subsystem', { nqn: replicaNqn });
    expect(await stale).toBe(true);
    await expectRefusal(replica.engine.rpc('bdev_lvol_delete', { name: 'lvs/r1', epoch: 5 }), 'fenced', '6');
    const snapshot = { lvol_name: 'lvs/r1', snapshot_name: 's1' };
    await expectRefusal(replica.engine.rpc('bdev_lvol_snapshot', { ...snapshot, epoch: 5 }), 'fenced', '6');
    expect(await replica.engine.rpc('bdev_lvol_delete', { name: 'lvs/r1', epoch: 6 })).toBe(true);
  });

  it('grows replica, leg, raid0 and slot under an open handle, in that order, and none of them shrinks', async () => {
    const replica = await serveReplica(start(), world().diskPath('d0'), true);
    const controller = start();
    const { engine } = replica;
    await attach(controller, 'm', replica, 4);
    const identity = { identity: 'v/0', replicas: [replicaNqn] };
    const members = [{ name: 'm', in_sync: true }];
    const leg = { name: 'leg', epoch: 4, members, all_dirty: false, lease_ms: 300, num_blocks: 1792, ...identity };
    expect(await controller.rpc('basalt_leg_create', leg)).toEqual({ num_blocks: 1792 });
    const raid = { name: 'raid', raid_level: 'raid0' as const, base_bdevs: ['leg'], strip_size_kb: 64 };
    await controller.rpc('bdev_raid_create', raid);
    const uuid = '00000000-0000-0000-0000-0000000000aa';
    await controller.rpc('basalt_slot_create', { name: 'slot', num_blocks: 1792, block_size: 4096, uuid });
    await controller.rpc('basalt_slot_set', { name: 'slot', bdev_name: 'raid' });
    const handle = await controller.openBdev('slot');
    await handle.write(1791 * 4096, pattern(4096, 1));
    const resizeLeg = (num_blocks: number): Promise<true> =>
      controller.rpc('basalt_leg_resize', { name: 'leg', num_blocks });
    const resizeSlot = (num_blocks: number): Promise<true> =>
      controller.rpc('basalt_slot_resize', { name: 'slot', num_blocks });
    await expectRefusal(resizeLeg(3840), 'noSpace', 'needs 4096');
    await expectRefusal(resizeLeg(1800), 'invalid', '1 MiB');
    await expectRefusal(resizeSlot(3840), 'invalid', 'raid');
    const lvol = { name: 'lvs/r1', size_in_mib: 16 };
    await expectRefusal(engine.rpc('bdev_lvol_resize', { ...lvol, epoch: 3 }), 'fenced', '4');
    expect(await engine.rpc('bdev_lvol_resize', { ...lvol, epoch: 4 })).toBe(true);
    await expect
      .poll(() => resizeLeg(3840).catch((error: { code?: unknown }) => error.code), { timeout: 5_000 })
      .toBe(true);
    expect(await resizeLeg(3840)).toBe(true);
    expect(await controller.rpc('bdev_get_bdevs', { name: 'raid' })).toMatchObject([{ num_blocks: 3840 }]);
    expect(handle.info.sizeBytes).toBe(1792 * 4096);
    await expect(handle.write(3839 * 4096, pattern(4096, 2))).rejects.toBeInstanceOf(RangeError);
    expect(await resizeSlot(3840)).toBe(true);
    expect(handle.info.sizeBytes).toBe(3840 * 4096);
    await handle.write(3839 * 4096, pattern(4096, 2));
    const back = new Uint8Array(3 * 4096);
    await handle.read(1791 * 4096, back);
    expect(Buffer.compare(back.subarray(0, 4096), pattern(4096, 1))).toBe(0);
    expect(back.subarray(4096).every((byte) => byte === 0)).toBe(true);
    await expectRefusal(resizeLeg(1792), 'invalid', 'shrink');
    await expectRefusal(resizeSlot(1792), 'invalid', 'shrink');
    await handle.close();
  });

  it('remembers the highest epoch through a restart of the replica', async () => {
    const path = world().diskPath('d0');
    const first = await serveReplica(start(), path, true);
    const controller = start();
    await attach(controller, 'm', first, 9);
    await first.engine.close();
    const second = await serveReplica(start(), path, false);
    await expectRefusal(attach(controller, 'm2', second, 8), 'fenced', '9');
    await attach(controller, 'm3', second, 9);
    await expectRefusal(attach(controller, 'm4', second, 9, `${hostnqn}2`), 'permission', replicaNqn);
  });

  it('refuses an address that nobody serves', async () => {
    const nobody = { engine: start(), traddr: '127.0.0.1', trsvcid: '1' };
    await expectRefusal(attach(nobody.engine, 'm', nobody, 1), 'unreachable', '127.0.0.1');
    expect(await nobody.engine.rpc('bdev_get_bdevs')).toEqual([]);
  });

  it('keeps a leg writing after its failed member was removed, and copies a new one', async () => {
    const replica = await serveReplica(start(), world().diskPath('d0'), true);
    const other = await serveReplica(start(), world().diskPath('d1'), true);
    const controller = start();
    await attach(controller, 'm1', replica, 1);
    await attach(controller, 'm2', other, 1);
    const members = ['m1', 'm2'].map((name) => ({ name, in_sync: true }));
    const leg = { name: 'leg', epoch: 1, members, all_dirty: false, lease_ms: 300 };
    expect(await controller.rpc('basalt_leg_create', leg)).toEqual({ num_blocks: 2048 });
    const handle = await controller.openBdev('leg');
    await handle.write(0, pattern(4096, 1));

    const failed = nextEvent(controller, 'leg_member_failed');
    await other.engine.close();
    const write = handle.write(4096, pattern(4096, 2));
    expect((await failed).params).toMatchObject({ leg: 'leg', member: 'm2' });
    expect(await controller.rpc('basalt_leg_get', { name: 'leg' })).toMatchObject({ epoch: '1', state: 'waiting' });
    await controller.rpc('basalt_leg_remove_member', { name: 'leg', member: 'm2' });
    await write;
    await controller.rpc('basalt_member_detach', { name: 'm2' });

    const third = await serveReplica(start(), world().diskPath('d1'), false);
    await attach(controller, 'm3', third, 1);
    const copied = nextEvent(controller, 'leg_member_copied');
    await controller.rpc('basalt_leg_add_member', { name: 'leg', member: 'm3' });
    expect((await copied).params).toMatchObject({ leg: 'leg', member: 'm3' });
    await controller.rpc('basalt_leg_commit_member', { name: 'leg', member: 'm3' });
    await handle.close();
    await expectRefusal(controller.rpc('basalt_member_detach', { name: 'm3' }), 'busy', 'leg');
    await controller.rpc('basalt_leg_fence', { name: 'leg' });
    await controller.rpc('basalt_leg_delete', { name: 'leg' });
    await controller.rpc('basalt_member_detach', { name: 'm3' });
    await controller.rpc('basalt_member_detach', { name: 'm1' });
  });

  it('tells when a peer goes and comes', async () => {
    const peer = start();
    await peer.rpc('nvmf_create_transport', { trtype: 'TCP' });
    const nqn = 'nqn.2014-08.org.nvmexpress.discovery';
    const listen = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const at = await peer.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: listen });
    const watcher = start();
    const connected = nextEvent(watcher, 'peer_connected');
    const { traddr, trsvcid } = at;
    await watcher.rpc('basalt_peer_watch', { name: 'p', traddr, trsvcid, keep_alive_ms: 500 });
    expect((await connected).params).toEqual({ name: 'p' });
    const lost = nextEvent(watcher, 'peer_lost');
    await peer.close();
    expect((await lost).params).toMatchObject({ name: 'p' });
    expect(await watcher.rpc('basalt_peer_unwatch', { name: 'p' })).toBe(true);
  });
}

function nextEvent(engine: Engine, method: string): Promise<{ method: string; params: object }> {
  return new Promise((resolve) => {
    const stop = engine.on('event', (event) => {
      if (event.method !== method) return;
      stop();
      resolve(event);
    });
  });
}
