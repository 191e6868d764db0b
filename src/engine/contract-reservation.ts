// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of reservations that are kept outside of it; part of the engine contract (contract.ts).

import { expect, it } from 'vitest';
import { expectRefusal } from './contract-tools.js';
import type { Engine, EngineEvent, HostReservationParams, HostReservationResult, ReservationState } from './engine.js';

const nqn = 'nqn.2025-01.io.basalt:volume:test';
const hostid = (n: number): string => `00000000-0000-4000-8000-00000000000${n}`;
const blockBytes = 4096;
const writeExclusive = 1;
const conflict = 0x083;
const inaccessible = 0x302;
const code = (result: HostReservationResult): number => result.status & 0x7ff;

const nothing: ReservationState = {
  version: 0,
  change: null,
  generation: 0,
  rtype: 0,
  holder: null,
  registrants: [],
  notices: [],
};

type Asked = Extract<EngineEvent, { method: 'nvmf_reservation_change' }>['params'];

/** An engine with a namespace, and what it asks for. */
class Served {
  readonly asked: Asked[] = [];
  #address = { traddr: '', trsvcid: '' };
  #wake: () => void = () => {};

  constructor(readonly engine: Engine) {
    engine.on('event', (event) => {
      if (event.method !== 'nvmf_reservation_change') return;
      this.asked.push(event.params);
      this.#wake();
    });
  }

