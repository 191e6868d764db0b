// SPDX-License-Identifier: Apache-2.0
// Goal: the NBD export serves the clients that people use, byte for byte. Method: the engine in this process exports a
// bdev in memory and one on a file; the distribution's own clients look at, fill, compare and verify them.

import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../../src/engine/engine.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import { run, runRefused } from './clients.js';

const mib = 1024 * 1024;
const size = 64 * mib;

let folder: string;
let engine: Engine;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-nbd-'));
  engine = createNativeEngine();
});
afterAll(async () => {
  await engine.close();
  await rm(folder, { recursive: true, force: true });
});

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

interface Disk {
  readonly kind: string;
  create(name: string): Promise<void>;
  remove(name: string): Promise<void>;
}

const disks: Disk[] = [
  {
    kind: 'malloc',
    create: async (name) => {
      await engine.rpc('bdev_malloc_create', { name, num_blocks: size / 4096, block_size: 4096 });
    },
    remove: async (name) => {
      await engine.rpc('bdev_malloc_delete', { name });
    },
  },
  {
    kind: 'file',
    create: async (name) => {
      // A file system without O_DIRECT (tmpfs) is not what this test is about.
      const disk = { name, filename: join(folder, `${name}.img`), block_size: 512, create_bytes: size, buffered: true };
      await engine.rpc('bdev_aio_create', disk);
    },
    remove: async (name) => {
      await engine.rpc('bdev_aio_delete', { name });
      await rm(join(folder, `${name}.img`));
    },
  },
];

describe.each(disks)('an NBD export of a $kind bdev', (disk) => {
  const name = `${disk.kind}0`;
  let socket: string;
  let uri: string;

  beforeEach(async () => {
    socket = join(folder, `${name} socket`);
    await disk.create(name);
    uri = (await engine.rpc('basalt_nbd_start', { bdev_name: name, path: socket, export_name: 'vol 1' })).uri;
  });
  afterEach(async () => {
    await engine.rpc('basalt_nbd_stop', { path: socket });
    await disk.remove(name);
  });

  it('gives a URI that clients understand, whatever is in its names', async () => {
    expect(uri).toBe(`nbd+unix:///vol%201?socket=${socket.replaceAll(' ', '%20')}`);
    expect((await run('nbdinfo', '--size', uri)).trim()).toBe(String(size));
  });

  it('tells nbdinfo its name, size, block sizes and abilities', async () => {
    const listed = JSON.parse(await run('nbdinfo', '--list', '--json', uri)) as {
      exports: Record<string, unknown>[];
    };
    expect(listed.exports).toHaveLength(1);
    expect(listed.exports[0]).toMatchObject({
      'export-name': 'vol 1',
      'export-size': size,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: disk.kind === 'file' ? 512 : 4096,
      block_size_preferred: 4096,
      block_size_maximum: mib,
    });
  });

  it('takes an image from nbdcopy and gives the same one back', async () => {
    const [image, copy] = [join(folder, 'image'), join(folder, 'copy')];
    // Data, a hole and data, so that trim and write-zeroes are used as well.
    const content = Buffer.concat([randomBytes(20 * mib), Buffer.alloc(24 * mib), randomBytes(20 * mib)]);
    await writeFile(image, content);
    await run('nbdcopy', '--flush', '--connections=4', image, uri);
    await run('nbdcopy', '--connections=4', uri, copy);
    expect(sha256(await readFile(copy))).toBe(sha256(content));
  });

  it('converts, describes and compares under qemu-img', async () => {
    const [raw, qcow] = [join(folder, 'raw'), join(folder, 'qcow')];
    const content = Buffer.concat([randomBytes(9 * mib), Buffer.alloc(size - 9 * mib)]);
    await writeFile(raw, content);
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri);
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', uri)) as Record<string, unknown>;
    expect(info).toMatchObject({ format: 'raw', 'virtual-size': size });
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', raw, uri);
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, qcow);
    await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', qcow, uri);
    await run('qemu-io', '-f', 'raw', '-c', 'write -P 7 1M 64k', uri);
    expect(await runRefused('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', raw, uri)).toMatch(/mismatch/);
  });

  it('writes, zeroes, trims, flushes and reads what qemu-io asks for', async () => {
    const commands = [
      'write -P 0xa5 0 1M',
      'write -f -P 0x5a 1M 1536k', // FUA, and above the largest request
      'write -z 64k 64k',
      'discard 256k 64k',
      'flush',
      'read -P 0xa5 0 64k',
      'read -P 0 64k 64k',
      'read -P 0xa5 128k 128k',
      'read -P 0 256k 64k',
      'read -P 0x5a 1M 1536k',
    ];
    const said = await run('qemu-io', '-f', 'raw', '-t', 'none', ...commands.flatMap((text) => ['-c', text]), uri);
    expect(said).not.toMatch(/failed|error/i);
    expect(said.match(/read \d+\/\d+ bytes/g)).toHaveLength(5);
  });

  it('keeps every block that fio wrote, under crc32c', async () => {
    const job = [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--rw=randwrite',
      '--bsrange=4k-128k',
      '--size=32m',
    ];
    const verify = [
      '--verify=crc32c',
      '--verify_state_save=0',
      '--verify_fatal=1',
      '--iodepth=32',
      '--randseed=20',
      '--output-format=json',
      `--output=${join(folder, 'fio.json')}`,
    ];
    await run('fio', ...job, ...verify);
    const report = JSON.parse(await readFile(join(folder, 'fio.json'), 'utf8')) as {
      jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
    };
    expect(report.jobs[0]?.error).toBe(0);
    expect(report.jobs[0]?.write.total_ios).toBeGreaterThan(200);
    expect(report.jobs[0]?.read.total_ios).toBe(report.jobs[0]?.write.total_ios);
  });
});

