// SPDX-License-Identifier: Apache-2.0
// Goal: at most one process writes a disk that an SPDK has, whatever they do and whenever they end.
// Method: a stand-in for SPDK whose target is a real one, and an SPDK where there is one; processes of a node are engines
// with SpdkDisks of their own.

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../env/clock.js';
import { systemRandom } from '../../env/random.js';
import type { Engine } from '../engine.js';
import { createNativeEngine } from '../native/native-engine.js';
import type { SpdkPort } from './spdk-bdevs.js';
import { SpdkDisks } from './spdk-disks.js';
import { freePort, SpdkProcess, spdkMissing } from './testing/spdk-process.js';
import { StandInSpdk } from './testing/stand-in-spdk.js';

interface TestedSpdk extends SpdkPort {
  readonly calls: string[];
  before: (method: string, params: Record<string, unknown>) => Promise<void> | void;
  close(): Promise<void>;
}

interface Subsystem {
  readonly nqn: string;
  readonly allow_any_host: boolean;
  readonly hosts: { readonly nqn: string }[];
  readonly listen_addresses: { readonly traddr: string; readonly trsvcid: string }[];
}

const MiB = 1024 * 1024;
let folder: string;
let spdk: TestedSpdk;
let port: number;
const ends: (() => Promise<void> | void)[] = [];

function startProcess(node = 'a'): { engine: Engine; disks: SpdkDisks } {
  const engine = createNativeEngine();
  const disks = new SpdkDisks({ spdk, engine, clock: systemClock, random: systemRandom, node, port });
  ends.push(async () => {
    disks.stop();
    await engine.close();
  });
  return { engine, disks };
}

const request = (): { path: string; createBytes: number } => ({ path: join(folder, 'd0'), createBytes: 64 * MiB });

async function write(engine: Engine, bdev: string, value: number): Promise<void> {
  const handle = await engine.openBdev(bdev);
  await handle.write(0, new Uint8Array(4096).fill(value)).finally(() => handle.close());
}

async function firstByte(engine: Engine, bdev: string): Promise<number | undefined> {
  const handle = await engine.openBdev(bdev);
  const block = new Uint8Array(4096);
  await handle.read(0, block).finally(() => handle.close());
  return block[0];
}