  async open(reservation_timeout_ms = 60_000): Promise<this> {
    const { engine } = this;
    await engine.rpc('bdev_malloc_create', { name: 'm', num_blocks: 64, block_size: blockBytes });
    await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
    await engine.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
    const namespace = { bdev_name: 'm', nsid: 1, shared_reservations: true, reservation_timeout_ms };
    await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace });
    const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const { traddr, trsvcid } = await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
    this.#address = { traddr, trsvcid };
    return this;
  }

  async host(engine: Engine, n: number): Promise<Host> {
    const hostnqn = `nqn.2025-01.io.basalt:host:${n}`;
    const params = { name: 'h', trtype: 'TCP' as const, ...this.#address, subnqn: nqn, hostnqn, hostid: hostid(n) };
    const [bdev = ''] = await engine.rpc('bdev_nvme_attach_controller', params);
    return new Host(engine, bdev);
  }

  set(reservation: ReservationState): Promise<true> {
    return this.engine.rpc('basalt_ns_set_reservation', { nqn, nsid: 1, reservation });
  }

  /** The change number `count`, when it is asked for. */
  async change(count: number): Promise<ReservationState> {
    while (this.asked.length < count) await new Promise<void>((wake) => (this.#wake = wake));
    return (this.asked[count - 1] as Asked).next;
  }

  /** Does from now on what it is asked, or no more. */
  keep(does = true): void {
    this.#wake = () => {
      if (does) void this.set((this.asked.at(-1) as Asked).next);
    };
  }
}

class Host {
  constructor(
    readonly engine: Engine,
    readonly bdev: string,
  ) {}

  async run(params: Omit<HostReservationParams, 'name'>): Promise<HostReservationResult> {
    return this.engine.rpc('basalt_nvme_reservation', { name: this.bdev, timeout_ms: 25_000, ...params });
  }

  async io(access: 'read' | 'write'): Promise<void> {
    const handle = await this.engine.openBdev(this.bdev);
    try {
      await handle[access](0, new Uint8Array(blockBytes));
    } finally {
      await handle.close();
    }
  }
}

export function reservations(start: () => Engine): void {
  it('asks its keeper for every change of a reservation, and enforces what that says', async () => {
    const served = await new Served(start()).open();
    const [first, second] = [await served.host(start(), 1), await served.host(start(), 2)];
    const early = await first.run({ action: 'register', new_key: 10, timeout_ms: 200 });
    expect(code(early)).toBe(inaccessible);
    expect(served.asked).toEqual([]);
    await served.set(nothing);
    const registering = first.run({ action: 'register', new_key: '18446744073709551615' });
    const change = await served.change(1);
    expect(change).toMatchObject({ version: 1, generation: 1, rtype: 0, holder: null, notices: [] });
    expect(change.registrants).toEqual([{ host: hostid(1), key: '18446744073709551615' }]);
    expect(served.asked[0]).toMatchObject({ nqn, nsid: 1, host: hostid(1) });
    const present = await served.engine.rpc('basalt_ns_get_reservation', { nqn, nsid: 1 });
    expect(present).toMatchObject({ known: true, asked: change.change, version: 0, registrants: [] });
    await served.set(change);
    expect(code(await registering)).toBe(0);
    served.keep();
    const key = '18446744073709551615';
    expect(code(await first.run({ action: 'acquire', key, rtype: writeExclusive }))).toBe(0);
    await first.io('write');
    await second.io('read');
    await expect(second.io('write')).rejects.toMatchObject({ isReservationConflict: true });
    expect(code(await second.run({ action: 'acquire', key: 20, rtype: writeExclusive }))).toBe(conflict);
    expect(code(await second.run({ action: 'register', new_key: 20 }))).toBe(0);
    const preempt = { action: 'preempt_and_abort', key: 20, preempt_key: key, rtype: writeExclusive } as const;
    expect(code(await second.run(preempt))).toBe(0);
    expect(served.asked.at(-1)?.next.notices).toEqual([{ version: 4, kind: 1, hosts: [hostid(1)] }]);
    await expect(first.io('write')).rejects.toMatchObject({ isReservationConflict: true });
    await second.io('write');
    const { report } = await first.run({ action: 'report' });
    expect(report).toEqual({
      generation: 3,
      rtype: writeExclusive,
      persistent: true,
      registrants: [{ host: hostid(2), key: '20', holds: true }],
    });
    expect(code(await second.run({ action: 'clear', key: 20 }))).toBe(0);
    await first.io('write');
  });

  it('leaves a reservation as it is when the change is refused, or nobody answers', async () => {
    const served = await new Served(start()).open(150);
    const host = await served.host(start(), 1);
    await served.set(nothing);
    // Nobody answers the first time: that one ends in time, and the host tries again.
    const registering = host.run({ action: 'register', new_key: 10 });
    const [first, second] = [await served.change(1), await served.change(2)];
    expect(second).toEqual({ ...first, change: second.change });
    expect(second.change).not.toBe(first.change);
    served.keep();
    expect(code(await registering)).toBe(0);
    const before = await served.engine.rpc('basalt_ns_get_reservation', { nqn, nsid: 1 });
    served.keep(false);
    const refuse = (retry: 'later' | 'elsewhere'): void => {
      served.engine.on('event', (event) => {
        if (event.method !== 'nvmf_reservation_change') return;
        const change = event.params.next.change ?? '';
        void served.engine.rpc('basalt_ns_refuse_reservation', { nqn, nsid: 1, change, retry }).catch(() => {});
      });
    };
    refuse('elsewhere');
    const acquire = { action: 'acquire', key: 10, rtype: writeExclusive, timeout_ms: 3_000 } as const;
    expect(code(await host.run(acquire))).toBe(inaccessible);
    expect(await served.engine.rpc('basalt_ns_get_reservation', { nqn, nsid: 1 })).toEqual(before);
  });

  it('judges a command anew that waits while somebody else changes the reservation', async () => {
    const served = await new Served(start()).open();
    const host = await served.host(start(), 1);
    await served.set({ ...nothing, version: 1, generation: 1, registrants: [{ host: hostid(1), key: '10' }] });
    const acquiring = host.run({ action: 'acquire', key: 10, rtype: writeExclusive });
    expect(await served.change(1)).toMatchObject({ version: 2, rtype: writeExclusive, holder: hostid(1) });
    const theirs = {
      ...nothing,
      version: 5,
      change: hostid(9),
      generation: 4,
      rtype: 2,
      holder: hostid(3),
      registrants: [
        { host: hostid(1), key: '10' },
        { host: hostid(3), key: '30' },
      ],
    };
    await served.set(theirs);
    expect(code(await acquiring)).toBe(conflict);
    await served.set(theirs);
    expect(served.asked).toHaveLength(1);
    await expect(host.io('read')).rejects.toMatchObject({ isReservationConflict: true });
  });

  it('refuses reservations that cannot be, and namespaces that keep their own', async () => {
    const served = await new Served(start()).open();
    const { engine } = served;
    await expectRefusal(served.set({ ...nothing, rtype: 1, holder: hostid(1) }), 'invalidParams', 'registrants');
    await expectRefusal(served.set({ ...nothing, rtype: 7 }), 'invalidParams', 'rtype');
    const elsewhere = { nqn, nsid: 2, reservation: nothing };
    await expectRefusal(engine.rpc('basalt_ns_set_reservation', elsewhere), 'notFound', 'namespace 2');
    const other = `${nqn}2`;
    await engine.rpc('nvmf_create_subsystem', { nqn: other });
    await engine.rpc('nvmf_subsystem_add_ns', { nqn: other, namespace: { bdev_name: 'm', nsid: 1 } });
    await expectRefusal(
      engine.rpc('basalt_ns_get_reservation', { nqn: other, nsid: 1 }),
      'invalid',
      'shared_reservations',
    );
    const both = { bdev_name: 'm', nsid: 3, shared_reservations: true, reservations: false };
    const adding = engine.rpc('nvmf_subsystem_add_ns', { nqn: other, namespace: both });
    await expectRefusal(adding, 'invalidParams', 'shared_reservations');
  });
}
