// SPDX-License-Identifier: Apache-2.0
//
// Goal: Wireshark's dissector, which nobody here wrote, finds nothing wrong in what target and host send.
// Method: two engines talk through a recorder: with and without digests, with and without authentication, small and large
// reads and writes, all other commands that there are, discovery, events, a refusal and a termination; tshark reads the
// capture. That it would find something is tried with captures that were damaged on purpose.

import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { BdevHandle, Engine } from '../../src/engine/engine.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import { runCommand } from '../lab/command.js';
import { Recorder } from './recorder.js';

const nqn = 'nqn.2026-01.io.basalt:wire';
const secret = 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:';
const other = 'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:';
const KiB = 1024;

let folder: string;
let target: Engine;
let host: Engine;
let recorder: Recorder;
let listen: { trtype: 'TCP'; traddr: string; trsvcid: string };

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-wire-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeEach(async () => {
  target = createNativeEngine();
  host = createNativeEngine();
  await target.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 4096, block_size: 4096 });
  await target.rpc('nvmf_create_transport', { trtype: 'TCP' });
  await target.rpc('nvmf_create_subsystem', { nqn });
  await target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm0', reservations: true } });
  const listen_address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
  listen = await target.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
  recorder = await Recorder.open(Number(listen.trsvcid));
  for (const engine of [target, host]) {
    await engine.rpc('basalt_keyring_add_key', { name: 'h', secret });
    await engine.rpc('basalt_keyring_add_key', { name: 'c', secret: other });
  }
});
afterEach(async () => {
  await host.close();
  await target.close();
  await recorder.close();
});

interface Wishes {
  hdgst?: boolean;
  ddgst?: boolean;
  dhchap_key?: string;
  dhchap_ctrlr_key?: string;
}

async function attach(wishes: Wishes = {}): Promise<string> {
  const hostnqn = 'nqn.2026-01.io.basalt:host';
  const path = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: String(recorder.port), subnqn: nqn, hostnqn } as const;
  const { dhchap_key, dhchap_ctrlr_key } = wishes;
  const keys = { ...(dhchap_key && { dhchap_key }), ...(dhchap_ctrlr_key && { dhchap_ctrlr_key }) };
  await target.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn, ...keys });
  const [name = ''] = await host.rpc('bdev_nvme_attach_controller', {
    name: 'c',
    ...path,
    ...wishes,
    io_queue_count: 2,
  });
  return name;
}

/** Reads and writes in capsules, by R2T and in several PDUs, and all else that a bdev can be asked for. */
async function useAll(name: string): Promise<void> {
  const handle: BdevHandle = await host.openBdev(name);
  const bytes = new Uint8Array(host.allocate(512 * KiB)).fill(0x5a);
  const back = new Uint8Array(host.allocate(512 * KiB));
  for (const length of [4 * KiB, 8 * KiB, 12 * KiB, 128 * KiB, 512 * KiB]) {
    await handle.write(64 * KiB, bytes.subarray(0, length));
    await handle.read(64 * KiB, back.subarray(0, length));
    expect(Buffer.compare(bytes.subarray(0, length), back.subarray(0, length))).toBe(0);
  }
  await Promise.all(Array.from({ length: 64 }, (_, i) => handle.write(i * 4 * KiB, bytes.subarray(0, 4 * KiB))));
  await Promise.all(
    Array.from({ length: 64 }, (_, i) => handle.read(i * 4 * KiB, back.subarray(i * 4 * KiB, (i + 1) * 4 * KiB))),
  );
  await handle.flush();
  await handle.close();
}

/** Of each packet that matters, what tshark reads in these columns. */
async function read(capture: Buffer, columns: readonly string[]): Promise<string[][]> {
  const path = join(folder, 'capture.pcap');
  writeFileSync(path, capture);
  const fields = columns.flatMap((name) => ['-e', name]);
  const check = ['-o', 'nvme-tcp.check_hdgst:TRUE', '-o', 'nvme-tcp.check_ddgst:TRUE'];
  const how = [
    ...check,
    '-r',
    path,
    '-d',
    'tcp.port==4420,nvme-tcp',
    '-Y',
    'nvme-tcp || _ws.malformed',
    '-T',
    'fields',
  ];
  const result = await runCommand('tshark', [...how, '-E', 'separator=|', ...fields], { timeoutMs: 120_000 }).catch(
    (cause) => {
      throw new Error('tshark does not run: install the package tshark (apt-get install tshark)', { cause });
    },
  );
  if (result.exitCode !== 0) throw new Error(`tshark: exit code ${result.exitCode}\n${result.stderr}`);
  const lines = result.stdout
    .toString()
    .split('\n')
    .filter((line) => line !== '');
  return lines.map((line) => line.split('|'));
}