describe.each([
  { name: 'the stand-in', skipped: false, start: () => Promise.resolve<TestedSpdk>(new StandInSpdk()), port: () => 0 },
  { name: `SPDK${spdkMissing}`, skipped: spdkMissing !== '', start: () => SpdkProcess.start(folder), port: freePort },
])('a disk that $name has', ({ skipped, start, port: choosePort }) => {
  if (skipped) {
    it.skip('is tried with a real SPDK', () => {});
    return;
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'basalt-spdk-disks-'));
    port = await choosePort();
    spdk = await start();
  });

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await spdk.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('is a bdev of the engine here, is adopted by the next process, and keeps its bytes', async () => {
    const first = startProcess();
    const bdev = await first.disks.open(request(), 'disk-a-0');
    expect(await first.engine.rpc('bdev_get_bdevs', { name: bdev })).toMatchObject([
      { block_size: 4096, num_blocks: (64 * MiB) / 4096 },
    ]);
    await write(first.engine, bdev, 7);
    await first.engine.close();

    spdk.calls.length = 0;
    const second = startProcess();
    const again = await second.disks.open(request(), 'disk-a-0');
    expect(await firstByte(second.engine, again)).toBe(7);
    for (const made of ['bdev_aio_create', 'nvmf_create_subsystem', 'nvmf_subsystem_add_ns', 'nvmf_create_transport'])
      expect(spdk.calls).not.toContain(made);
  });

  it('has its earlier process ended before the next one connects', async () => {
    const first = startProcess();
    const bdev = await first.disks.open(request(), 'disk-a-0');
    const lost = new Promise<string>((resolve) => first.disks.watch(resolve));
    const second = startProcess();
    const again = await second.disks.open(request(), 'disk-a-0');
    await write(second.engine, again, 2);
    await expect(write(first.engine, bdev, 1)).rejects.toMatchObject({ name: 'EngineIoError', isPathError: true });
    expect(await lost).toContain(request().path);
    expect(await firstByte(second.engine, again)).toBe(2);
  });

  it('is given up by whoever sees that another process came at the same time', async () => {
    const [first, second] = [startProcess(), startProcess()];
    let other: Promise<string> | null = null;
    // The second one does all that it does after the first one made sure of being alone, and before it connects.
    spdk.before = async (method) => {
      if (method !== 'keyring_file_add_key' || other !== null) return;
      other = second.disks.open(request(), 'disk-a-0');
      await other;
    };
    await expect(first.disks.open(request(), 'disk-a-0')).rejects.toThrow('another process takes');
    const bdev = await (other as unknown as Promise<string>);
    await write(second.engine, bdev, 5);
    expect(await firstByte(second.engine, bdev)).toBe(5);
    expect(await first.engine.rpc('bdev_get_bdevs')).toEqual([]);
  });

  it('lets nobody in without the secret, which nothing keeps', async () => {
    const { engine, disks } = startProcess();
    const files: unknown[] = [];
    spdk.before = (method, { path }) => void (method === 'keyring_file_add_key' && files.push(path));
    await disks.open(request(), 'disk-a-0');
    const subsystems = (await spdk.call('nvmf_get_subsystems', {})) as Subsystem[];
    const [subsystem] = subsystems.filter(({ nqn }) => nqn.includes('spdk-disk'));
    const [host] = subsystem?.hosts ?? [];
    const { traddr = '', trsvcid = '' } = subsystem?.listen_addresses[0] ?? {};
    expect(subsystem).toMatchObject({ allow_any_host: false, hosts: [{ dhchap_key: expect.any(String) }] });
    const stranger = createNativeEngine();
    ends.push(() => stranger.close());
    const at = { name: 'x', trtype: 'TCP', traddr, trsvcid, subnqn: subsystem?.nqn ?? '' } as const;
    const entering = stranger.rpc('bdev_nvme_attach_controller', { ...at, hostnqn: host?.nqn ?? '' });
    await expect(entering).rejects.toMatchObject({ name: 'EngineError' });
    // SPDK shows keys that are gone as removed, for as long as a host entry names them.
    const kept = (await spdk.call('keyring_get_keys', {})) as { removed?: boolean }[];
    expect(kept.filter(({ removed }) => removed !== true)).toEqual([]);
    expect(await engine.rpc('keyring_get_keys')).toEqual([]);
    expect(files).toHaveLength(1);
    expect(existsSync(String(files[0]))).toBe(false);
  });

  it('is refused while something else in SPDK uses it, and when it is none that keeps what was flushed', async () => {
    const first = startProcess('a');
    await first.disks.open(request(), 'disk-a-0');
    const neighbour = startProcess('b');
    await expect(neighbour.disks.open(request(), 'disk-b-0')).rejects.toThrow('in use by something else in SPDK');
    await spdk.call('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
    const memory = neighbour.disks.open({ path: 'm0', createBytes: null }, 'disk-b-0');
    await expect(memory).rejects.toThrow("'Malloc disk', whose flush");
  });

  it('is lost for good with the connection: a flush must not succeed on the next SPDK', async () => {
    const { engine, disks } = startProcess();
    const bdev = await disks.open(request(), 'disk-a-0');
    const handle = await engine.openBdev(bdev);
    await handle.write(0, new Uint8Array(4096).fill(1));
    const lost = new Promise<string>((resolve) => disks.watch(resolve));
    await spdk.close();
    await expect(handle.flush()).rejects.toMatchObject({ isPathError: true });
    expect(await lost).toContain('is failed');
    await handle.close();
  });
});
