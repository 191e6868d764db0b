// SPDX-License-Identifier: Apache-2.0
//
// Goal: what a process says about itself stays true in the store. Method: a link over a memory store on virtual time;
// the test puts what a lost, late request would.

import { describe, expect, it } from 'vitest';
import { quiet, VirtualTime } from '../env/virtual-clock.js';
import { MemoryServer } from '../store/memory/memory-store.js';
import { StoreLink } from './store-link.js';
import { quietLog } from './testing/cluster-bed.js';

const key = '/basalt/v1/observed/volumes/v/c1';

async function pass(time: VirtualTime, ms: number): Promise<void> {
  const endNs = time.nowNs + ms * 1e6;
  for (;;) {
    await quiet();
    if (time.fireOne()) continue;
    if (time.nowNs >= endNs) return;
    time.advanceTo(Math.min(time.nextNs() ?? endNs, endNs));
  }
}

async function bench(): Promise<{ time: VirtualTime; server: MemoryServer; link: StoreLink; signal: AbortSignal }> {
  const time = new VirtualTime(0);
  const clock = time.clock();
  const server = new MemoryServer(clock);
  const link = new StoreLink({ store: server.connect(), clock, log: quietLog, leaseTtlSeconds: 2 });
  const { signal } = new AbortController();
  await link.open(signal);
  return { time, server, link, signal };
}

describe('what a link put with a lease', () => {
  it('is put again when an older put is carried out after it', async () => {
    const { time, server, link, signal } = await bench();
    await link.commit({ put: [{ key, text: '"old"', leased: true }] }, signal);
    const leaseId = server.get(key)?.leaseId ?? null;
    await link.commit({ put: [{ key, text: '"new"', leased: true }] }, signal);
    server.apply([{ kind: 'put', key, value: '"old"', leaseId }]);
    await pass(time, 2_000);
    expect(server.get(key)?.value.toString()).toBe('"new"');
    await link.close();
  });

  it('is written once while the store holds it', async () => {
    const { time, server, link, signal } = await bench();
    for (const text of ['"a"', '"b"', '"c"']) await link.commit({ put: [{ key, text, leased: true }] }, signal);
    const { revision } = server;
    await pass(time, 10_000);
    expect(server.revision).toBe(revision);
    await link.close();
  });

  it('is all put again after its lease was lost, however much it is', async () => {
    const { time, server, link, signal } = await bench();
    const count = 300;
    for (let index = 0; index < count; index++)
      await link.commit({ put: [{ key: `${key}-${index}`, text: '"a"', leased: true }] }, signal);
    server.away = true;
    await pass(time, 10_000);
    server.away = false;
    await pass(time, 10_000);
    expect(server.list(`${key}-`)).toHaveLength(count);
    await link.close();
  });

  it('stays away once it was removed', async () => {
    const { time, server, link, signal } = await bench();
    await link.commit({ put: [{ key, text: '"a"', leased: true }] }, signal);
    await link.commit({ remove: [key] }, signal);
    await pass(time, 5_000);
    expect(server.get(key)).toBeNull();
    await link.close();
  });
});
