// SPDX-License-Identifier: Apache-2.0
//
// The addon's life in JavaScript environments: workers, several engines, ends with I/O in flight, a blocked event loop.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine.js';
import { packageRoot } from './addon.js';
import { createNativeEngine, type NativeEngineOptions } from './native-engine.js';

const open: Engine[] = [];
function start(options: NativeEngineOptions = {}): Engine {
  const engine = createNativeEngine(options);
  open.push(engine);
  return engine;
}
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close();
});

/** Plain JavaScript for a worker: the addon, an engine, a malloc bdev, writes that never stop. */
const endlessWrites = `
  const { parentPort } = require('node:worker_threads');
  const addon = require(process.env.ADDON);
  const config = { reactors: 1, cores: [], poll: 'adaptive', poller: 'automatic', memoryBytes: 1 << 28, rpcPath: null };
  const engine = new addon.Engine(config);
  (async () => {
    await engine.rpc('bdev_malloc_create', JSON.stringify({ name: 'm0', num_blocks: 4096, block_size: 4096 }));
    await engine.rpc('bdev_error_create', JSON.stringify({ base_name: 'm0' }));
    await engine.rpc('bdev_error_inject_error', JSON.stringify({ name: 'EE_m0', io_type: 'read', error_type: 'pending', num: 8 }));
    const handle = await engine.openBdev('EE_m0');
    for (let i = 0; i < 8; i++) handle.read(0, new Uint8Array(4096)).catch(() => {});
    const buffer = new Uint8Array(engine.allocate(1 << 20));
    const write = () => handle.write(0, buffer).then(write, () => {});
    for (let i = 0; i < 4; i++) write();
    parentPort?.postMessage('writing');
    if (!parentPort) setTimeout(() => process.exit(0), 50);
  })();
`;
// Another build of it (with sanitizers) is named as loadAddon() is told of it; its children need what it needs.
const addonPath = process.env['BASALT_ADDON'] ?? join(packageRoot(), 'build', 'Release', 'basalt_native.node');
const childEnv = { ...process.env, ADDON: addonPath };

