// SPDX-License-Identifier: Apache-2.0
// Goal: NVMe/RDMA by real verbs works with hosts and targets that are not ours, and by itself. Method: soft-RoCE in a guest,
// with engines inside that the test drives from outside; Linux's host and target, and fio with verify, are the judges.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Guest, type GuestResult } from '../lab/guest.js';
import { type KernelSeries, kernelSeries } from '../lab/kernel.js';
import { callRpc, freePort } from './engined.js';
import { makeEnginedDisk } from './engined-disk.js';
import { driverComplaints } from './guest-scripts.js';
import {
  kernelPort,
  killScript,
  linuxHostScript,
  linuxTargetScript,
  portLossScript,
  rdmaPorts,
  roceAddress,
  rpcPorts,
  tcpPort,
} from './rdma-scripts.js';

const nqn = 'nqn.2026-01.io.basalt:lab-rdma';
const farNqn = 'nqn.2026-01.io.basalt:lab-rdma-kernel';
const hostNqn = 'nqn.2026-01.io.basalt:lab-rdma-host';
const markMs = 180_000;
let folder: string;
let disk: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-rdma-'));
  disk = await makeEnginedDisk(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Call = (method: string, params?: Record<string, unknown>) => Promise<unknown>;

interface TransportSeen {
  trtype: string;
  connections: number;
  rdma?: { rejected: number; broken: number; in_place_bytes: number; copied_bytes: number; last_lack: string };
}

/** A guest whose engines can be called, in the order in which its script starts them. */
async function withGuest(
  name: string,
  kernel: KernelSeries,
  script: string,
  drive: (guest: Guest, first: Call, second: Call, third: Call) => Promise<void>,
): Promise<GuestResult> {
  const forwards = await Promise.all(rpcPorts.map(async (guestPort) => ({ guestPort, machinePort: await freePort() })));
  const guest = await Guest.boot({
    name,
    script,
    system: { kernel, equipment: ['rdma'] },
    network: { kind: 'user', forwards },
    devices: [{ kind: 'disk', path: disk }],
    memoryMib: 1536,
    timeoutMs: 480_000,
  });
  const engine = (index: number): Call => {
    const place = { host: '127.0.0.1', port: forwards[index]?.machinePort ?? 0 };
    return (method, params = {}) => callRpc(place, method, params);
  };
  try {
    await drive(guest, engine(0), engine(1), engine(2));
    const result = await guest.result();
    expect(result.rc, result.log).toBe(0);
    return result;
  } finally {
    await guest.stop();
  }
}

const rdmaListener = (port: number) => ({
  trtype: 'RDMA',
  adrfam: 'IPv4',
  traddr: roceAddress,
  trsvcid: String(port),
});

async function serve(engine: Call, bdev: string, port: number, options: Record<string, unknown> = {}): Promise<void> {
  await engine('nvmf_create_transport', { trtype: 'RDMA', trusted_network: true });
  await engine('nvmf_create_subsystem', { nqn, allow_any_host: true, serial_number: 'BASALTLAB0000001', ...options });
  await engine('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev, nsid: 1 } });
  await engine('nvmf_subsystem_add_listener', { nqn, listen_address: rdmaListener(port) });
}

/** By TCP, to Linux in the guest. */
async function serveOn(engine: Call, bdev: string): Promise<void> {
  await engine('nvmf_create_transport', { trtype: 'TCP' });
  await engine('nvmf_create_subsystem', { nqn: hostNqn, allow_any_host: true });
  await engine('nvmf_subsystem_add_ns', { nqn: hostNqn, namespace: { bdev_name: bdev, nsid: 1 } });
  const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: String(tcpPort) };
  await engine('nvmf_subsystem_add_listener', { nqn: hostNqn, listen_address });
}

const malloc = { name: 'malloc0', num_blocks: 16_384, block_size: 4096 };

async function transportOf(engine: Call): Promise<TransportSeen> {
  const [seen] = (await engine('nvmf_get_transports', { trtype: 'RDMA' })) as TransportSeen[];
  if (seen === undefined) throw new Error('no RDMA transport');
  return seen;
}

test.each(kernelSeries)('a Linux %s host works with our target over RDMA, without copies', async (kernel) => {
  const result = await withGuest(`rdma-host-${kernel}`, kernel, linuxHostScript(nqn), async (guest, target) => {
    await guest.waitForMark('no-adapter', { timeoutMs: markMs });
    await expect(target('nvmf_create_transport', { trtype: 'RDMA' })).rejects.toThrow(/no RDMA adapter/);
    guest.go('adapter');
    await guest.waitForMark('adapter', { timeoutMs: markMs });
    await target('bdev_malloc_create', malloc);
    await serve(target, 'malloc0', rdmaPorts[0]);
    guest.go('serving');
    await guest.waitForMark('verified', { timeoutMs: 300_000 });
    const seen = await transportOf(target);
    expect(seen.connections).toBeGreaterThan(1);
    expect(seen.rdma).toMatchObject({ rejected: 0, broken: 0, copied_bytes: 0, last_lack: '' });
    expect(seen.rdma?.in_place_bytes).toBeGreaterThan(36 * 1024 * 1024);
    guest.go('disconnect');
    await guest.waitForMark('disconnected', { timeoutMs: markMs });
    await expect.poll(async () => (await transportOf(target)).connections, { timeout: 30_000 }).toBe(0);
    guest.go('over');
  });
  expect(result.values.get('discovery')).toContain(nqn);
  expect(driverComplaints(result.values.get('driver') ?? '')).toEqual([]);
});

test.each(kernelSeries)('our host works with the target of Linux %s over RDMA', async (kernel) => {
  const script = linuxTargetScript(farNqn, hostNqn);
  await withGuest(`rdma-target-${kernel}`, kernel, script, async (guest, host) => {
    await guest.waitForMark('adapter', { timeoutMs: markMs });
    const path = { trtype: 'RDMA', traddr: roceAddress, trsvcid: String(kernelPort), subnqn: farNqn };
    const [bdev] = (await host('bdev_nvme_attach_controller', { name: 'far', ...path })) as string[];
    await serveOn(host, bdev ?? '');
    guest.go('serving');
    await guest.waitForMark('verified', { timeoutMs: 300_000 });
    await host('nvmf_delete_subsystem', { nqn: hostNqn });
    await host('bdev_nvme_detach_controller', { name: 'far' });
    guest.go('over');
  });
});

test.each(kernelSeries)(
  'ours on ours over RDMA lives through the death of a target under writes, on Linux %s',
  async (kernel) => {
    const script = killScript(farNqn, hostNqn);
    await withGuest(`rdma-kill-${kernel}`, kernel, script, async (guest, a, b, host) => {
      await guest.waitForMark('adapter', { timeoutMs: markMs });
      const far = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: String(kernelPort), subnqn: farNqn };
      for (const [index, engine] of [a, b].entries()) {
        const [bdev] = (await engine('bdev_nvme_attach_controller', { name: 'far', ...far })) as string[];
        const cntlids = { min_cntlid: 1 + index * 100, max_cntlid: 100 + index * 100 };
        await serve(engine, bdev ?? '', rdmaPorts[index] ?? 0, cntlids);
      }
      let names: string[] = [];
      for (const port of rdmaPorts) {
        const path = { trtype: 'RDMA', traddr: roceAddress, trsvcid: String(port), subnqn: nqn };
        const options = { multipath: 'multipath', ctrlr_loss_timeout_sec: 60, reconnect_delay_sec: 1 };
        names = (await host('bdev_nvme_attach_controller', { name: 'ours', ...path, ...options })) as string[];
      }
      await serveOn(host, names[0] ?? '');
      guest.go('serving');
      await guest.waitForMark('verified', { timeoutMs: 300_000 });
      guest.go('over');
    });
  },
);

test('connections end with the port of their adapter, long before a keep alive is missed', async () => {
  await withGuest('rdma-port', '6.12', portLossScript(), async (guest, target, host) => {
    await guest.waitForMark('adapter', { timeoutMs: markMs });
    await target('bdev_malloc_create', malloc);
    await serve(target, 'malloc0', rdmaPorts[0]);
    const path = { trtype: 'RDMA', traddr: roceAddress, trsvcid: String(rdmaPorts[0]), subnqn: nqn };
    await host('bdev_nvme_attach_controller', { name: 'ours', ...path, keep_alive_ms: 600_000 });
    expect((await transportOf(target)).connections).toBe(2);
    guest.go('down');
    await guest.waitForMark('down', { timeoutMs: markMs });
    await expect.poll(async () => (await transportOf(target)).connections, { timeout: 30_000 }).toBe(0);
    guest.go('over');
  });
});
