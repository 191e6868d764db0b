// SPDX-License-Identifier: Apache-2.0
//
// The durable half of the embedded server: an LMDB file that holds events, leases and the compacted
// revision. Knows bytes and transactions, not revisions.
//
// Invariants:  - commit() resolves only after data and the page that makes it valid are on stable media
//              - after a failed commit nothing more is written: what reached the disk is not known
//              - a directory is opened by one process, and only in a format that this version knows

import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import type { Random } from '../../env/random.js';
import { BasaltError } from '../../model/errors.js';
import { lockFile, readFormat, syncDirectory, writeFormat } from './format.js';
import { DirectoryLock } from './lock.js';
import type { Version } from './mvcc.js';
import {
  checkCrc,
  decodeLease,
  decodeLeaseKey,
  decodeVersion,
  encodeLease,
  encodeLeaseKey,
  encodeRevisionKey,
  encodeVersion,
  RecordDamaged,
  sealCrc,
} from './record.js';

export type Mutation =
  | { readonly kind: 'event'; readonly event: Version }
  | { readonly kind: 'forget'; readonly event: Version }
  | { readonly kind: 'lease'; readonly id: string; readonly ttlSeconds: number | null }
  | { readonly kind: 'compacted'; readonly revision: number };

export interface Stored {
  readonly events: Version[];
  readonly leases: { id: string; ttlSeconds: number }[];
  readonly compactRevision: number;
}

/** What the server calls itself; drawn once per store. */
export interface Identity {
  readonly clusterId: string;
  readonly memberId: string;
  /** As in the file FORMAT. */
  readonly storeId: string;
}

const dataDirectory = 'data';
const pageBytes = 4096;
const identityKey = Buffer.from('identity');
const compactedKey = Buffer.from('compacted');
const binary = { encoding: 'binary', keyEncoding: 'binary' } as const;

type Table = Database<Buffer, Buffer>;

export class Backend {
  readonly identity: Identity;
  readonly #directory: string;
  readonly #lock: DirectoryLock;
  readonly #root: RootDatabase<Buffer, Buffer>;
  readonly #kv: Table;
  readonly #lease: Table;
  readonly #meta: Table;

  private constructor(directory: string, lock: DirectoryLock, storeId: string | null, random: Random) {
    this.#directory = directory;
    this.#lock = lock;
    const path = join(directory, dataDirectory);
    this.#root = open<Buffer, Buffer>({
      path,
      noSubdir: false,
      overlappingSync: false,
      pageSize: pageBytes,
      maxDbs: 8,
      ...binary,
    });
    this.#kv = this.#root.openDB<Buffer, Buffer>({ name: 'kv', ...binary });
    this.#lease = this.#root.openDB<Buffer, Buffer>({ name: 'lease', ...binary });
    this.#meta = this.#root.openDB<Buffer, Buffer>({ name: 'meta', ...binary });
    if (storeId !== null) this.#meta.putSync(identityKey, drawIdentity(storeId, random));
    this.identity = decodeIdentity(this.#meta.get(identityKey));
  }

  static async open(givenDirectory: string, random: Random): Promise<Backend> {
    const directory = resolve(givenDirectory);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    readFormat(directory);
    const lock = DirectoryLock.take(directory, join(directory, lockFile));
    try {
      return await Backend.#openLocked(directory, lock, random);
    } catch (error) {
      lock.release();
      if (error instanceof RecordDamaged) throw damaged(directory, error.message);
      throw error;
    }
  }

  static async #openLocked(directory: string, lock: DirectoryLock, random: Random): Promise<Backend> {
    const format = readFormat(directory);
    const data = join(directory, dataDirectory);
    if (format?.state === 'ready') {
      if (!existsSync(join(data, 'data.mdb'))) throw damaged(directory, 'its data file is gone');
      const backend = new Backend(directory, lock, null, random);
      if (backend.identity.storeId === format.storeId) return backend;
      await backend.#root.close();
      throw damaged(directory, `its data belongs to store ${backend.identity.storeId}`);
    }
    // Nothing was acknowledged by a store that was never ready: begin again.
    const storeId = format?.storeId ?? random.uuid();
    writeFormat(directory, { storeId, compatible: 0, state: 'creating' });
    rmSync(data, { recursive: true, force: true });
    const backend = new Backend(directory, lock, storeId, random);
    syncDirectory(data);
    writeFormat(directory, { storeId, compatible: 0, state: 'ready' });
    return backend;
  }

  /** Everything stored, in order of revision. @throws {BasaltError} STORE_DAMAGED */
  load(): Stored {
    try {
      const events: Version[] = [];
      for (const { key, value } of this.#kv.getRange({})) events.push(decodeVersion(key, value));
      const leases = [...this.#lease.getRange({})].map(({ key, value }) => ({
        id: decodeLeaseKey(key),
        ttlSeconds: decodeLease(value),
      }));
      return { events, leases, compactRevision: decodeCompacted(this.#meta.get(compactedKey)) };
    } catch (error) {
      if (error instanceof RecordDamaged) throw damaged(this.#directory, error.message);
      throw error;
    }
  }

  /** Makes all of `mutations` durable in one transaction, or none. */
  async commit(mutations: readonly Mutation[]): Promise<void> {
    await this.#root.transaction(() => {
      for (const mutation of mutations) this.#apply(mutation);
    });
  }

  sizeBytes(): number {
    return statSync(join(this.#directory, dataDirectory, 'data.mdb')).size;
  }

  async close(): Promise<void> {
    try {
      await this.#root.close();
    } finally {
      this.#lock.release();
    }
  }

  #apply(mutation: Mutation): void {
    switch (mutation.kind) {
      case 'event':
        void this.#kv.put(
          encodeRevisionKey(mutation.event.modRevision, mutation.event.index),
          encodeVersion(mutation.event),
        );
        return;
      case 'forget':
        void this.#kv.remove(encodeRevisionKey(mutation.event.modRevision, mutation.event.index));
        return;
      case 'lease':
        if (mutation.ttlSeconds === null) void this.#lease.remove(encodeLeaseKey(mutation.id));
        else void this.#lease.put(encodeLeaseKey(mutation.id), encodeLease(mutation.ttlSeconds));
        return;
      case 'compacted':
        void this.#meta.put(compactedKey, encodeCompacted(mutation.revision));
    }
  }
}

function damaged(directory: string, detail: string): BasaltError {
  return new BasaltError('STORE_DAMAGED', { directory, detail });
}

/** 0 u32 CRC | 4 u64 cluster id | 12 u64 member id | 20 store id as in FORMAT */
function drawIdentity(storeId: string, random: Random): Buffer {
  return sealCrc(Buffer.concat([Buffer.alloc(4), random.bytes(16), Buffer.from(storeId)]));
}

function decodeIdentity(bytes: Buffer | undefined): Identity {
  if (bytes === undefined) throw new RecordDamaged('its identity is missing');
  checkCrc('identity', bytes, 20);
  return {
    clusterId: bytes.readBigUInt64BE(4).toString(),
    memberId: bytes.readBigUInt64BE(12).toString(),
    storeId: bytes.toString('utf8', 20),
  };
}

function encodeCompacted(revision: number): Buffer {
  const bytes = Buffer.allocUnsafe(12);
  bytes.writeBigInt64BE(BigInt(revision), 4);
  return sealCrc(bytes);
}

function decodeCompacted(bytes: Buffer | undefined): number {
  if (bytes === undefined) return -1;
  checkCrc('compacted revision', bytes, 12);
  return Number(bytes.readBigInt64BE(4));
}
