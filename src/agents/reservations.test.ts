// SPDX-License-Identifier: Apache-2.0
// Reservations of hosts on whole clusters (memory store, fake engines): the same on all paths, whatever happens.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachVolume, deleteVolume, detachVolume } from '../api/volumes.js';
import type { HostReservationParams, HostReservationResult } from '../engine/engine.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { systemClock } from '../env/clock.js';
import type { VolumeView } from '../model/api.js';
import { keys, nqns } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import type { ReservationObject } from '../model/reservations.js';
import { ClusterBed } from './testing/cluster-bed.js';

const hostnqn = (n: number): string => `nqn.2025-01.io.basalt:host:${n}`;
const hostid = (n: number): string => `00000000-0000-4000-8000-00000000000${n}`;
const writeExclusive = 1;
const registrantsOnly = 3;
const conflict = 0x083;
const interrupted = 0x021;
const inaccessible = 0x302;
const code = (result: HostReservationResult): number => result.status & 0x7ff;

let bed: ClusterBed;
let volumeId: string;
const hosts: FakeEngine[] = [];

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await Promise.all(['c1', 'c2'].map((name) => bed.startController(name)));
  const { id } = await bed.create({ name: 'v1' });
  volumeId = id;
  for (const n of [1, 2, 3]) await attachVolume(bed.api, 'v1', { host: hostnqn(n) });
  await bed.redundant('v1');
});

afterEach(async () => {
  for (const engine of hosts.splice(0)) await engine.close();
  await bed.close();
});

/** A host with a path to each controller that it was connected to. */
class Host {
  readonly engine: FakeEngine;

  constructor(readonly n: number) {
    this.engine = new FakeEngine(`host${n}`, bed.network);
    hosts.push(this.engine);
  }

  /** When the node can be reached: what the store shows of it may be from before it was killed. */
  async connect(node: string): Promise<this> {
    const subnqn = nqns.volume(volumeId);
    const ids = { subnqn, hostnqn: hostnqn(this.n), hostid: hostid(this.n) };
    await until(`a path to ${node}`, async () => {
      const address = (await bed.view('v1')).paths.find((each) => each.node === node)?.address;
      if (address === null || address === undefined) return false;
      const attaching = this.engine.rpc('bdev_nvme_attach_controller', {
        name: node,
        trtype: 'TCP',
        ...address,
        ...ids,
      });
      return attaching.then(
        () => true,
        () => false,
      );
    });
    return this;
  }

  run(node: string, params: Omit<HostReservationParams, 'name'>): Promise<HostReservationResult> {
    return this.engine.rpc('basalt_nvme_reservation', { name: `${node}n1`, timeout_ms: 20_000, ...params });
  }

  register(node: string): Promise<HostReservationResult> {
    return this.run(node, { action: 'register', new_key: this.n });
  }

  acquire(node: string, rtype: number): Promise<HostReservationResult> {
    return this.run(node, { action: 'acquire', key: this.n, rtype });
  }

  async write(node: string): Promise<void> {
    const handle = await this.engine.openBdev(`${node}n1`);
    try {
      await handle.write(0, new Uint8Array(4096).fill(this.n));
    } finally {
      await handle.close();
    }
  }
}

const both = async (n: number): Promise<Host> => (await new Host(n).connect('c1')).connect('c2');

function stored(): ReservationObject | null {
  const entry = bed.server.get(keys.reservation(volumeId));
  if (entry === null || entry === undefined) return null;
  return codecs.reservation.decode(entry.value.toString(), entry.key);
}

async function inForce(node: string): Promise<{ version: number; rtype: number; registrants: object[] }> {
  return bed.node(node).engine.rpc('basalt_ns_get_reservation', { nqn: nqns.volume(volumeId), nsid: 1 });
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = systemClock.now() + 20_000;
  while (!(await holds())) {
    if (systemClock.now() > endMs) throw new Error(`not in time: ${what}`);
    await systemClock.sleep(5);
  }
}