/** What tshark finds wrong, and which types of PDU it saw (TCP transport specification, table of PDU types). */
async function judged(capture: Buffer): Promise<{ wrong: string[]; types: Set<string>; digests: Set<string> }> {
  const columns = [
    'frame.number',
    '_ws.malformed',
    '_ws.expert.message',
    'nvme-tcp.type',
    'nvme-tcp.hdgst.status',
    'nvme-tcp.ddgst.status',
    'nvme-tcp.unknown_data',
  ];
  const rows = await read(capture, columns);
  const all = (column: string): Set<string> =>
    new Set(rows.flatMap((row) => (row[columns.indexOf(column)] ?? '').split(',').filter((text) => text !== '')));
  const wrong = rows.filter((row) => row[1] !== '' || row[2] !== '' || row[6] !== '').map((row) => row.join(' | '));
  const digests = new Set([...all('nvme-tcp.hdgst.status'), ...all('nvme-tcp.ddgst.status')]);
  return { wrong, types: all('nvme-tcp.type'), digests };
}

/** A host by hand: no client here reads a discovery log. */
async function readDiscoveryLog(port: number, hostnqn: string): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  const pdus = pdusOf(socket);
  const request = Buffer.alloc(128);
  request[2] = 128;
  request.writeUInt32LE(128, 4);
  socket.write(request);
  expect((await pdus.next()).value?.[0]).toBe(1);
  const hello = Buffer.alloc(1024);
  hello[0] = 7;
  hello.writeUInt16LE(0xffff, 16);
  hello.write('nqn.2014-08.org.nvmexpress.discovery', 256);
  hello.write(hostnqn, 512);
  const connection = command(0x7f, 1, { fctype: 1, sgl: 0x01, dataBytes: 1024 });
  connection.writeUInt16LE(31, 44);
  const enabled = command(0x7f, 2, { fctype: 0, sgl: 0, dataBytes: 0 });
  enabled.writeUInt32LE(0x14, 44);
  enabled.writeUInt32LE(0x0046_0001, 48);
  const log = command(0x02, 3, { fctype: 0, sgl: 0x5a, dataBytes: 4096 });
  log.writeUInt32LE((1023 << 16) | 0x70, 40);
  for (const [entry, data] of [
    [connection, hello],
    [enabled, Buffer.alloc(0)],
    [log, Buffer.alloc(0)],
  ] as const) {
    const header = Buffer.from([4, 0, 72, data.length === 0 ? 0 : 72, 0, 0, 0, 0]);
    header.writeUInt32LE(72 + data.length, 4);
    socket.write(Buffer.concat([header, entry, data]));
    const { value } = await pdus.next();
    // A response, or data that stands for it too.
    expect([5, 7]).toContain(value?.[0]);
    if (value?.[0] === 5) expect(value.readUInt16LE(8 + 14) >> 1).toBe(0);
  }
  socket.destroy();
}

/** A submission queue entry; `fctype` and what follows are at home in those of fabrics. */
function command(opcode: number, cid: number, of: { fctype: number; sgl: number; dataBytes: number }): Buffer {
  const entry = Buffer.alloc(64);
  entry[0] = opcode;
  entry[1] = 0x40;
  entry.writeUInt16LE(cid, 2);
  entry[4] = of.fctype;
  entry.writeUInt32LE(of.dataBytes, 32);
  entry[39] = of.sgl;
  return entry;
}

async function* pdusOf(socket: Socket): AsyncGenerator<Buffer, void, void> {
  let held = Buffer.alloc(0);
  for await (const piece of socket) {
    held = Buffer.concat([held, piece as Buffer]);
    while (held.length >= 8 && held.length >= held.readUInt32LE(4)) {
      const length = held.readUInt32LE(4);
      yield held.subarray(0, length);
      held = held.subarray(length);
    }
  }
}

/** As tshark numbers what came of a checksum. */
const [bad, good] = ['0', '1'];
const types = (names: readonly number[]): string[] => names.map((type) => String(type));
/** ICReq, ICResp, capsules, H2CData, C2HData, R2T. */
const ordinary = types([0, 1, 4, 5, 6, 7, 9]);

