// SPDX-License-Identifier: Apache-2.0
//
// The fake's lvstores and lvols; what they hold lives on the disk and survives the engine.

import { makeBdev, storedIo } from './bdev.js';
import { SparseBlocks } from './blocks.js';
import type { StoredDisk, StoredLvol, StoredLvstore } from './disk.js';
import type { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { Refused } from './refusal.js';
import type { EngineState } from './state.js';

const blockBytes = 4096;
const clusterBytesDefault = 1024 * 1024;
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

const clustersOf = (lvstore: StoredLvstore, lvol: StoredLvol): number => {
  const per = lvstore.clusterBytes / blockBytes;
  return new Set(lvol.blocks.written().map((block) => Math.floor(block / per))).size;
};

function freeClusters(lvstore: StoredLvstore): number {
  let used = 0;
  for (const lvol of lvstore.lvols.values()) used += clustersOf(lvstore, lvol);
  return lvstore.totalClusters - used;
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
  fields.end();
  const bdev = state.bdev(name);
  const disk = state.disks.get(bdev.name);
  if (disk === undefined || disk.lvstore === null) throw new Refused('notFound', `bdev ${name} carries no lvstore`);
  if (bdev.claimedBy === lvsUser(disk.lvstore)) return true;
  state.unused(bdev);
  bdev.claimedBy = lvsUser(disk.lvstore);
  for (const lvol of disk.lvstore.lvols.values()) publish(state, disk, disk.lvstore, lvol);
  return true;
}

function publish(state: EngineState, disk: StoredDisk, lvstore: StoredLvstore, lvol: StoredLvol): string {
  const name = `${lvstore.name}/${lvol.name}`;
  const io = storedIo(
    lvol.blocks,
    () => state.engine.turn(),
    () => disk.broken,
  );
  const { uuid, numBlocks } = lvol;
  state.bdevs.set(name, makeBdev({ name, product: 'lvol', uuid, blockBytes, numBlocks }, io));
  state.lvols.set(name, { disk, lvol });
  return name;
}

function createLvol(state: EngineState, fields: Fields): string {
  const lvolName = fields.string('lvol_name');
  if (lvolName.includes('/')) fields.refuse('lvol_name', 'must not contain a slash');
  const sizeMib = fields.natural('size_in_mib', 1, 2 ** 33);
  const [name, uuid] = which(fields, 'lvs_name', 'uuid');
  const thin = fields.booleanOr('thin_provision', false);
  const lvolUuid = fields.uuidOr('lvol_uuid', () => state.network.random.uuid());
  fields.end();
  const { disk, lvstore } = find(state, name, uuid);
  if (lvstore.lvols.has(lvolName)) throw new Refused('exists', `lvol ${lvstore.name}/${lvolName} exists`);
  const needed = Math.ceil((sizeMib * 1024 * 1024) / lvstore.clusterBytes);
  if (!thin && needed > freeClusters(lvstore))
    throw new Refused('noSpace', `lvstore ${lvstore.name} has ${freeClusters(lvstore)} free clusters, needs ${needed}`);
  const lvol: StoredLvol = {
    name: lvolName,
    uuid: lvolUuid,
    numBlocks: (sizeMib * 1024 * 1024) / blockBytes,
    thin,
    blocks: new SparseBlocks(blockBytes),
    gate: { epoch: 0n, holder: '' },
  };
  lvstore.lvols.set(lvolName, lvol);
  return publish(state, disk, lvstore, lvol);
}

function deleteLvol(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  const epoch = fields.has('epoch') ? fields.epoch('epoch') : 0n;
  fields.end();
  const bdev = state.bdev(name, 'lvol');
  const stored = state.lvols.get(bdev.name);
  if (stored === undefined) throw new Refused('notFound', `lvol ${name} does not exist`);
  const recorded = stored.lvol.gate.epoch;
  if (recorded > epoch) throw new Refused('fenced', `${name} obeys epoch ${recorded}`, { epoch: recorded.toString() });
  state.destroy(bdev.name, 'lvol');
  state.lvols.delete(bdev.name);
  stored.disk.lvstore?.lvols.delete(stored.lvol.name);
  return true;
}

function deleteLvstore(state: EngineState, fields: Fields): true {
  const [name, uuid] = which(fields, 'lvs_name', 'uuid');
  fields.end();
  const { base, disk, lvstore } = find(state, name, uuid);
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
  }));
}

function getLvols(state: EngineState, fields: Fields): unknown {
  const name = fields.has('lvs_name') ? fields.string('lvs_name') : null;
  const uuid = fields.has('lvs_uuid') ? fields.string('lvs_uuid') : null;
  fields.end();
  const wanted = name === null && uuid === null ? loaded(state) : [find(state, name, uuid)];
  return wanted.flatMap(({ lvstore }) =>
    [...lvstore.lvols.values()].map((lvol) => ({
      alias: `${lvstore.name}/${lvol.name}`,
      uuid: lvol.uuid,
      name: lvol.name,
      is_thin_provisioned: true,
      lvs: { name: lvstore.name, uuid: lvstore.uuid },
      num_blocks: lvol.numBlocks,
      allocated_bytes: clustersOf(lvstore, lvol) * lvstore.clusterBytes,
      epoch: lvol.gate.epoch.toString(),
    })),
  );
}

export const lvolMethods: Record<string, Handler> = {
  bdev_examine: examine,
  bdev_lvol_create_lvstore: createLvstore,
  bdev_lvol_delete_lvstore: deleteLvstore,
  bdev_lvol_get_lvstores: getLvstores,
  bdev_lvol_create: createLvol,
  bdev_lvol_delete: deleteLvol,
  bdev_lvol_get_lvols: getLvols,
};
