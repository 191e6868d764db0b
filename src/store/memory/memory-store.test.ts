// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleepOn, systemClock } from '../../env/clock.js';
import { type StoreHarness, storeContract } from '../contract.js';
import { MemoryServer } from './memory-store.js';

const hurry = 20;

/** Runs faster than the real one, so that leases end while one waits. */
const hurriedClock: Clock = {
  now: () => systemClock.now() * hurry,
  wallMs: () => systemClock.wallMs(),
  setTimer: (delayMs, fn) => systemClock.setTimer(delayMs / hurry, fn),
  sleep: (delayMs, signal) => sleepOn(hurriedClock, delayMs, signal),
};

storeContract('memory', async (): Promise<StoreHarness> => {
  const server = new MemoryServer(hurriedClock);
  return {
    clock: hurriedClock,
    connect: () => server.connect(),
    compact: async (revision) => server.compact(revision),
    stop: async () => {
      server.away = true;
    },
    start: async () => {
      server.away = false;
    },
    close: async () => {},
  };
});
