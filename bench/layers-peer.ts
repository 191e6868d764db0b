// SPDX-License-Identifier: Apache-2.0
// The rows of `layers` beside SPDK's bdevs: which stack of SPDK does the same work, and why there is none where there is none.
//
// The bdev below is memory, or forgets, as in basalt_layers. SPDK's lvstore reads its metadata back: where ours lies on
// a device that forgets, SPDK's lies on a concat of a little memory and such a device. What the layer adds is compared with what the
// other one adds, and the whole request with the whole request.

import type { Bdevperf, PeerLoad } from './bdevperf.js';

export interface PeerStack {
  readonly load: PeerLoad;
  /** What the load is for stands on this bdev, which is measured by itself in another process. */
  readonly below: string;
  readonly buildBelow: (spdk: Bdevperf, forLayer: boolean) => Promise<void>;
  readonly layer: string;
  readonly buildLayer: (spdk: Bdevperf) => Promise<void>;
  /** Of the process. */
  readonly memoryMib: number;
  /** Before each run of the layer. */
  readonly again?: (spdk: Bdevperf) => Promise<void>;
  /** Reads find data: written by requests of so many bytes. */
  readonly fillBytes?: number;
  /** So many requests are what is compared; those after them are of another kind. */
  readonly requests?: number;
}

const MiB = 1024 * 1024;
const KiB = 1024;
const blockBytes = 4096;
const metadataMib = 384;
const tibMib = 1024 * 1024;
/** Of 3+1: raid5f takes nothing less. */
const fullStripeBytes = 192 * KiB;

const write = (depth: number, bytes = blockBytes): PeerLoad => ({ workload: 'write', depth, bytes });
const read = (depth: number): PeerLoad => ({ workload: 'read', depth, bytes: blockBytes });

async function malloc(spdk: Bdevperf, name: string, mib: number): Promise<void> {
  await spdk.call('bdev_malloc_create', { name, num_blocks: (mib * MiB) / blockBytes, block_size: blockBytes });
}

async function raid(spdk: Bdevperf, name: string, raid_level: string, base_bdevs: string[]): Promise<void> {
  const strips = raid_level === 'raid1' ? {} : { strip_size_kb: 64 };
  await spdk.call('bdev_raid_create', { name, raid_level, base_bdevs, ...strips });
}

async function store(spdk: Bdevperf, clear_method = 'none'): Promise<void> {
  const options = { clear_method, num_md_pages_per_cluster_ratio: 10 };
  await spdk.call('bdev_lvol_create_lvstore', { bdev_name: 'base', lvs_name: 'lvs', ...options });
}

/** What is left of the memory is taken, so that lvols lie on what forgets. */
async function storeOnForgetful(spdk: Bdevperf): Promise<void> {
  await store(spdk);
  await lvol(spdk, metadataMib, false, 'filler');
}

/** 2 TiB that forget behind memory for an lvstore's metadata; where there is none, behind next to nothing. */
async function forgetful(spdk: Bdevperf, forLayer: boolean): Promise<void> {
  await malloc(spdk, 'metadata', forLayer ? metadataMib : 1);
  await spdk.call('bdev_null_create', {
    name: 'data',
    num_blocks: (2 * tibMib * MiB) / blockBytes,
    block_size: blockBytes,
  });
  await raid(spdk, 'base', 'concat', ['metadata', 'data']);
}

async function lvol(spdk: Bdevperf, size_in_mib: number, thin_provision: boolean, lvol_name = 'a'): Promise<void> {
  const options = { size_in_mib, thin_provision, clear_method: 'none' };
  await spdk.call('bdev_lvol_create', { lvs_name: 'lvs', lvol_name, ...options });
}

/** Names that were not used before, in each process. */
function snapshots(): (spdk: Bdevperf) => Promise<void> {
  const counts = new WeakMap<Bdevperf, number>();
  return async (spdk) => {
    const count = counts.get(spdk) ?? 0;
    counts.set(spdk, count + 1);
    await spdk.call('bdev_lvol_snapshot', { lvol_name: 'lvs/a', snapshot_name: `s${count}` });
  };
}

const lvolRow = { below: 'base', buildBelow: forgetful, layer: 'lvs/a', memoryMib: 1536 } as const;

function overwritten(depth: number): PeerStack {
  return {
    ...lvolRow,
    load: write(depth),
    buildLayer: async (spdk) => {
      await storeOnForgetful(spdk);
      await lvol(spdk, tibMib, false);
    },
  };
}

function readBelow(count: number): PeerStack {
  const snapshot = snapshots();
  return {
    ...lvolRow,
    load: read(32),
    buildLayer: async (spdk) => {
      await storeOnForgetful(spdk);
      await lvol(spdk, 32, false);
      for (let i = 0; i < count; i += 1) await snapshot(spdk);
    },
  };
}