describe('a reservation of a host', () => {
  it('is durable before the command ends, and the same on the controller that stands by', async () => {
    const [first, second] = [await both(1), await both(2)];
    expect(code(await first.register('c1'))).toBe(0);
    expect(stored()).toMatchObject({ version: 1, registrants: [{ host: hostid(1), key: '1' }] });
    expect(code(await first.acquire('c1', writeExclusive))).toBe(0);
    expect(stored()).toMatchObject({ version: 2, rtype: writeExclusive, holder: hostid(1) });
    await first.write('c1');
    await expect(second.write('c1')).rejects.toMatchObject({ isReservationConflict: true });
    // A path that does not serve does not change anything either.
    expect(code(await second.run('c2', { action: 'register', new_key: 2, timeout_ms: 50 }))).toBe(inaccessible);
    await until('the same on c2', async () => (await inForce('c2')).version === 2);
    expect(await inForce('c2')).toMatchObject({ rtype: writeExclusive, holder: hostid(1) });
  });

  it('outlives the controller that was killed, and is in force before the next one serves', async () => {
    const [first, second] = [await both(1), await both(2)];
    expect(code(await first.register('c1'))).toBe(0);
    expect(code(await second.register('c1'))).toBe(0);
    expect(code(await first.acquire('c1', writeExclusive))).toBe(0);
    await bed.kill('c1');
    // As soon as the path serves at all, it keeps the second host out.
    await until('c2 serves', async () => {
      const outcome = await second.write('c2').then(
        () => 'written',
        (error: { isReservationConflict?: boolean; isPathError?: boolean }) =>
          error.isReservationConflict === true ? 'conflict' : 'path',
      );
      expect(outcome).not.toBe('written');
      return outcome === 'conflict';
    });
    const { report } = await first.run('c2', { action: 'report' });
    expect(report).toMatchObject({
      generation: 2,
      rtype: writeExclusive,
      persistent: true,
      registrants: [
        { host: hostid(1), key: '1', holds: true },
        { host: hostid(2), key: '2', holds: false },
      ],
    });
    await first.write('c2');
    const preempt = { action: 'preempt', key: 2, preempt_key: 1, rtype: writeExclusive } as const;
    expect(code(await second.run('c2', preempt))).toBe(0);
    await expect(first.write('c2')).rejects.toMatchObject({ isReservationConflict: true });
    await second.write('c2');
  });

  it('goes along with a hand-over, and outlives everything being killed', async () => {
    const first = await both(1);
    expect(code(await first.register('c1'))).toBe(0);
    expect(code(await first.acquire('c1', registrantsOnly))).toBe(0);
    await bed.stop('c1');
    await bed.served('v1', 'c2');
    const second = await new Host(2).connect('c2');
    await until('kept out', () =>
      second.write('c2').then(
        () => false,
        (error: { isReservationConflict?: boolean }) => error.isReservationConflict === true,
      ),
    );
    for (const name of ['c2', 'd1', 'd2', 'd3']) await bed.kill(name);
    await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
    await bed.startController('c2');
    await bed.served('v1', 'c2');
    const third = await new Host(3).connect('c2');
    await expect(third.write('c2')).rejects.toMatchObject({ isReservationConflict: true });
    const { report } = await third.run('c2', { action: 'report' });
    expect(report).toMatchObject({ rtype: registrantsOnly, registrants: [{ host: hostid(1), holds: true }] });
  });

  it('waits while the store is away, may be tried again then, and holds up no I/O', async () => {
    const [first, second] = [await both(1), await both(2)];
    expect(code(await first.register('c1'))).toBe(0);
    bed.server.away = true;
    const acquiring = first.run('c1', { action: 'acquire', key: 1, rtype: writeExclusive, timeout_ms: 1_700 });
    await second.write('c1');
    await first.write('c1');
    expect(code(await acquiring)).toBe(interrupted);
    await second.write('c1');
    const retried = first.acquire('c1', writeExclusive);
    await second.write('c1');
    bed.server.away = false;
    expect(code(await retried)).toBe(0);
    await expect(second.write('c1')).rejects.toMatchObject({ isReservationConflict: true });
    expect(stored()).toMatchObject({ rtype: writeExclusive, holder: hostid(1) });
  });

  it('is not changed by a controller that was followed while it was stopped', async () => {
    const [first, second] = [await both(1), await both(2)];
    await bed.acquainted('c1', 'c2');
    const c1 = bed.node('c1').engine;
    c1.pause();
    // On its way to c1, which others hold for dead by now.
    const stale = second.run('c1', { action: 'register', new_key: 2, timeout_ms: 60_000 });
    let answered = false;
    stale.then(
      () => {
        answered = true;
      },
      () => {},
    );
    await bed.served('v1', 'c2');
    expect(code(await first.register('c2'))).toBe(0);
    expect(code(await first.acquire('c2', writeExclusive))).toBe(0);
    c1.resume();
    await until('the same on c1', async () => (await inForce('c1')).version === 2);
    expect(stored()?.registrants).toEqual([{ host: hostid(1), key: '1' }]);
    expect(answered).toBe(false);
    await expect(second.write('c2')).rejects.toMatchObject({ isReservationConflict: true });
  });

  it('takes the volume away from NBD clients, and gives it back', async () => {
    await attachVolume(bed.api, 'v1', { nbd: { node: 'c1', path: '/run/v1.nbd' } });
    const seen = async (): Promise<VolumeView['paths'][number] | undefined> =>
      (await bed.view('v1')).paths.find((each) => each.node === 'c1');
    const uris = async (): Promise<number> => (await seen())?.nbd.length ?? 0;
    await until('an NBD export', async () => (await uris()) === 1);
    const first = await both(1);
    expect(code(await first.register('c1'))).toBe(0);
    expect(await uris()).toBe(1);
    expect(code(await first.acquire('c1', writeExclusive))).toBe(0);
    await until('no NBD export', async () => (await uris()) === 0);
    await until('a reason', async () => (await seen())?.problem?.includes('reserved') === true);
    expect(code(await first.run('c1', { action: 'release', key: 1, rtype: writeExclusive }))).toBe(0);
    await until('the NBD export again', async () => (await uris()) === 1);
  });

  it('goes with its volume', async () => {
    const first = await both(1);
    expect(code(await first.register('c1'))).toBe(0);
    expect(stored()).not.toBeNull();
    await detachVolume(bed.api, 'v1', {});
    await deleteVolume(bed.api, 'v1');
    await until('the object is gone', () => stored() === null);
  });

  it('conflicts for whoever is not registered, also when it asks on two paths at once', async () => {
    const [first, second] = [await both(1), await both(2)];
    expect(code(await first.register('c1'))).toBe(0);
    const [one, other] = await Promise.all([
      first.acquire('c1', writeExclusive),
      second.run('c1', { action: 'acquire', key: 2, rtype: writeExclusive }),
    ]);
    expect(code(one)).toBe(0);
    expect(code(other)).toBe(conflict);
  });
});
