// SPDX-License-Identifier: Apache-2.0

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Engine, engineErrorCodes, IllegalState } from '../engine.js';
import { createNativeEngine } from '../native/native-engine.js';
import { type AttachedEngine, attachEngine } from './attached-engine.js';

let folder: string;
let rpcPath: string;
const open: { close(): Promise<void> }[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-attached-'));
  rpcPath = join(folder, 'rpc.sock');
});

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
  rmSync(folder, { recursive: true, force: true });
});

function serve(): Engine {
  const engine = createNativeEngine({ rpcPath });
  open.push(engine);
  return engine;
}

async function attach(): Promise<AttachedEngine> {
  const engine = await attachEngine({ rpcPath, retryMs: 20 });
  open.push(engine);
  return engine;
}

/** Resolves with the next state of the connection. */
const nextConnection = (engine: AttachedEngine): Promise<boolean> =>
  new Promise((resolve) => {
    const end = engine.onConnection((connected) => {
      end();
      resolve(connected);
    });
  });

describe('an attached engine', () => {
  it('answers and refuses as the engine itself does', async () => {
    const near = serve();
    const far = await attach();
    const params = { name: 'm0', num_blocks: 256, block_size: 4096 };
    expect(await far.rpc('bdev_malloc_create', params)).toBe('m0');
    expect(await near.rpc('bdev_get_bdevs', {})).toEqual(await far.rpc('bdev_get_bdevs', {}));
    await expect(far.rpc('bdev_malloc_create', params)).rejects.toMatchObject({ code: engineErrorCodes.exists });
    await expect(far.rpc('bdev_malloc_delete', { name: '' })).rejects.toMatchObject({
      code: engineErrorCodes.invalidParams,
      method: 'bdev_malloc_delete',
      message: expect.stringContaining('params.name'),
    });
    await expect(far.openBdev('m0')).rejects.toMatchObject({ code: engineErrorCodes.unsupported });
  });

  it('has many calls under way at once, each with its own answer', async () => {
    serve();
    const far = await attach();
    const names = Array.from({ length: 100 }, (_, index) => `m${index}`);
    const made = names.map((name) => far.rpc('bdev_null_create', { name, num_blocks: 8, block_size: 512 }));
    expect(await Promise.all(made)).toEqual(names);
  });

  it('says what the engine promises', async () => {
    serve();
    const far = await attach();
    expect(far.capabilities.version).toMatch(/^Basalt v/);
    expect(far.capabilities.missing).toEqual([]);
  });

  it('tells the events of the engine', async () => {
    serve();
    const far = await attach();
    const told = new Promise((resolve) => far.on('event', resolve));
    const nqn = 'nqn.2026-01.io.basalt:attached';
    await far.rpc('nvmf_create_transport', { trtype: 'TCP' });
    await far.rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
    const address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const { trsvcid } = await far.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: address });
    await far.rpc('basalt_peer_watch', { name: 'self', traddr: '127.0.0.1', trsvcid, keep_alive_ms: 1000 });
    expect(await told).toEqual({ method: 'peer_connected', params: { name: 'self' } });
  });

  it('leaves what it made when it goes', async () => {
    serve();
    const first = await attach();
    await first.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
    await first.close();
    await expect(first.rpc('bdev_get_bdevs', {})).rejects.toBeInstanceOf(IllegalState);
    const second = await attach();
    expect(await second.rpc('bdev_get_bdevs', {})).toMatchObject([{ name: 'm0' }]);
  });

  it('finds an engine that was started again', async () => {
    const before = serve();
    const far = await attach();
    const lost = nextConnection(far);
    await before.close();
    expect(await lost).toBe(false);
    await expect(far.rpc('bdev_get_bdevs', {})).rejects.toMatchObject({ code: engineErrorCodes.unreachable });
    const found = nextConnection(far);
    serve();
    expect(await found).toBe(true);
    expect(await far.rpc('bdev_get_bdevs', {})).toEqual([]);
  });

  it('is refused where nobody serves', async () => {
    await expect(attachEngine({ rpcPath })).rejects.toMatchObject({
      code: engineErrorCodes.unreachable,
      message: expect.stringContaining(rpcPath),
    });
  });
});

describe('an engine that does not behave', () => {
  /** Answers as SPDK does to the two first questions; then `rest` is on its own. */
  async function fake(rest: (socket: Socket, id: number) => void): Promise<void> {
    const sockets = new Set<Socket>();
    const server: Server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.setEncoding('utf8').on('data', (text: string) => {
        for (const line of text.replaceAll('}{', '}\n{').split('\n')) {
          const { id, method, params } = JSON.parse(line) as { id: number; method: string; params?: object };
          const say = (more: object): boolean => socket.write(JSON.stringify({ jsonrpc: '2.0', id, ...more }));
          const answer = (result: unknown): boolean => say({ result });
          const none = { code: -32602, message: `${method} method requires no parameters` };
          if (method === 'spdk_get_version' && params !== undefined) say({ error: none });
          else if (method === 'rpc_get_methods') answer(['rpc_get_methods', 'bdev_get_bdevs']);
          else if (method === 'spdk_get_version') answer({ version: 'SPDK v26.05' });
          else rest(socket, id);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(rpcPath, resolve));
    open.push({
      close: () =>
        new Promise((resolve) => {
          for (const socket of sockets) socket.destroy();
          server.close(() => resolve());
        }),
    });
  }

  it('promises nothing that its methods do not show', async () => {
    await fake(() => {});
    const far = await attach();
    expect(far.capabilities.version).toBe('SPDK v26.05');
    expect(far.capabilities.missing).toContain('member gate');
  });

  it('and goes away in the middle leaves the outcome unknown, and is asked nothing twice', async () => {
    const asked: number[] = [];
    await fake((socket, id) => {
      asked.push(id);
      if (asked.length === 1) socket.destroy();
      else socket.write(JSON.stringify({ jsonrpc: '2.0', id, result: [] }));
    });
    const far = await attach();
    const back = new Promise<void>((resolve) => far.onConnection((connected) => connected && resolve()));
    await expect(far.rpc('bdev_get_bdevs', {})).rejects.toMatchObject({
      code: engineErrorCodes.unreachable,
      message: expect.stringContaining('may still happen'),
    });
    await back;
    expect(asked).toHaveLength(1);
    expect(await far.rpc('bdev_get_bdevs', {})).toEqual([]);
  });

  it('and answers what was not asked, or nothing that is JSON, loses its connection', async () => {
    for (const noise of ['{"jsonrpc":"2.0","id":99999,"result":1}', 'hello', '{"a":}']) {
      await fake((socket) => socket.write(noise));
      const far = await attach();
      await expect(far.rpc('bdev_get_bdevs', {}), noise).rejects.toMatchObject({
        code: engineErrorCodes.unreachable,
      });
      for (const each of open.splice(0).reverse()) await each.close();
    }
  });

  it('and never answers is given up after the time-out', async () => {
    await fake(() => {});
    const far = await attach();
    await expect(far.rpc('bdev_get_bdevs', {}, { timeoutMs: 30 })).rejects.toMatchObject({
      code: engineErrorCodes.timedOut,
    });
  });
});
