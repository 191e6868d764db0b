// SPDX-License-Identifier: Apache-2.0
//
// The fake's bdev_*, basalt_slot_* and basalt_nbd_* methods.

import { FaultIo, type FaultType, followSize, makeBdev, raid0Io, SlotIo, storedIo } from './bdev.js';
import { SparseBlocks } from './blocks.js';
import type { Fields } from './fields.js';
import { Refused } from './refusal.js';
import type { EngineState } from './state.js';

export type Handler = (state: EngineState, fields: Fields) => unknown;

const deviceBytesMax = 2 ** 53;

function geometry(fields: Fields): { numBlocks: number; blockBytes: number } {
  const numBlocks = fields.natural('num_blocks', 1);
  const blockBytes = blockSize(fields, fields.natural('block_size'));
  if (numBlocks > deviceBytesMax / blockBytes) fields.refuse('num_blocks', 'times block_size must be at most 8 PiB');
  return { numBlocks, blockBytes };
}

function blockSize(fields: Fields, bytes: number): number {
  if (![512, 1024, 2048, 4096].includes(bytes))
    fields.refuse('block_size', `must be 512, 1024, 2048 or 4096, is ${bytes}`);
  return bytes;
}

function createMemory(product: string, named: boolean): Handler {
  return (state, fields) => {
    const shape = geometry(fields);
    const name = named ? fields.string('name') : fields.stringOr('name', `Malloc${state.bdevs.size}`);
    const uuid = fields.uuidOr('uuid', () => state.network.random.uuid());
    fields.end();
    state.assertFree(name);
    const io = storedIo(new SparseBlocks(shape.blockBytes), () => state.engine.turn());
    state.bdevs.set(name, makeBdev({ name, product, uuid, ...shape }, io));
    return name;
  };
}

export function remove(product: string, after: (state: EngineState, name: string) => void = () => {}): Handler {
  return (state, fields) => {
    const name = fields.string('name');
    fields.end();
    after(state, state.destroy(name, product).name);
    return true;
  };
}

function createAio(state: EngineState, fields: Fields): string {
  const name = fields.string('name');
  const path = fields.string('filename');
  const blockBytes = blockSize(fields, fields.naturalOr('block_size', 4096));
  fields.booleanOr('readonly', false);
  fields.booleanOr('buffered', false);
  const createBytes = fields.has('create_bytes') ? fields.natural('create_bytes', 1) : 0;
  if (createBytes % blockBytes !== 0) fields.refuse('create_bytes', 'must be a multiple of the block size');
  fields.end();
  state.assertFree(name);
  const { disks } = state.network;
  if (createBytes > 0 && disks.find(path) !== null) throw new Refused('exists', `${path} exists`);
  const disk = createBytes > 0 ? disks.add(path, createBytes) : disks.find(path);
  if (disk === null) throw new Refused('notFound', `${path}: No such file or directory`);
  if (disk.lockedBy !== null) throw new Refused('busy', `${path} is locked by another process`);
  disk.lockedBy = state.engine;
  const shape = { blockBytes, numBlocks: Math.floor(disk.sizeBytes / blockBytes) };
  const io = storedIo(
    disk.blocks,
    () => state.engine.turn(),
    () => disk.broken,
  );
  const uuid = state.network.random.uuid();
  state.bdevs.set(name, makeBdev({ name, product: 'file', uuid, ...shape }, io));
  state.disks.set(name, disk);
  return name;
}

function createError(state: EngineState, fields: Fields): string {
  const base = fields.string('base_name');
  fields.end();
  const name = `EE_${base}`;
  state.assertFree(name);
  const [below] = state.claim([base], `bdev ${name}`);
  if (below === undefined) throw new Refused('notFound', `bdev ${base} does not exist`);
  const io = new FaultIo(below);
  const { blockBytes, numBlocks } = below;
  const uuid = state.network.random.uuid();
  state.bdevs.set(name, makeBdev({ name, product: 'fault', uuid, blockBytes, numBlocks, children: [base] }, io));
  state.faults.set(name, io);
  return name;
}

