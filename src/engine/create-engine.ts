// SPDX-License-Identifier: Apache-2.0
//
// One way to make an engine, whatever it stands on: the machine, or a simulated world whose time only step() moves.
// Simulated engines are for tests and simulations.
//
//   const engine = createEngine({ env: 'sim', seed: 1n });
//   const made = engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
//   await engine.step(1e6);   // a virtual millisecond: the answer is here, `made` is settled
//
// More engines of the same world, on other nodes: createEngine({ env: 'sim', beside: engine, node: 'n2' }).

import type { VirtualClock } from '../env/virtual-clock.js';
import type { Engine } from './engine.js';
import { createNativeEngine, type NativeEngineOptions } from './native/native-engine.js';
import { SimClockwork } from './native/sim-clockwork.js';
import { createSimWorld, type SimEngineOptions, type SimWorld, type SimWorldOptions } from './native/sim-world.js';

export interface MachineEngineOptions extends NativeEngineOptions {
  /** @default 'machine' */
  readonly env?: 'machine';
}

type InWorld = Omit<SimEngineOptions, 'clock'> & {
  readonly env: 'sim';
  /** The node that it is the process of; one lives on a node at a time. @default 'n1' */
  readonly node?: string;
};
export type NewWorldOptions = InWorld & SimWorldOptions & { readonly beside?: undefined };
export type SameWorldOptions = InWorld & { readonly beside: SimEngine };

export interface SimEngine extends Engine {
  readonly node: string;
  /** For faults: partitions, kills, disks. */
  readonly world: SimWorld;
  readonly clockwork: SimClockwork;
  /** The engine's time, for what runs beside it. */
  readonly clock: VirtualClock;
  readonly nowNs: number;
  /** Lets `ns` nanoseconds go by for every engine of the world; resolves when all that follows is done. */
  step(ns: number): Promise<void>;
}

/** @throws {Error} when the addon is missing, or what the engine needs is refused */
export function createEngine(options: NewWorldOptions | SameWorldOptions): SimEngine;
export function createEngine(options?: MachineEngineOptions): Engine;
export function createEngine(options: MachineEngineOptions | NewWorldOptions | SameWorldOptions = {}): Engine {
  if (options.env !== 'sim') return createNativeEngine(options);
  const clockwork = options.beside?.clockwork ?? new SimClockwork(newWorld(options as NewWorldOptions));
  return simEngine(clockwork, options);
}

function newWorld(options: NewWorldOptions): SimWorld {
  const { seed, networkDelayMinNs, networkDelayMaxNs, diskDelayMinNs, diskDelayMaxNs } = options;
  const { diskAtomicBytes, shortTransferChance } = options;
  const delays = { networkDelayMinNs, networkDelayMaxNs, diskDelayMinNs, diskDelayMaxNs };
  const knobs = { ...delays, diskAtomicBytes, shortTransferChance };
  const given = Object.entries(knobs).filter(([, value]) => value !== undefined);
  return createSimWorld({ seed, ...Object.fromEntries(given) });
}

function simEngine(clockwork: SimClockwork, options: InWorld): SimEngine {
  const { node = 'n1' } = options;
  const clock = clockwork.time.clock();
  const engine = clockwork.world.createEngine(node, { ...options, clock });
  return {
    rpc: (method, ...args) => engine.rpc(method, ...args),
    on: (event, listener) => engine.on(event, listener),
    allocate: (bytes) => engine.allocate(bytes),
    openBdev: (name) => engine.openBdev(name),
    close: () => engine.close(),
    node,
    world: clockwork.world,
    clockwork,
    clock,
    get nowNs() {
      return clockwork.nowNs;
    },
    step: (ns) => clockwork.step(ns),
  };
}
