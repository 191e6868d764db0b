// SPDX-License-Identifier: Apache-2.0
//
// The addon as it is: a thin door, internal to this folder. Every property is present, null where there is none.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BdevHandleInfo } from '../engine.js';

export interface AddonConfig {
  reactors: number;
  cores: number[];
  poll: 'adaptive' | 'busy' | 'interrupt';
  poller: 'automatic' | 'io_uring' | 'epoll';
  memoryBytes: number;
  rpcPath: string | null;
}

export interface AddonBdevHandle {
  info(): BdevHandleInfo;
  read(offsetBytes: number, view: ArrayBufferView): Promise<void>;
  write(offsetBytes: number, view: ArrayBufferView): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface AddonEngine {
  rpc(method: string, paramsJson: string): Promise<string>;
  onEvent(callback: (eventJson: string) => void): void;
  allocate(bytes: number): ArrayBuffer;
  openBdev(name: string): Promise<AddonBdevHandle>;
  close(): Promise<void>;
}

export interface AddonSimWorldConfig {
  seed: bigint;
  networkDelayMinNs: number;
  networkDelayMaxNs: number;
  diskDelayMinNs: number;
  diskDelayMaxNs: number;
  /** What a killed process' write to a disk, or a power cut, leaves or takes as a whole; sectors of 512 bytes. */
  diskAtomicBytes: number;
  shortTransferChance: number;
}

/** Bugs for the simulator to catch. */
export interface AddonPlantedBugs {
  noGate: boolean;
  noExportGate: boolean;
  forgetEpoch: boolean;
  ignoreLease: boolean;
  cutUnheld: boolean;
  cutJoining: boolean;
  awayUnmarked: boolean;
}

export interface AddonDiskFaults {
  failReads: boolean;
  failWrites: boolean;
  failFlushes: boolean;
  hang: boolean;
  extraDelayNs: number;
}

/** Of a way from one node to another. What is lost is sent again, and what follows on its connection waits for it. */
export interface AddonLink {
  lossChance: number;
  /** Doubled for each further loss. */
  retransmitNs: number;
  extraDelayNs: number;
}

/** Of a block: reads fail until it was rewritten, or it holds something else and nobody is told. */
export type AddonDiskDamage = 'unreadable' | 'changed';

/** native/napi/sim_world_handle.h */
export interface AddonSimWorld {
  createEngine(node: string, config: AddonConfig, planted: AddonPlantedBugs): AddonEngine;
  step(limitNs: number): number;
  deliver(): void;
  now(): number;
  traceHash(): bigint;
  kill(node: string): void;
  powerCut(node: string): void;
  pause(node: string): void;
  resume(node: string): void;
  partition(from: string, to: string): void;
  heal(one: string, other: string): void;
  healAll(): void;
  cut(one: string, other: string): void;
  setLink(from: string, to: string, link: AddonLink): void;
  clearLinks(): void;
  linkCounts(): { lost: number; slowed: number };
  jumpClock(node: string, aheadNs: number): void;
  setClockRate(node: string, partsPerMillion: number): void;
  setDisk(node: string, path: string, faults: AddonDiskFaults): void;
  readDisk(node: string, path: string, offsetBytes: number, bytes: Uint8Array): void;
  damageDisk(node: string, path: string, offsetBytes: number, how: AddonDiskDamage): void;
}

/** native/napi/mark_counter.h */
export interface AddonMarkCounter {
  counts(): { name: string; text: string; count: number }[];
}

export interface Addon {
  Engine: new (config: AddonConfig) => AddonEngine;
  SimWorld: new (config: AddonSimWorldConfig) => AddonSimWorld;
  MarkCounter: new () => AddonMarkCounter;
  /** native/napi/process_calls.h */
  refuseCoreDumps(): void;
}

/** The folder of package.json above this file: the same from the sources and from dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) || !existsSync(join(folder, 'binding.gyp'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('the package root with binding.gyp was not found above this file');
    folder = parent;
  }
  return folder;
}

/**
 * BASALT_ADDON names another build of the addon: one with sanitizers, or of a developer's own tree.
 * @throws {Error} that says how to build the addon when it is missing or does not load
 */
export function loadAddon(): Addon {
  const require = createRequire(import.meta.url);
  const other = process.env['BASALT_ADDON'];
  if (other !== undefined && other !== '') return require(other) as Addon;
  const bindings = require('bindings') as (options: object) => Addon;
  const root = packageRoot();
  try {
    return bindings({ bindings: 'basalt_native', module_root: root });
  } catch (cause) {
    const detail = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    const message = `the native engine could not be loaded (${detail}). Build it with: cd ${root} && npm run build`;
    throw new Error(message, { cause });
  }
}