function injectError(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const type = fields.choice('io_type', ['read', 'write', 'flush', 'unmap', 'all', 'clear']);
  const kind = fields.choice<FaultType>('error_type', ['failure', 'pending', 'corrupt_data']);
  const count = fields.naturalOr('num', 1, 1);
  fields.end();
  const fault = state.faults.get(state.bdev(name, 'fault').name);
  if (type === 'clear') fault?.clear();
  else fault?.inject(type === 'all' ? ['read', 'write', 'flush', 'unmap'] : [type], kind, count);
  return true;
}

function createRaid(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const level = fields.choice('raid_level', ['raid0', '0', 'raid5', '5', 'raid6', '6', 'raid1', '1', 'concat']);
  const bases = fields.strings('base_bdevs', 1, 256);
  const stripKb =
    level === 'concat' ? fields.naturalOr('strip_size_kb', 4, 4, 65536) : fields.natural('strip_size_kb', 4, 65536);
  if (Math.log2(stripKb) % 1 !== 0) fields.refuse('strip_size_kb', `must be a power of two, is ${stripKb}`);
  const uuid = fields.uuidOr('uuid', () => state.network.random.uuid());
  fields.booleanOr('force', false);
  fields.booleanOr('superblock', false);
  fields.end();
  if (!['raid0', '0'].includes(level)) throw new Refused('unsupported', `the fake engine has no ${level}`);
  state.assertFree(name);
  const members = state.claim(bases, `bdev ${name}`);
  const blockBytes = members[0]?.blockBytes ?? 4096;
  if (members.some((member) => member.blockBytes !== blockBytes)) {
    state.release(bases);
    throw new Refused('invalid', 'members have different block sizes');
  }
  const stripBlocks = (stripKb * 1024) / blockBytes;
  const sizeNow = (): number => {
    const smallest = Math.min(...members.map((member) => member.numBlocks));
    return Math.floor(smallest / stripBlocks) * stripBlocks * members.length;
  };
  const shape = { name, product: 'raid0', uuid, blockBytes, numBlocks: sizeNow(), children: bases };
  const io = raid0Io(members, stripBlocks, blockBytes);
  state.bdevs.set(name, followSize(makeBdev(shape, io), sizeNow));
  state.raids.set(name, stripKb);
  return true;
}

function getRaids(state: EngineState, fields: Fields): unknown {
  const category = fields.choice('category', ['all', 'online', 'configuring', 'offline']);
  fields.end();
  if (category !== 'all' && category !== 'online') return [];
  return [...state.bdevs.values()]
    .filter((bdev) => bdev.product === 'raid0')
    .map((bdev) => ({
      name: bdev.name,
      uuid: bdev.uuid,
      strip_size_kb: state.raids.get(bdev.name) ?? 0,
      state: 'online',
      raid_level: 'raid0',
      num_base_bdevs: bdev.children.length,
      base_bdevs_list: [...bdev.children],
    }));
}

function getBdevs(state: EngineState, fields: Fields): unknown {
  const name = fields.has('name') ? fields.string('name') : null;
  fields.end();
  if (name !== null && !state.bdevs.has(name)) throw new Refused('noDevice', `bdev ${name} does not exist`);
  return [...state.bdevs.values()]
    .filter((bdev) => name === null || bdev.name === name)
    .map((bdev) => ({
      name: bdev.name,
      aliases: [bdev.uuid],
      product_name: bdev.product,
      uuid: bdev.uuid,
      block_size: bdev.blockBytes,
      num_blocks: bdev.numBlocks,
      claimed: bdev.claimedBy !== null,
      zoned: false,
      supported_io_types: { read: true, write: true, flush: true, unmap: true, write_zeroes: true },
    }));
}

function createSlot(state: EngineState, fields: Fields): string {
  const name = fields.string('name');
  const shape = geometry(fields);
  const uuid = fields.uuidOr('uuid', () => fields.refuse('uuid', 'is missing'));
  fields.end();
  state.assertFree(name);
  const io = new SlotIo();
  state.bdevs.set(name, makeBdev({ name, product: 'slot', uuid, ...shape }, io));
  state.slots.set(name, io);
  return name;
}