describe("Wireshark's dissector", { timeout: 180_000 }, () => {
  it.each<[string, Wishes]>([
    ['without digests', {}],
    ['with both digests', { hdgst: true, ddgst: true }],
    ['with the header digest alone', { hdgst: true }],
    ['with authentication both ways', { dhchap_key: 'h', dhchap_ctrlr_key: 'c' }],
  ])('finds nothing malformed %s', async (_, wishes) => {
    const name = await attach(wishes);
    await useAll(name);
    // Memory keeps no registrations: they are refused, on the wire all the same.
    for (const action of ['register', 'acquire', 'release', 'clear'] as const)
      await host.rpc('basalt_nvme_reservation', { name, action, key: '7', rtype: 1 });
    expect(await host.rpc('basalt_nvme_reservation', { name, action: 'report' })).toMatchObject({ status: 0 });
    for (const ana_state of ['inaccessible', 'optimized'] as const)
      await target.rpc('nvmf_subsystem_listener_set_ana_state', { nqn, listen_address: listen, ana_state });
    const traddr = '127.0.0.1';
    await host.rpc('basalt_peer_watch', { name: 'p', traddr, trsvcid: String(recorder.port), keep_alive_ms: 200 });
    await host.rpc('bdev_nvme_detach_controller', { name: 'c' });
    const verdict = await judged(recorder.capture());
    expect(verdict.wrong).toEqual([]);
    for (const type of ordinary) expect([...verdict.types]).toContain(type);
    if (wishes.hdgst === true) expect([...verdict.digests]).toEqual([good]);
  });

  it('reads referrals as what they are', async () => {
    const hostnqn = 'nqn.2026-01.io.basalt:host';
    await target.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn });
    for (const traddr of ['192.0.2.7', '2001:db8::7'])
      await target.rpc('nvmf_discovery_add_referral', { address: { trtype: 'TCP', traddr, trsvcid: '4421' } });
    await readDiscoveryLog(recorder.port, hostnqn);
    const capture = recorder.capture();
    expect((await judged(capture)).wrong).toEqual([]);
    const columns = ['trtype', 'adrfam', 'subtype', 'portid', 'cntlid', 'asqsz', 'trsvcid', 'subnqn', 'traddr'];
    const rows = await read(
      capture,
      columns.map((name) => `nvme.cmd.get_logpage.identify.rcrd.${name}`),
    );
    const log = rows.find((row) => row[0] !== '') ?? [];
    const seen = Object.fromEntries(columns.map((name, index) => [name, (log[index] ?? '').split(',')]));
    const discovery = 'nqn.2014-08.org.nvmexpress.discovery';
    const numbers = (name: string): number[] | undefined => seen[name]?.map(Number);
    expect(seen['subnqn']).toEqual([nqn, discovery, discovery]);
    expect(numbers('trtype')).toEqual([3, 3, 3]);
    expect(numbers('adrfam')).toEqual([1, 1, 2]);
    expect(numbers('subtype')).toEqual([2, 1, 1]);
    expect(numbers('cntlid')).toEqual([0xffff, 0xffff, 0xffff]);
    expect(numbers('asqsz')).toEqual([32, 32, 32]);
    expect(numbers('portid')?.slice(1)).toEqual([0, 0]);
    expect(seen['traddr']).toEqual(['127.0.0.1', '192.0.2.7', '2001:db8::7']);
    expect(seen['trsvcid']?.slice(1)).toEqual(['4421', '4421']);
  });

  it('finds nothing malformed in a termination', async () => {
    const socket = connect(recorder.port, '127.0.0.1');
    const request = Buffer.alloc(128);
    request[2] = 128;
    request.writeUInt32LE(128, 4);
    socket.write(request);
    await once(socket, 'data');
    // Out of order.
    socket.write(request);
    await once(socket, 'close');
    const verdict = await judged(recorder.capture());
    expect(verdict.wrong).toEqual([]);
    expect([...verdict.types]).toEqual(['0', '1', '3']);
  });

  it('finds what is damaged on purpose: a byte of data, the length of a PDU', async () => {
    await useAll(await attach({ hdgst: true, ddgst: true }));
    await host.rpc('bdev_nvme_detach_controller', { name: 'c' });
    const capture = recorder.capture();
    expect((await judged(capture)).wrong).toEqual([]);
    const data = Buffer.from(capture);
    data[data.indexOf(Buffer.alloc(4 * KiB, 0x5a)) + 100] = 0xa5;
    expect([...(await judged(data)).digests]).toContain(bad);
    // A response capsule: type 5, header digest, 24 bytes of header, no data.
    const header = Buffer.from([5, 1, 24, 0, 28, 0, 0, 0]);
    const length = Buffer.from(capture);
    length[length.indexOf(header) + 4] = 20;
    const verdict = await judged(length);
    expect(verdict.wrong).not.toEqual([]);
  });
});