describe('the addon in its environments', () => {
  it('loads in workers, and ends with them while I/O is in flight and some never completes', async () => {
    for (let round = 0; round < 3; round++) {
      const workers = [0, 1].map(() => new Worker(endlessWrites, { eval: true, env: childEnv }));
      await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
      expect(await Promise.all(workers.map((worker) => worker.terminate()))).toEqual([1, 1]);
    }
  });

  it('lets a process exit while I/O is in flight', async () => {
    const run = promisify(execFile);
    await run(process.execPath, ['-e', endlessWrites], { env: childEnv, timeout: 60_000 });
  });

  it('lets a process end by itself when its engine is idle and not closed', async () => {
    const script = `
      const addon = require(process.env.ADDON);
      const config = { reactors: 2, cores: [], poll: 'adaptive', poller: 'epoll', memoryBytes: 1 << 28, rpcPath: null };
      const engine = new addon.Engine(config);
      engine.rpc('rpc_get_methods', '{}').then((answer) => console.log(JSON.parse(answer).result.length > 0));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script], {
      env: childEnv,
      timeout: 60_000,
    });
    expect(stdout.trim()).toBe('true');
  });

  it('keeps two engines of one process apart', async () => {
    const [a, b] = [start(), start()];
    await a.rpc('bdev_malloc_create', { name: 'same', num_blocks: 64, block_size: 4096 });
    expect(await b.rpc('bdev_get_bdevs')).toEqual([]);
    await b.rpc('bdev_malloc_create', { name: 'same', num_blocks: 32, block_size: 4096 });
    await a.close();
    expect(await b.rpc('bdev_get_bdevs')).toMatchObject([{ name: 'same', num_blocks: 32 }]);
  });

  it('moves bytes natively while the event loop is blocked for 2 s', async () => {
    // An association with a keep-alive of 1.5 s would be lost if JavaScript had a part in it.
    const [target, host] = [start(), start()];
    await target.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 4096, block_size: 4096 });
    await target.rpc('nvmf_create_transport', { trtype: 'TCP' });
    const nqn = 'nqn.2025-01.io.basalt:test:stall';
    await target.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
    await target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm0' } });
    const listen_address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const { trsvcid } = await target.rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
    const path = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid, subnqn: nqn } as const;
    const [bdev] = await host.rpc('bdev_nvme_attach_controller', { name: 'c', ...path, keep_alive_ms: 1500 });
    const [before] = await target.rpc('nvmf_subsystem_get_controllers', { nqn });
    const handle = await host.openBdev(bdev ?? '');
    const big = new Uint8Array(host.allocate(16 * 1024 * 1024)).fill(9);
    const written = handle.write(0, big);
    const until = performance.now() + 2100;
    while (performance.now() < until);
    await written;
    const back = new Uint8Array(big.length);
    await handle.read(0, back);
    expect(Buffer.compare(back, big)).toBe(0);
    expect(await target.rpc('nvmf_subsystem_get_controllers', { nqn })).toEqual([before]);
    await handle.close();
  });

  it('gives 4 KiB-aligned zeroed memory that outlives its engine and comes back when collected', async () => {
    const engine = start({ memoryBytes: 64 * 1024 * 1024 });
    const first = engine.allocate(12_345);
    expect(new Uint8Array(first).every((byte) => byte === 0)).toBe(true);
    expect(() => engine.allocate(0)).toThrow(TypeError);
    expect(() => engine.allocate(1 << 30)).toThrow(RangeError);
    // Far more in all than the engine may map at once.
    for (let i = 0; i < 64; i++) {
      for (let tries = 0; ; tries++) {
        try {
          new Uint8Array(engine.allocate(4 * 1024 * 1024)).fill(1);
          break;
        } catch (error) {
          if (tries > 50) throw error;
          await collectGarbage();
        }
      }
    }
    await engine.close();
    new Uint8Array(first).fill(3);
    expect(new Uint8Array(first)[12_344]).toBe(3);
  });

  it('refuses memory that threads share', async () => {
    const engine = start();
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    const handle = await engine.openBdev('m0');
    const shared = new SharedArrayBuffer(4096);
    await expect(handle.write(0, new Uint8Array(shared))).rejects.toThrow(TypeError);
    await expect(handle.read(0, new DataView(shared))).rejects.toThrow(TypeError);
    await handle.close();
  });

  it('checks the configuration and names the field', () => {
    expect(() => createNativeEngine({ reactors: 0 })).toThrow('config.reactors');
    expect(() => createNativeEngine({ memoryBytes: 1 })).toThrow('config.memoryBytes');
    expect(() => createNativeEngine({ rpcPath: `/tmp/${'x'.repeat(200)}` })).toThrow('Unix socket');
  });

  it('answers JSON-RPC on its Unix socket: pipelined, in pieces, with events after basalt_subscribe', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'basalt-rpc-'));
    const rpcPath = join(folder, 'rpc.sock');
    const engine = start({ rpcPath });
    const socket = createConnection(rpcPath);
    let received = '';
    socket.setEncoding('utf8').on('data', (text) => {
      received += text;
    });
    const lines = (): { id?: number; result?: unknown; error?: { code: number } }[] =>
      received
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line));
    const request = (id: number, method: string): string => JSON.stringify({ jsonrpc: '2.0', id, method });
    socket.write(request(1, 'basalt_subscribe') + request(2, 'bdev_get_bdevs') + request(3, 'nope').slice(0, 9));
    await expect.poll(() => lines().length).toBe(2);
    socket.write(request(3, 'nope').slice(9));
    socket.write('[{"jsonrpc":"2.0"}]');
    await expect.poll(() => lines().length).toBe(4);
    expect(lines().map((line) => line.result ?? line.error?.code)).toEqual([true, [], -32601, -32600]);
    await engine.close();
    await rm(folder, { recursive: true });
  });
});

async function collectGarbage(): Promise<void> {
  const { setFlagsFromString } = await import('node:v8');
  const { runInNewContext } = await import('node:vm');
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  await new Promise((resolve) => setImmediate(resolve));
}