describe('basalt_nbd_start and _stop', () => {
  const socket = (): string => join(folder, 'sock');
  beforeAll(async () => {
    await engine.rpc('bdev_malloc_create', { name: 'disk', num_blocks: 1024, block_size: 4096 });
  });

  it('refuses what is taken or missing, and changes nothing', async () => {
    await expect(engine.rpc('basalt_nbd_start', { bdev_name: 'none', path: socket() })).rejects.toMatchObject({
      code: -2,
    });
    await expect(
      engine.rpc('basalt_nbd_start', { bdev_name: 'disk', path: `/${'x'.repeat(120)}` }),
    ).rejects.toMatchObject({ code: -32602 });
    await expect(engine.rpc('basalt_nbd_stop', { path: socket() })).rejects.toMatchObject({ code: -2 });
    await engine.rpc('basalt_nbd_start', { bdev_name: 'disk', path: socket() });
    await expect(engine.rpc('basalt_nbd_start', { bdev_name: 'disk', path: socket() })).rejects.toMatchObject({
      code: -17,
    });
    await expect(engine.rpc('bdev_malloc_delete', { name: 'disk' })).rejects.toMatchObject({ code: -16 });
    await engine.rpc('basalt_nbd_stop', { path: socket() });
    await expect(runRefused('nbdinfo', `nbd+unix:///?socket=${socket()}`)).resolves.toMatch(/No such file|refused/);
  });

  it('ends clients that are connected when it stops, and the bdev is free afterwards', async () => {
    const { uri } = await engine.rpc('basalt_nbd_start', { bdev_name: 'disk', path: socket() });
    const job = ['--name=endless', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k', '--size=4m'];
    const writing = runRefused('fio', ...job, '--iodepth=16', '--time_based', '--runtime=60');
    const disk = await engine.openBdev('disk');
    const seen = new Uint8Array(engine.allocate(4 * mib));
    const written = async (): Promise<boolean> => {
      await disk.read(0, seen);
      return seen.some((byte) => byte !== 0);
    };
    await expect.poll(written, { timeout: 20_000 }).toBe(true);
    await disk.close();
    await engine.rpc('basalt_nbd_stop', { path: socket() });
    await writing;
    await engine.rpc('bdev_malloc_delete', { name: 'disk' });
  });
});
