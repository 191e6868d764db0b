// SPDX-License-Identifier: Apache-2.0
//
// The fake's lvstores and lvols; what they hold lives on the disk and survives the engine.

import { type FakeBdev, type FakeIo, makeBdev, storedIo } from './bdev.js';
import { SparseBlocks } from './blocks.js';
import type { StoredDisk, StoredLvol, StoredLvstore } from './disk.js';
import type { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { Refused, writeProtected } from './refusal.js';
import type { EngineState } from './state.js';

const blockBytes = 4096;
const clusterBytesDefault = 1024 * 1024;
/** Layers below an lvol, as the native store has it. */
const depthMax = 64;
/** What the store itself takes of a disk. */
const metadataBytes = 1024 * 1024;

interface Loaded {
  readonly base: string;
  readonly disk: StoredDisk;
  readonly lvstore: StoredLvstore;
}

function loaded(state: EngineState): Loaded[] {
  return [...state.disks].flatMap(([base, disk]) => {
    const { lvstore } = disk;
    return lvstore !== null && state.bdevs.get(base)?.claimedBy === lvsUser(lvstore) ? [{ base, disk, lvstore }] : [];
  });
}

const lvsUser = (lvstore: StoredLvstore): string => `lvstore ${lvstore.name}`;

function find(state: EngineState, name: string | null, uuid: string | null): Loaded {
  const found = loaded(state).find(({ lvstore }) => lvstore.name === name || lvstore.uuid === uuid);
  if (found === undefined) throw new Refused('notFound', `lvstore ${name ?? uuid} does not exist`);
  return found;
}

function which(fields: Fields, nameField: string, uuidField: string): [string | null, string | null] {
  const name = fields.has(nameField) ? fields.string(nameField) : null;
  const uuid = fields.has(uuidField) ? fields.string(uuidField) : null;
  if ((name === null) === (uuid === null))
    fields.refuse(nameField, `give exactly one of ${nameField} and ${uuidField}`);
  return [name, uuid];
}

const clustersOf = (lvstore: StoredLvstore, blocks: SparseBlocks): number => {
  const per = lvstore.clusterBytes / blockBytes;
  return new Set(blocks.written().map((block) => Math.floor(block / per))).size;
};

function chain(blocks: SparseBlocks): SparseBlocks[] {
  const layers: SparseBlocks[] = [];
  for (let layer: SparseBlocks | null = blocks; layer !== null; layer = layer.parent) layers.push(layer);
  return layers;
}

/** Deleted snapshots count while an lvol still reads them. */
function freeClusters(lvstore: StoredLvstore): number {
  const layers = new Set([...lvstore.lvols.values()].flatMap((lvol) => chain(lvol.blocks)));
  let used = 0;
  for (const layer of layers) used += clustersOf(lvstore, layer);
  return lvstore.totalClusters - used;
}

/** The nearest lvol below. */
function baseOf(lvstore: StoredLvstore, lvol: StoredLvol): StoredLvol | null {
  const lvols = [...lvstore.lvols.values()];
  for (const layer of chain(lvol.blocks).slice(1)) {
    const found = lvols.find((other) => other.blocks === layer);
    if (found !== undefined) return found;
  }
  return null;
}

function lvolIo(lvol: StoredLvol, readOnly: boolean, stored: (blocks: SparseBlocks) => FakeIo): FakeIo {
  return {
    read: (offset, count) => stored(lvol.blocks).read(offset, count),
    write: async (offset, data) => {
      if (lvol.readOnly || readOnly) throw writeProtected();
      await stored(lvol.blocks).write(offset, data);
    },
    flush: () => stored(lvol.blocks).flush(),
  };
}

function createLvstore(state: EngineState, fields: Fields): string {
  const base = fields.string('bdev_name');
  const name = fields.string('lvs_name');
  const clusterBytes = fields.naturalOr('cluster_sz', clusterBytesDefault, 65536, 1 << 30);
  if (fields.has('clear_method')) fields.choice('clear_method', ['none', 'unmap', 'write_zeroes']);
  fields.end();
  const bdev = state.bdev(base);
  const disk = state.disks.get(bdev.name);
  if (disk === undefined)
    throw new Refused('unsupported', `the fake keeps lvstores on fake disks only, not on ${base}`);
  if (loaded(state).some((each) => each.lvstore.name === name)) throw new Refused('exists', `lvstore ${name} exists`);
  state.unused(bdev);
  if (disk.lvstore !== null) throw new Refused('exists', `bdev ${base} holds lvstore ${disk.lvstore.name}`);
  const totalClusters = Math.floor((disk.sizeBytes - metadataBytes) / clusterBytes);
  if (totalClusters < 1) throw new Refused('noSpace', `bdev ${base} is too small for an lvstore`);
  disk.lvstore = { uuid: state.network.random.uuid(), name, clusterBytes, totalClusters, lvols: new Map() };
  bdev.claimedBy = lvsUser(disk.lvstore);
  return disk.lvstore.uuid;
}

function examine(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const readOnly = fields.booleanOr('read_only', false);
  fields.end();
  const bdev = state.bdev(name);
  const disk = state.disks.get(bdev.name);
  if (disk === undefined || disk.lvstore === null) throw new Refused('notFound', `bdev ${name} carries no lvstore`);
  if (bdev.claimedBy === lvsUser(disk.lvstore)) {
    if (state.readOnlyStores.has(disk.lvstore.uuid) === readOnly) return true;
    throw new Refused('busy', `lvstore ${disk.lvstore.name} is open ${readOnly ? 'for writing' : 'read-only'}`);
  }
  state.unused(bdev);
  if (readOnly) state.readOnlyStores.add(disk.lvstore.uuid);
  bdev.claimedBy = lvsUser(disk.lvstore);
  for (const lvol of disk.lvstore.lvols.values()) publish(state, disk, disk.lvstore, lvol);
  return true;
}

function publish(state: EngineState, disk: StoredDisk, lvstore: StoredLvstore, lvol: StoredLvol): string {
  const name = `${lvstore.name}/${lvol.name}`;
  const io = lvolIo(lvol, state.readOnlyStores.has(lvstore.uuid), (blocks) =>
    storedIo(
      blocks,
      () => state.engine.turn(),
      () => disk.broken,
    ),
  );
  const { uuid, numBlocks } = lvol;
  state.bdevs.set(name, makeBdev({ name, product: 'lvol', uuid, blockBytes, numBlocks }, io));
  state.lvols.set(name, { disk, lvol });
  return name;
}

function createLvol(state: EngineState, fields: Fields): string {
  const newName = lvolName(fields, 'lvol_name');
  const sizeMib = fields.natural('size_in_mib', 1, 2 ** 33);
  const [name, uuid] = which(fields, 'lvs_name', 'uuid');
  const thin = fields.booleanOr('thin_provision', false);
  const checksums = fields.booleanOr('checksums', false);
  const lvolUuid = fields.uuidOr('lvol_uuid', () => state.network.random.uuid());
  fields.end();
  const { disk, lvstore } = find(state, name, uuid);
  if (state.readOnlyStores.has(lvstore.uuid)) throw new Refused('io', `lvstore ${lvstore.name} is open read-only`);
  if (lvstore.lvols.has(newName)) throw new Refused('exists', `lvol ${lvstore.name}/${newName} exists`);
  const needed = Math.ceil((sizeMib * 1024 * 1024) / lvstore.clusterBytes);
  if (!thin && needed > freeClusters(lvstore))
    throw new Refused('noSpace', `lvstore ${lvstore.name} has ${freeClusters(lvstore)} free clusters, needs ${needed}`);
  const lvol: StoredLvol = {
    name: newName,
    uuid: lvolUuid,
    numBlocks: (sizeMib * 1024 * 1024) / blockBytes,
    thin,
    blocks: new SparseBlocks(blockBytes),
    readOnly: false,
    snapshot: false,
    checksums,
    gate: { epoch: 0n, holder: '' },
    note: '',
  };
  lvstore.lvols.set(newName, lvol);
  return publish(state, disk, lvstore, lvol);
}

interface Subject {
  readonly bdev: FakeBdev;
  readonly disk: StoredDisk;
  readonly lvstore: StoredLvstore;
  readonly lvol: StoredLvol;
}

/** The lvol that a method wants to change; it obeys its gate. */
function subject(state: EngineState, name: string, epoch: bigint): Subject {
  const bdev = state.bdev(name, 'lvol');
  const stored = state.lvols.get(bdev.name);
  const lvstore = stored?.disk.lvstore ?? null;
  if (stored === undefined || lvstore === null) throw new Refused('notFound', `lvol ${name} does not exist`);
  const recorded = stored.lvol.gate.epoch;
  if (recorded > epoch) throw new Refused('fenced', `${name} obeys epoch ${recorded}`, { epoch: recorded.toString() });
  return { bdev, disk: stored.disk, lvstore, lvol: stored.lvol };
}

const epochOf = (fields: Fields): bigint => (fields.has('epoch') ? fields.epoch('epoch') : 0n);

function lvolName(fields: Fields, field: string): string {
  const name = fields.string(field);
  if (name.includes('/')) fields.refuse(field, 'must not contain a slash');
  return name;
}

function needWritable(lvol: StoredLvol): void {
  if (lvol.readOnly) throw new Refused('invalid', `${lvol.name}: is read-only`);
}

function derive(snapshot: boolean): Handler {
  return (state, fields) => {
    const source = fields.string(snapshot ? 'lvol_name' : 'snapshot_name');
    const name = lvolName(fields, snapshot ? 'snapshot_name' : 'clone_name');
    const uuid = fields.uuidOr(snapshot ? 'snapshot_uuid' : 'clone_uuid', () => state.network.random.uuid());
    const epoch = epochOf(fields);
    fields.end();
    const { disk, lvstore, lvol } = subject(state, source, epoch);
    state.assertFree(`${lvstore.name}/${name}`);
    if (snapshot) needWritable(lvol);
    const layers = `layers below it already, the most there may be`;
    if (chain(lvol.blocks).length > depthMax)
      throw new Refused('unsupported', `${lvol.name}: has ${depthMax} ${layers}`);
    const below = lvol.blocks;
    if (!lvol.readOnly) lvol.blocks = new SparseBlocks(blockBytes, below);
    const made: StoredLvol = {
      name,
      uuid,
      numBlocks: lvol.numBlocks,
      thin: true,
      blocks: snapshot ? below : new SparseBlocks(blockBytes, below),
      readOnly: snapshot,
      snapshot,
      checksums: lvol.checksums,
      gate: snapshot ? { ...lvol.gate } : { epoch: 0n, holder: '' },
      note: snapshot ? lvol.note : '',
    };
    lvstore.lvols.set(name, made);
    return publish(state, disk, lvstore, made);
  };
}

/** Through the gate of a replica, which has judged already. */
export function snapshotLvol(state: EngineState, bdevName: string, name: string): void {
  const stored = state.lvols.get(bdevName);
  const lvstore = stored?.disk.lvstore ?? null;
  if (stored === undefined || lvstore === null) throw new Refused('notFound', `lvol ${bdevName} does not exist`);
  const { disk, lvol } = stored;
  if (disk.broken) throw new Refused('io', `${bdevName}: the disk fails`);
  state.assertFree(`${lvstore.name}/${name}`);
  const below = lvol.blocks;
  lvol.blocks = new SparseBlocks(blockBytes, below);
  const made: StoredLvol = {
    name,
    uuid: state.network.random.uuid(),
    numBlocks: lvol.numBlocks,
    thin: true,
    blocks: below,
    readOnly: true,
    snapshot: true,
    checksums: lvol.checksums,
    gate: { ...lvol.gate },
    note: lvol.note,
  };
  lvstore.lvols.set(name, made);
  publish(state, disk, lvstore, made);
}

function deleteLvol(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const epoch = epochOf(fields);
  fields.end();
  const { bdev, lvstore, lvol } = subject(state, name, epoch);
  state.destroy(bdev.name, 'lvol');
  state.lvols.delete(bdev.name);
  lvstore.lvols.delete(lvol.name);
  return true;
}

function resize(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const numBlocks = (fields.natural('size_in_mib', 1, 2 ** 33) * 1024 * 1024) / blockBytes;
  const epoch = epochOf(fields);
  fields.end();
  const { bdev, lvol } = subject(state, name, epoch);
  const user = bdev.claimedBy ?? bdev.openedBy[0];
  if (numBlocks < lvol.numBlocks && user !== undefined)
    throw new Refused('busy', `bdev ${bdev.name} cannot shrink: it is in use by ${user}`);
  needWritable(lvol);
  lvol.blocks.truncate(Math.min(numBlocks, lvol.numBlocks));
  lvol.numBlocks = numBlocks;
  bdev.numBlocks = numBlocks;
  return true;
}

function rename(state: EngineState, fields: Fields): true {
  const oldName = fields.string('old_name');
  const newName = lvolName(fields, 'new_name');
  const epoch = epochOf(fields);
  fields.end();
  const { bdev, disk, lvstore, lvol } = subject(state, oldName, epoch);
  if (newName === lvol.name) return true;
  state.assertFree(`${lvstore.name}/${newName}`);
  state.destroy(bdev.name, 'lvol');
  state.lvols.delete(bdev.name);
  lvstore.lvols.delete(lvol.name);
  lvol.name = newName;
  lvstore.lvols.set(newName, lvol);
  publish(state, disk, lvstore, lvol);
  return true;
}

function change(apply: (lvol: StoredLvol) => void): Handler {
  return (state, fields) => {
    const name = fields.string('name');
    const epoch = epochOf(fields);
    fields.end();
    apply(subject(state, name, epoch).lvol);
    return true;
  };
}

const takeParentIn = (all: boolean): Handler =>
  change((lvol) => {
    needWritable(lvol);
    lvol.blocks.takeParentIn(all);
  });

const setReadOnly = change((lvol) => {
  lvol.readOnly = true;
});

/** There is nothing on a fake disk that could be damaged. */
function fsck(state: EngineState, fields: Fields): unknown {
  const bdev = state.unused(state.bdev(fields.string('bdev_name')));
  fields.booleanOr('dump', false);
  fields.end();
  const lvstore = state.disks.get(bdev.name)?.lvstore ?? null;
  const problems = lvstore === null ? [{ severity: 'error', message: 'the device carries no lvstore' }] : [];
  return {
    sound: lvstore !== null,
    name: lvstore?.name ?? '',
    uuid: lvstore?.uuid ?? '00000000-0000-0000-0000-000000000000',
    generation: lvstore === null ? 0 : 1,
    problems,
    text: lvstore === null ? 'error: the device carries no lvstore\n' : 'no errors\n',
  };
}

/** The fake tells nothing about space. */
function setThresholds(state: EngineState, fields: Fields): true {
  const [name, uuid] = which(fields, 'lvs_name', 'uuid');
  let least = 1;
  for (const percent of fields.array('used_percent', 0, 16)) {
    if (!Number.isInteger(percent) || (percent as number) < least || (percent as number) > 100)
      fields.refuse('used_percent', 'must be ascending integers from 1 to 100');
    least = (percent as number) + 1;
  }
  fields.end();
  find(state, name, uuid);
  return true;
}

function deleteLvstore(state: EngineState, fields: Fields): true {
  const [name, uuid] = which(fields, 'lvs_name', 'uuid');
  fields.end();
  const { base, disk, lvstore } = find(state, name, uuid);
  if (state.readOnlyStores.has(lvstore.uuid)) throw new Refused('busy', `lvstore ${lvstore.name} is open read-only`);
  if (lvstore.lvols.size > 0) throw new Refused('busy', `lvstore ${lvstore.name} still holds lvols`);
  disk.lvstore = null;
  state.release([base]);
  return true;
}

function getLvstores(state: EngineState, fields: Fields): unknown {
  const name = fields.has('lvs_name') ? fields.string('lvs_name') : null;
  const uuid = fields.has('uuid') ? fields.string('uuid') : null;
  fields.end();
  const wanted = name === null && uuid === null ? loaded(state) : [find(state, name, uuid)];
  return wanted.map(({ base, lvstore }) => ({
    uuid: lvstore.uuid,
    name: lvstore.name,
    base_bdev: base,
    total_data_clusters: lvstore.totalClusters,
    free_clusters: freeClusters(lvstore),
    block_size: blockBytes,
    cluster_size: lvstore.clusterBytes,
    read_only: state.readOnlyStores.has(lvstore.uuid),
  }));
}

function describeLvol(
  lvstore: StoredLvstore,
  lvol: StoredLvol,
  { withSizes, withNotes }: { withSizes: boolean; withNotes: boolean },
): object {
  const lvols = [...lvstore.lvols.values()];
  const clusters = clustersOf(lvstore, lvol.blocks);
  const allocated = clusters * lvstore.clusterBytes;
  const read = lvols.some((other) => other !== lvol && chain(other.blocks).includes(lvol.blocks));
  // As coarse as the fake is: what anybody above reads counts as shared whole.
  const sizes = withSizes ? { exclusive_bytes: read ? 0 : allocated, shared_bytes: read ? allocated : 0 } : {};
  return {
    alias: `${lvstore.name}/${lvol.name}`,
    uuid: lvol.uuid,
    name: lvol.name,
    is_thin_provisioned: true,
    is_snapshot: lvol.snapshot,
    is_clone: lvol.blocks.parent !== null,
    is_read_only: lvol.readOnly,
    checksums: lvol.checksums,
    base_snapshot: baseOf(lvstore, lvol)?.name ?? null,
    clones: lvols.filter((other) => baseOf(lvstore, other) === lvol).map((other) => other.name),
    lvs: { name: lvstore.name, uuid: lvstore.uuid },
    num_blocks: lvol.numBlocks,
    num_allocated_clusters: clusters,
    allocated_bytes: allocated,
    epoch: lvol.gate.epoch.toString(),
    ...(withNotes ? { note: lvol.note } : {}),
    ...sizes,
  };
}

function getLvols(state: EngineState, fields: Fields): unknown {
  const name = fields.has('lvs_name') ? fields.string('lvs_name') : null;
  const uuid = fields.has('lvs_uuid') ? fields.string('lvs_uuid') : null;
  const withSizes = fields.booleanOr('sizes', false);
  const withNotes = fields.booleanOr('notes', false);
  fields.end();
  const wanted = name === null && uuid === null ? loaded(state) : [find(state, name, uuid)];
  return wanted.flatMap(({ lvstore }) =>
    [...lvstore.lvols.values()].map((lvol) => describeLvol(lvstore, lvol, { withSizes, withNotes })),
  );
}

function scrub(state: EngineState, fields: Fields): { checked_blocks: number; bad_blocks: number } {
  const name = fields.string('name');
  fields.naturalOr('bytes_per_s', 0, 0, 2 ** 40);
  const first = fields.naturalOr('first_block', 0, 0, 2 ** 52);
  const end = first + fields.naturalOr('num_blocks', 2 ** 52, 0, 2 ** 52);
  fields.end();
  const { disk, lvol } = subject(state, name, 2n ** 64n - 1n);
  const all = new Set(chain(lvol.blocks).flatMap((layer) => layer.written()));
  const held = [...all].filter((block) => block >= first && block < end).length;
  return { checked_blocks: held, bad_blocks: disk.broken ? held : 0 };
}

export const lvolMethods: Record<string, Handler> = {
  bdev_examine: examine,
  bdev_lvol_create_lvstore: createLvstore,
  bdev_lvol_delete_lvstore: deleteLvstore,
  bdev_lvol_get_lvstores: getLvstores,
  bdev_lvol_create: createLvol,
  bdev_lvol_delete: deleteLvol,
  bdev_lvol_get_lvols: getLvols,
  bdev_lvol_snapshot: derive(true),
  bdev_lvol_clone: derive(false),
  bdev_lvol_resize: resize,
  bdev_lvol_rename: rename,
  bdev_lvol_set_read_only: setReadOnly,
  bdev_lvol_inflate: takeParentIn(true),
  bdev_lvol_decouple_parent: takeParentIn(false),
  basalt_lvol_scrub: scrub,
  basalt_lvstore_fsck: fsck,
  basalt_lvstore_set_thresholds: setThresholds,
};
