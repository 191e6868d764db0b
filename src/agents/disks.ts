// SPDX-License-Identifier: Apache-2.0
//
// Opens a node's disks: a disk that carries this cluster's lvstore is loaded, an empty one gets a new lvstore, anything
// else is refused untouched.

import { type Engine, isEngineError, type LvstoreDescription } from '../engine/engine.js';
import type { Random } from '../env/random.js';
import type { CompiledDisk } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import type { DiskObject } from '../model/objects.js';
import { formatVersion } from '../model/objects.js';
import { reason } from './context.js';

export interface OpenDisk {
  readonly config: CompiledDisk;
  readonly bdev: string;
  readonly lvstore: LvstoreDescription;
}

/** Where the bdevs of a node's disks come from. */
export interface DiskSource {
  /** Makes the disk a bdev of the engine, and gives its name. */
  open(disk: CompiledDisk, name: string): Promise<string>;
  close(bdev: string): Promise<void>;
}

/** Files and block devices that the engine opens itself. */
export function ownDisks(engine: Engine): DiskSource {
  return {
    open: (disk, name) => createBdev(engine, disk, name),
    close: async (bdev) => {
      await engine.rpc('bdev_aio_delete', { name: bdev });
    },
  };
}

export interface DiskOpener {
  readonly engine: Engine;
  /** @default ownDisks */
  readonly source?: DiskSource;
  readonly random: Random;
  readonly clusterId: string;
  readonly node: string;
}

const diskBlockBytes = 4096;
const probeBytes = 64 * 1024;
export const diskBytesMin = 16 * 1024 * 1024;

/** `field` is where the disk stands in the configuration. */
export async function openDisk(opener: DiskOpener, config: CompiledDisk, index: number): Promise<OpenDisk> {
  const field = `disks[${index}].path`;
  const source = opener.source ?? ownDisks(opener.engine);
  const bdev = await source.open(config, `disk-${opener.node}-${index}`).catch((error: unknown) => {
    throw new BasaltError('DISK_REFUSED', { field, path: config.path, problem: reason(error) }, { cause: error });
  });
  try {
    const found = await loadLvstore(opener.engine, bdev, config, field);
    const lvstore = found ?? (await createLvstore(opener, config, bdev, field));
    const owner = clusterOf(lvstore.name);
    const expected = opener.clusterId;
    if (owner !== expected) {
      throw new BasaltError('CLUSTER_MISMATCH', {
        field,
        path: config.path,
        found: owner ?? 'none of Basalt',
        expected,
      });
    }
    return { config, bdev, lvstore };
  } catch (error) {
    await source.close(bdev).catch(() => {});
    throw error;
  }
}

/** A file that is missing is made when the configuration gives its size; one that is there is never made anew. */
async function createBdev(engine: Engine, config: CompiledDisk, name: string): Promise<string> {
  const buffered = config.buffered ? { buffered: true } : {};
  const params = { name, filename: config.path, block_size: diskBlockBytes, ...buffered };
  try {
    return await engine.rpc('bdev_aio_create', params);
  } catch (error) {
    if (config.createBytes === null || !isMissing(error)) throw error;
    return engine.rpc('bdev_aio_create', { ...params, create_bytes: config.createBytes });
  }
}

function isMissing(error: unknown): boolean {
  return isEngineError(error, 'notFound') || isEngineError(error, 'noDevice');
}

async function loadLvstore(
  engine: Engine,
  bdev: string,
  config: CompiledDisk,
  field: string,
): Promise<LvstoreDescription | null> {
  try {
    await engine.rpc('bdev_examine', { name: bdev });
  } catch (error) {
    if (!isMissing(error)) {
      throw new BasaltError('DISK_REFUSED', { field, path: config.path, problem: reason(error) }, { cause: error });
    }
  }
  return lvstoreOn(engine, bdev);
}

export async function lvstoreOn(engine: Engine, bdev: string): Promise<LvstoreDescription | null> {
  const stores = await engine.rpc('bdev_lvol_get_lvstores', {});
  return stores.find((store) => store.base_bdev === bdev) ?? null;
}

async function createLvstore(
  opener: DiskOpener,
  config: CompiledDisk,
  bdev: string,
  field: string,
): Promise<LvstoreDescription> {
  const refuse = (problem: string): BasaltError =>
    new BasaltError('DISK_REFUSED', { field, path: config.path, problem });
  const handle = await opener.engine.openBdev(bdev);
  try {
    if (handle.info.sizeBytes < diskBytesMin)
      throw refuse(`it has ${handle.info.sizeBytes} bytes; at least ${diskBytesMin} are needed`);
    const head = opener.engine.allocate(probeBytes);
    await handle.read(0, new Uint8Array(head));
    // Whatever it is, somebody may need it.
    if (new Uint8Array(head).some((byte) => byte !== 0))
      throw refuse('it holds something else; wipe its first 64 KiB if that is not needed');
  } finally {
    await handle.close();
  }
  const name = lvstoreName(opener);
  await opener.engine.rpc('bdev_lvol_create_lvstore', { bdev_name: bdev, lvs_name: name }).catch((error: unknown) => {
    throw new BasaltError('DISK_REFUSED', { field, path: config.path, problem: reason(error) }, { cause: error });
  });
  const made = await lvstoreOn(opener.engine, bdev);
  if (made === null) throw refuse('its lvstore was made but is not there');
  return made;
}

/** `basalt.<cluster>.<random>`: an lvstore says itself which cluster it belongs to. */
function lvstoreName(opener: DiskOpener): string {
  return `basalt.${opener.clusterId.replaceAll('-', '')}.${opener.random.bytes(6).toString('hex')}`;
}

/** Null: it is none of Basalt. */
export function clusterOf(lvstore: string): string | null {
  const match = /^basalt\.([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})\.[0-9a-f]+$/.exec(lvstore);
  return match === null ? null : match.slice(1).join('-');
}

export function diskObject(opener: DiskOpener, disk: OpenDisk): DiskObject {
  const { lvstore } = disk;
  return {
    format: formatVersion,
    id: lvstore.uuid,
    cluster: opener.clusterId,
    node: opener.node,
    path: disk.config.path,
    lvstore: lvstore.name,
    clusterSizeBytes: lvstore.cluster_size,
    totalBytes: lvstore.total_data_clusters * lvstore.cluster_size,
    freeBytes: lvstore.free_clusters * lvstore.cluster_size,
    buffered: disk.config.buffered,
    class: disk.config.class,
    tags: [...disk.config.tags],
    weight: disk.config.weight,
  };
}
