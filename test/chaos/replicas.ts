// SPDX-License-Identifier: Apache-2.0
// Compares the replicas of every leg, after all daemons have ended: an engine of this process opens the disks and reads
// each lvol's part of the volume. What lies behind it, the tail, is each member's own.

import { createHash } from 'node:crypto';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import type { VolumeView } from '../../src/model/api.js';
import { blockBytes, readStamp } from './stamp.js';

export interface ReplicaImage {
  readonly volume: string;
  readonly leg: number;
  readonly node: string;
  readonly sha256: string;
  /** In the words of the history format, always with their block. */
  readonly values: readonly string[];
}

const chunkBlocks = 64;

/** `disks` maps the node's name to its disk's path. */
export async function readReplicas(
  volumes: readonly VolumeView[],
  disks: ReadonlyMap<string, string>,
): Promise<ReplicaImage[]> {
  const engine = createNativeEngine();
  try {
    for (const [node, path] of disks) {
      await engine.rpc('bdev_aio_create', { name: node, filename: path, block_size: blockBytes });
      await engine.rpc('bdev_examine', { name: node });
    }
    const lvols = await engine.rpc('bdev_lvol_get_lvols', {});
    const images: ReplicaImage[] = [];
    for (const volume of volumes) {
      for (const [leg, replicas] of volume.legs.entries()) {
        for (const { replica, node } of replicas) {
          const lvol = lvols.find((candidate) => candidate.name === replica);
          if (lvol === undefined) throw new Error(`${volume.name}, leg ${leg}: no replica ${replica} on ${node}`);
          const handle = await engine.openBdev(lvol.alias);
          const hash = createHash('sha256');
          const values: string[] = [];
          const buffer = Buffer.from(engine.allocate(chunkBlocks * blockBytes));
          const legBlocks = Math.ceil(volume.sizeBytes / volume.legs.length / blockBytes);
          for (let at = 0; at < legBlocks; at += chunkBlocks) {
            const count = Math.min(chunkBlocks, legBlocks - at);
            const bytes = buffer.subarray(0, count * blockBytes);
            await handle.read(at * blockBytes, bytes);
            hash.update(bytes);
            for (let block = 0; block < count; block++)
              values.push(wordOf(bytes.subarray(block * blockBytes, (block + 1) * blockBytes)));
          }
          await handle.close();
          images.push({ volume: volume.name, leg, node, sha256: hash.digest('hex'), values });
        }
      }
    }
    return images;
  } finally {
    await engine.close();
  }
}

function wordOf(block: Buffer): string {
  const { kind, stamp } = readStamp(block);
  if (kind !== 'stamp' || stamp === null) return kind;
  return `w${stamp.writer}#${stamp.sequence}@${stamp.block}`;
}

/** Legs whose replicas differ, in words. */
export function differences(images: readonly ReplicaImage[]): string[] {
  const legs = new Map<string, ReplicaImage[]>();
  for (const image of images) {
    const key = `${image.volume}, leg ${image.leg}`;
    legs.set(key, [...(legs.get(key) ?? []), image]);
  }
  const found: string[] = [];
  for (const [leg, [first, ...others]] of legs) {
    for (const other of others) {
      if (first === undefined || other.sha256 === first.sha256) continue;
      const at = other.values.findIndex((value, index) => value !== first.values[index]);
      const blocks = other.values.filter((value, index) => value !== first.values[index]).length;
      found.push(
        `${leg}: ${blocks} blocks differ, the first at ${at}: ${first.node} ${first.values[at]}, ${other.node} ${other.values[at]}`,
      );
    }
  }
  return found;
}