async function setSlot(state: EngineState, fields: Fields): Promise<true> {
  const name = fields.string('name');
  const backing = fields.isNull('bdev_name') ? null : fields.string('bdev_name');
  fields.end();
  const slot = state.bdev(name, 'slot');
  const io = state.slots.get(slot.name);
  if (backing !== null && slot.children[0] === backing) return true;
  if (backing !== null) {
    const below = state.bdev(backing);
    if (below.blockBytes !== slot.blockBytes || below.numBlocks < slot.numBlocks)
      throw new Refused('invalid', `${name}: ${backing} does not fit: needs ${slot.numBlocks} blocks`);
    state.claim([backing], `bdev ${name}`);
  }
  await io?.set(backing === null ? null : state.bdev(backing));
  state.release(slot.children.splice(0));
  if (backing !== null) slot.children.push(backing);
  return true;
}

function resizeSlot(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const numBlocks = fields.natural('num_blocks', 1);
  fields.end();
  const slot = state.bdev(name, 'slot');
  const backing = state.slots.get(slot.name)?.backing ?? null;
  if (numBlocks > deviceBytesMax / slot.blockBytes)
    fields.refuse('num_blocks', 'times block_size must be at most 8 PiB');
  if (numBlocks < slot.numBlocks)
    throw new Refused('invalid', `num_blocks: ${name} has ${slot.numBlocks} blocks and does not shrink`);
  if (backing !== null && backing.numBlocks < numBlocks)
    throw new Refused('invalid', `num_blocks: ${backing.name} behind ${name} has ${backing.numBlocks} blocks`);
  slot.numBlocks = numBlocks;
  return true;
}

async function quiesceSlot(state: EngineState, fields: Fields): Promise<true> {
  const name = fields.string('name');
  const timeoutMs = fields.natural('timeout_ms', 1, 600_000);
  fields.end();
  const io = state.slots.get(state.bdev(name, 'slot').name);
  let late = false;
  await new Promise<void>((resolve) => {
    const timer = state.network.clock.setTimer(timeoutMs, () => {
      late = true;
      resolve();
    });
    void io?.quiesce().then(() => {
      timer.cancel();
      resolve();
    });
  });
  if (!late) return true;
  io?.resume();
  throw new Refused('timedOut', `${name}: requests are still in flight below`);
}

function startNbd(state: EngineState, fields: Fields): unknown {
  const bdev = fields.string('bdev_name');
  const path = fields.string('path');
  const exportName = fields.stringOr('export_name', '');
  fields.end();
  if (state.exports.has(path)) throw new Refused('exists', `an export at ${path} exists`);
  state.open(bdev, `NBD export ${path}`);
  state.exports.set(path, { bdev });
  return { uri: `nbd+unix:///${exportName}?socket=${path}` };
}

function stopNbd(state: EngineState, fields: Fields): true {
  const path = fields.string('path');
  fields.end();
  const found = state.exports.get(path);
  if (found === undefined) throw new Refused('notFound', `no export at ${path}`);
  state.exports.delete(path);
  state.closeUse(state.bdev(found.bdev), `NBD export ${path}`);
  return true;
}

export const bdevMethods: Record<string, Handler> = {
  bdev_malloc_create: createMemory('malloc', false),
  bdev_malloc_delete: remove('malloc'),
  bdev_null_create: createMemory('null', true),
  bdev_null_delete: remove('null'),
  bdev_aio_create: createAio,
  bdev_aio_delete: remove('file', (state, name) => {
    const disk = state.disks.get(name);
    if (disk !== undefined) disk.lockedBy = null;
    state.disks.delete(name);
  }),
  bdev_error_create: createError,
  bdev_error_delete: remove('fault', (state, name) => void state.faults.delete(name)),
  bdev_error_inject_error: injectError,
  bdev_raid_create: createRaid,
  bdev_raid_delete: remove('raid0', (state, name) => void state.raids.delete(name)),
  bdev_raid_get_bdevs: getRaids,
  bdev_get_bdevs: getBdevs,
  basalt_slot_create: createSlot,
  basalt_slot_delete: remove('slot', (state, name) => void state.slots.delete(name)),
  basalt_slot_set: setSlot,
  basalt_slot_resize: resizeSlot,
  basalt_slot_quiesce: quiesceSlot,
  basalt_slot_resume: (state, fields) => {
    const name = fields.string('name');
    fields.end();
    state.slots.get(state.bdev(name, 'slot').name)?.resume();
    return true;
  },
  basalt_nbd_start: startNbd,
  basalt_nbd_stop: stopNbd,
};