/** In memory, so that what is copied is. */
function firstWrittenInMemory(load: PeerLoad, mib: number, requests: number): PeerStack {
  let count = 0;
  return {
    ...lvolRow,
    load,
    requests,
    memoryMib: 3 * mib + 1024,
    buildBelow: (spdk) => malloc(spdk, 'base', 2 * mib + 128),
    // The system's work on memory that nobody touched yet is none of the layer's.
    buildLayer: (spdk) => store(spdk, 'write_zeroes'),
    // A thick lvol's snapshot has all of its clusters.
    again: async (spdk) => {
      if (count > 0) {
        await spdk.call('bdev_lvol_delete', { name: 'lvs/a' });
        await spdk.call('bdev_lvol_delete', { name: `lvs/s${count - 1}` });
      }
      await lvol(spdk, mib, false);
      await spdk.call('bdev_lvol_snapshot', { lvol_name: 'lvs/a', snapshot_name: `s${count}` });
      count += 1;
    },
  };
}

function raided(level: string, count: number, load: PeerLoad): PeerStack {
  const names = Array.from({ length: count }, (_, i) => `m${i}`);
  return {
    load,
    layer: 'r',
    below: 'm0',
    memoryMib: 1024,
    ...(load.workload === 'read' ? { fillBytes: fullStripeBytes } : {}),
    buildBelow: async (spdk) => {
      for (const name of names) await malloc(spdk, name, 64);
    },
    buildLayer: (spdk) => raid(spdk, 'r', level, names),
  };
}

function freshlySnapshot(): PeerStack {
  const snapshot = snapshots();
  return {
    ...lvolRow,
    load: write(32),
    buildLayer: async (spdk) => {
      await storeOnForgetful(spdk);
      await lvol(spdk, tibMib, false);
    },
    again: snapshot,
  };
}

function freshlyThin(): PeerStack {
  let made = false;
  return {
    ...lvolRow,
    load: write(32),
    buildLayer: storeOnForgetful,
    again: async (spdk) => {
      if (made) await spdk.call('bdev_lvol_delete', { name: 'lvs/a' });
      await lvol(spdk, tibMib, true);
      made = true;
    },
  };
}

/** By the name of ours. A stack is for one process: what it counts begins with it. */
export const peerStacks: Readonly<Record<string, () => PeerStack>> = {
  'lvol/overwrite/4k/qd1': () => overwritten(1),
  'lvol/overwrite/4k/qd32': () => overwritten(32),
  'lvol/first-write/4k/qd32': freshlyThin,
  'lvol/first-write-over-snapshot/4k/qd32': freshlySnapshot,
  'lvol-in-memory/first-write-over-snapshot/4k/qd32': () => firstWrittenInMemory(write(32), 256, 65_536),
  'lvol-in-memory/random-first-write-over-snapshot/4k/qd32': () =>
    firstWrittenInMemory({ ...write(32), workload: 'randwrite' }, 256, 1024),
  'lvol/read/4k/qd32/snapshots0': () => readBelow(0),
  'lvol/read/4k/qd32/snapshots1': () => readBelow(1),
  'lvol/read/4k/qd32/snapshots64': () => readBelow(64),
  'raid0/write/4k/qd32': () => raided('raid0', 4, write(32)),
  'raid1/2-copies/write/4k/qd32': () => raided('raid1', 2, write(32)),
  'raid1/3-copies/write/4k/qd32': () => raided('raid1', 3, write(32)),
  'raid1/2-copies/read/4k/qd32': () => raided('raid1', 2, read(32)),
  'raid5/3+1/full-stripe/192k/qd1': () => raided('raid5f', 4, write(1, fullStripeBytes)),
  'raid5/3+1/read/4k/qd32': () => raided('raid5f', 4, read(32)),
};

const wholeStripes = 'raid5f takes whole stripes only';
const noChecksums = 'it has no checksums of blocks';
const noLevel = 'it has no level with two parities or more';
const noCrypto = 'its encryption is a part that builds seldom have';
const noRebuild = 'its rebuild has no bdevperf';

/** Beginnings of names of ours, and why SPDK does not do that work. */
export const withoutPeer: Readonly<Record<string, string>> = {
  'lvol-checksums/': noChecksums,
  'raid5/3+1/partial-stripe/': wholeStripes,
  'raid6/': noLevel,
  'parity/': noLevel,
  'crypt/': noCrypto,
  'rebuild/': noRebuild,
};

export function whyNoPeer(name: string): string | null {
  const [, reason = null] = Object.entries(withoutPeer).find(([beginning]) => name.startsWith(beginning)) ?? [];
  return reason;
}
