// SPDX-License-Identifier: Apache-2.0
//
// What survives a fake crash: disks by path, with the lvstore, the replicas' bytes and the gate's record on them.

import { SparseBlocks } from './blocks.js';

/** Kept with the replica: the highest epoch that was ever accepted and the association that holds it. */
export interface GateRecord {
  epoch: bigint;
  holder: string;
}

export interface StoredLvol {
  name: string;
  readonly uuid: string;
  numBlocks: number;
  readonly thin: boolean;
  /** Changes with a snapshot, which keeps the old ones. */
  blocks: SparseBlocks;
  readOnly: boolean;
  readonly snapshot: boolean;
  /** Said, and of no consequence: what the fake holds does not rot. */
  readonly checksums: boolean;
  gate: GateRecord;
  /** What who drives the replica has it keep, as hexadecimal digits. */
  note: string;
}

export interface StoredLvstore {
  readonly uuid: string;
  readonly name: string;
  readonly clusterBytes: number;
  readonly totalClusters: number;
  readonly lvols: Map<string, StoredLvol>;
}

export interface StoredDisk {
  readonly path: string;
  readonly sizeBytes: number;
  readonly blocks: SparseBlocks;
  lvstore: StoredLvstore | null;
  /** One process per disk. */
  lockedBy: object | null;
  /** I/O fails from now on. */
  broken: boolean;
}

export class FakeDisks {
  readonly #disks = new Map<string, StoredDisk>();

  /** Puts a disk there, as an operator would. */
  add(path: string, sizeBytes: number): StoredDisk {
    const blocks = new SparseBlocks(4096);
    const disk: StoredDisk = { path, sizeBytes, blocks, lvstore: null, lockedBy: null, broken: false };
    this.#disks.set(path, disk);
    return disk;
  }

  find(path: string): StoredDisk | null {
    return this.#disks.get(path) ?? null;
  }

  remove(path: string): void {
    this.#disks.delete(path);
  }
}
