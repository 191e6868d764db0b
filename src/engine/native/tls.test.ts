// SPDX-License-Identifier: Apache-2.0
//
// NVMe/TCP with TLS between two engines: psk and secure_channel as an operator says them.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine.js';
import { createNativeEngine } from './native-engine.js';

const right = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';
const wrong = 'NVMeTLSkey-1:00:FzPFn6f0j8839fJvxP8CaK1PeOAw9POwv9HUfnuxRHre+Y7v:';
const nqn = 'nqn.2026-01.io.basalt:tls';
const hostnqn = 'nqn.2026-01.io.basalt:host';
const listen_address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;

const open: Engine[] = [];
let folder = '';

async function start(keys: Record<string, string>): Promise<Engine> {
  const engine = createNativeEngine();
  open.push(engine);
  for (const [name, text] of Object.entries(keys)) {
    const path = join(folder, `${open.length}-${name}`);
    await writeFile(path, text, { mode: 0o600 });
    await engine.rpc('keyring_file_add_key', { name, path });
  }
  return engine;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-tls-'));
});
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close();
  await rm(folder, { recursive: true });
});

describe('TLS over TCP', () => {
  it('connects a host that has the key, and nobody else', async () => {
    const target = await start({ psk: right });
    const host = await start({ psk: right, wrong, broken: right.replace('VRLb', 'VRLc') });
    const events: unknown[] = [];
    target.on('event', (event) => events.push(event));
    await target.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 256, block_size: 4096 });
    await target.rpc('nvmf_create_transport', { trtype: 'TCP' });
    await target.rpc('nvmf_create_subsystem', { nqn });
    await target.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm0' } });
    await target.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn, psk: 'psk' });
    const secure = { nqn, listen_address, secure_channel: true };
    const { trsvcid } = await target.rpc('nvmf_subsystem_add_listener', secure);

    const path = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid, subnqn: nqn, hostnqn } as const;
    const attach = (psk?: string): Promise<string[]> =>
      host.rpc('bdev_nvme_attach_controller', { name: 'c', ...path, ...(psk === undefined ? {} : { psk }) });
    const failures: string[] = [];
    const failure = async (psk?: string): Promise<string> => {
      const text = await attach(psk).then(
        () => 'it connected',
        (error: Error) => error.message,
      );
      failures.push(text);
      return text;
    };
    expect(await failure('wrong')).toMatch(/TLS: the target refuses this host's key/);
    expect(await failure('broken')).toMatch(/psk: key broken: not a TLS key: its checksum is wrong/);
    expect(await failure()).toMatch(/closed the connection/);
    expect(await attach('psk')).toEqual(['cn1']);

    const handle = await host.openBdev('cn1');
    const data = new Uint8Array(64 * 4096).map((_, index) => index * 31);
    await handle.write(0, data);
    const back = new Uint8Array(data.length);
    await handle.read(0, back);
    expect(Buffer.from(back).equals(Buffer.from(data))).toBe(true);
    await handle.close();

    const [transport] = await target.rpc('nvmf_get_transports', {});
    expect(transport?.tls?.established).toBe(2);
    expect(transport?.tls?.refused).toEqual({ plaintext: 1, key: 1, handshake: 0, timeout: 0 });
    expect(transport?.tls?.refused_peers).toEqual([{ traddr: '127.0.0.1', reason: 'key', count: 2 }]);
    const told = { method: 'nvmf_tls_refused', params: { traddr: '127.0.0.1', reason: 'key' } };
    await expect.poll(() => events).toEqual([told]);
    expect(JSON.stringify([failures, events, transport, await target.rpc('nvmf_get_subsystems', {})])).not.toMatch(
      /VRL|FzPF|NVMeTLSkey-1:0/,
    );
  });
});
