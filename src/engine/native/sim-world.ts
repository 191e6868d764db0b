// SPDX-License-Identifier: Apache-2.0
//
// Native engines in a simulated world: any number of them in this process, on one virtual clock that only step() moves.
// For tests and simulations.
//
//   const clockwork = new SimClockwork(createSimWorld({ seed: 1n }));
//   const engine = clockwork.world.createEngine('d1', { clock: clockwork.time.clock() });
//   await clockwork.step(1e6);
//
// createEngine({ env: 'sim', seed }) is the short way to all of that.
//
// Invariants:  - nothing of an engine runs but inside step(); what it has to tell is delivered before step() returns
//              - one seed and the same calls give the same history: traceHash() tells
//              - a killed engine never answers what it was asked

import type { Clock } from '../../env/clock.js';
import type { Engine } from '../engine.js';
import {
  type AddonDiskDamage,
  type AddonDiskFaults,
  type AddonEngine,
  type AddonLink,
  type AddonPlantedBugs,
  type AddonSimWorld,
  type AddonSimWorldConfig,
  loadAddon,
} from './addon.js';
import { addonConfig, NativeEngine, type NativeEngineOptions } from './native-engine.js';

export interface SimWorldOptions extends Partial<Omit<AddonSimWorldConfig, 'seed'>> {
  readonly seed: bigint;
}

export interface SimEngineOptions extends Omit<NativeEngineOptions, 'clock' | 'cores' | 'rpcPath' | 'poll' | 'poller'> {
  readonly clock: Clock;
  readonly planted?: Partial<AddonPlantedBugs>;
  /** Hears of every call and its answer, and of every event. */
  readonly onTrace?: (what: string, text: string) => void;
}

const noBugs: AddonPlantedBugs = {
  noGate: false,
  noExportGate: false,
  forgetEpoch: false,
  ignoreLease: false,
  cutUnheld: false,
  cutJoining: false,
  awayUnmarked: false,
};

const sectorBytes = 512;

/** @throws {Error} when the addon is missing */
export function createSimWorld(options: SimWorldOptions): SimWorld {
  const addon = loadAddon();
  const defaults = {
    networkDelayMinNs: 5_000,
    networkDelayMaxNs: 50_000,
    diskDelayMinNs: 10_000,
    diskDelayMaxNs: 200_000,
    diskAtomicBytes: sectorBytes,
    shortTransferChance: 0.1,
  };
  return new SimWorld(new addon.SimWorld({ ...defaults, ...options }));
}

export class SimWorld {
  readonly #addon: AddonSimWorld;

  constructor(addon: AddonSimWorld) {
    this.#addon = addon;
  }

  get nowNs(): number {
    return this.#addon.now();
  }

  /** The engine of a new process on the node of that name, which is made when it is new. */
  createEngine(node: string, options: SimEngineOptions): Engine {
    const planted = { ...noBugs, ...options.planted };
    const config = addonConfig({ memoryBytes: 256 * 1024 * 1024, ...options });
    const engine = this.#addon.createEngine(node, config, planted);
    const { onTrace } = options;
    return new NativeEngine(onTrace === undefined ? engine : traced(engine, onTrace), options.clock);
  }

  /** Runs until an engine has something to tell, or the time is `limitNs`. `onTime` hears the time before that is told. */
  step(limitNs: number, onTime: (nowNs: number) => void): void {
    onTime(this.#addon.step(limitNs));
    this.#addon.deliver();
  }

  /** Of everything that happened natively. */
  traceHash(): bigint {
    return this.#addon.traceHash();
  }

  /** As SIGKILL: connections break, requests to disks in flight may or may not have happened. */
  kill(node: string): void {
    this.#addon.kill(node);
  }

  /** Kills, and what was not flushed is lost or torn. */
  powerCut(node: string): void {
    this.#addon.powerCut(node);
  }

  /** As SIGSTOP. */
  pause(node: string): void {
    this.#addon.pause(node);
  }

  resume(node: string): void {
    this.#addon.resume(node);
  }

  /** What `from` sends to `to` is held back until it is healed. */
  partition(from: string, to: string): void {
    this.#addon.partition(from, to);
  }

  heal(one: string, other: string): void {
    this.#addon.heal(one, other);
  }

  healAll(): void {
    this.#addon.healAll();
  }

  /** Resets every connection between the two. */
  cut(one: string, other: string): void {
    this.#addon.cut(one, other);
  }

  /** One way, in which what is lost comes later, and all that follows on its connection with it. */
  setLink(from: string, to: string, link: AddonLink): void {
    this.#addon.setLink(from, to, link);
  }

  clearLinks(): void {
    this.#addon.clearLinks();
  }

  /** How often links lost something, and how often they slowed it down. */
  get linkCounts(): { readonly lost: number; readonly slowed: number } {
    return this.#addon.linkCounts();
  }

  /** The engine's clock jumps ahead, as after a suspended machine wakes up. */
  jumpClock(node: string, aheadMs: number): void {
    this.#addon.jumpClock(node, Math.round(aheadMs * 1e6));
  }

  setClockRate(node: string, partsPerMillion: number): void {
    this.#addon.setClockRate(node, partsPerMillion);
  }

  setDisk(node: string, path: string, faults: Partial<AddonDiskFaults>): void {
    const none = { failReads: false, failWrites: false, failFlushes: false, hang: false, extraDelayNs: 0 };
    this.#addon.setDisk(node, path, { ...none, ...faults });
  }

  /** What a disk holds there, whatever its faults. */
  readDisk(node: string, path: string, at: { readonly offsetBytes: number; readonly bytes: Uint8Array }): void {
    this.#addon.readDisk(node, path, at.offsetBytes, at.bytes);
  }

  /** A block of 4 KiB, behind its user's back. */
  damageDisk(node: string, path: string, at: { readonly offsetBytes: number; readonly how: AddonDiskDamage }): void {
    this.#addon.damageDisk(node, path, at.offsetBytes, at.how);
  }
}

function traced(engine: AddonEngine, onTrace: (what: string, text: string) => void): AddonEngine {
  return {
    rpc: async (method, params) => {
      onTrace(method, params);
      const answer = await engine.rpc(method, params);
      onTrace(`${method} answer`, answer);
      return answer;
    },
    onEvent: (callback) =>
      engine.onEvent((event) => {
        onTrace('event', event);
        callback(event);
      }),
    allocate: (bytes) => engine.allocate(bytes),
    openBdev: (name) => engine.openBdev(name),
    close: () => engine.close(),
  };
}
