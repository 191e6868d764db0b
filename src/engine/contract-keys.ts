// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of keys: authentication, TLS and encryption; part of the engine contract (contract.ts).

import { createCipheriv } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { expectRefusal, pattern, refusal } from './contract-tools.js';
import type { AuthenticationPolicy, KeyNames, ListenAddress } from './descriptions.js';
import { type Engine, engineErrorCodes } from './engine.js';

/** Two secrets in files that only their owner may read. */
async function secretFiles(folder: string): Promise<[string, string]> {
  const texts = [
    'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:',
    'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:',
  ];
  const paths = texts.map((_, index) => join(folder, `key-${index}`)) as [string, string];
  for (const [index, path] of paths.entries()) await writeFile(path, `${texts[index]}\n`, { mode: 0o600 });
  return paths;
}

export function keys(start: () => Engine): void {
  it('lets hosts authenticate with keys of the keyring, and shows their names only', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'basalt-keys-'));
    try {
      const [hostPath, controllerPath] = await secretFiles(folder);
      const engine = start();
      const nqn = 'nqn.2026-01.io.basalt:keys';
      const host = 'nqn.2026-01.io.basalt:host';
      expect(await engine.rpc('keyring_file_add_key', { name: 'h', path: hostPath })).toBe(true);
      expect(await engine.rpc('keyring_file_add_key', { name: 'c', path: controllerPath })).toBe(true);
      await expectRefusal(engine.rpc('keyring_file_add_key', { name: 'h', path: hostPath }), 'exists', 'key h');
      await expectRefusal(engine.rpc('keyring_file_add_key', { name: 'x', path: 'key' }), 'invalidParams', 'path');
      await engine.rpc('nvmf_create_subsystem', { nqn });
      const add = (names: KeyNames) => engine.rpc('nvmf_subsystem_add_host', { nqn, host, ...names });
      await expectRefusal(add({ dhchap_key: 'none' }), 'notFound', 'dhchap_key: key none');
      await expectRefusal(add({ dhchap_ctrlr_key: 'c' }), 'invalidParams', 'params.dhchap_ctrlr_key');
      await expectRefusal(add({ dhchap_key: 'h', dhchap_ctrlr_key: 'h' }), 'invalid', 'dhchap_ctrlr_key');
      expect(await add({ dhchap_key: 'h', dhchap_ctrlr_key: 'c' })).toBe(true);
      const [shown] = await engine.rpc('nvmf_get_subsystems', { nqn });
      expect(shown?.hosts).toEqual([{ nqn: host, dhchap_key: 'h', dhchap_ctrlr_key: 'c' }]);
      expect(await engine.rpc('nvmf_subsystem_set_keys', { nqn, host, dhchap_key: 'c' })).toBe(true);
      const nobody = { nqn, host: 'nqn.2026-01.io.basalt:nobody', dhchap_key: 'h' };
      await expectRefusal(engine.rpc('nvmf_subsystem_set_keys', nobody), 'notFound', 'nobody');
      expect(await engine.rpc('keyring_file_remove_key', { name: 'c' })).toBe(true);
      await expectRefusal(engine.rpc('keyring_file_remove_key', { name: 'c' }), 'notFound', 'key c');
      expect(await engine.rpc('keyring_get_keys')).toEqual([{ name: 'h', path: hostPath }]);
      expect(JSON.stringify(await engine.rpc('nvmf_get_subsystems', {}))).not.toContain('DHHC');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('takes a secret that is in no file, and shows its name only', async () => {
    const engine = start();
    const secret = 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:';
    const add = (params: object): Promise<unknown> =>
      engine.rpc('basalt_keyring_add_key', { name: 'k', secret, ...params } as { name: string; secret: string });
    expect(await add({})).toBe(true);
    await expectRefusal(add({}), 'exists', 'key k');
    for (const wrong of [[secret], { secret }, '']) {
      const error = await refusal(add({ name: 'l', secret: wrong }));
      expect(error.code).toBe(engineErrorCodes.invalidParams);
      expect(error.message).not.toContain('AAECAwQF');
    }
    expect(await engine.rpc('keyring_get_keys')).toEqual([{ name: 'k', path: '' }]);
    const nqn = 'nqn.2026-01.io.basalt:secrets';
    const host = 'nqn.2026-01.io.basalt:host';
    await engine.rpc('nvmf_create_subsystem', { nqn });
    await engine.rpc('nvmf_subsystem_add_host', { nqn, host, dhchap_key: 'k' });
    expect(await engine.rpc('basalt_keyring_remove_key', { name: 'k' })).toBe(true);
    await expectRefusal(engine.rpc('basalt_keyring_remove_key', { name: 'k' }), 'notFound', 'key k');
    // Whoever was given it keeps it.
    const [shown] = await engine.rpc('nvmf_get_subsystems', { nqn });
    expect(shown?.hosts).toEqual([{ nqn: host, dhchap_key: 'k' }]);
    expect(JSON.stringify(shown)).not.toContain('DHHC');
  });

  it('listens with TLS, takes keys for it by name, and shows their names only', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'basalt-psk-'));
    try {
      const path = join(folder, 'psk');
      const text = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';
      await writeFile(path, `${text}\n`, { mode: 0o600 });
      const engine = start();
      const nqn = 'nqn.2026-01.io.basalt:tls';
      const host = 'nqn.2026-01.io.basalt:host';
      await engine.rpc('keyring_file_add_key', { name: 'p', path });
      await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
      await engine.rpc('nvmf_create_subsystem', { nqn });
      const add = (psk: string) => engine.rpc('nvmf_subsystem_add_host', { nqn, host, psk });
      await expectRefusal(add('none'), 'notFound', 'psk: key none');
      expect(await add('p')).toBe(true);
      // Other keys may change without it.
      expect(await engine.rpc('nvmf_subsystem_set_keys', { nqn, host })).toBe(true);
      const any: ListenAddress = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' };
      const open: ListenAddress = { trtype: 'TCP', traddr: '192.0.2.1', trsvcid: '0' };
      const listen = (listen_address: ListenAddress, secure_channel: boolean) =>
        engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address, secure_channel });
      await expectRefusal(listen(open, false), 'permission', 'loopback');
      const { trsvcid } = await listen(any, true);
      const other = 'nqn.2026-01.io.basalt:other';
      await engine.rpc('nvmf_create_subsystem', { nqn: other });
      const same = { nqn: other, listen_address: { ...any, trsvcid } };
      await expectRefusal(engine.rpc('nvmf_subsystem_add_listener', same), 'busy', 'TLS');
      const [shown] = await engine.rpc('nvmf_get_subsystems', { nqn });
      expect(shown?.hosts).toEqual([{ nqn: host, psk: 'p' }]);
      expect(shown?.listen_addresses).toEqual([expect.objectContaining({ trsvcid, secure_channel: true })]);
      const [transport] = await engine.rpc('nvmf_get_transports', {});
      const refused = { plaintext: 0, key: 0, handshake: 0, timeout: 0 };
      expect(transport?.tls).toEqual({ established: 0, refused, refused_peers: [] });
      const seen = JSON.stringify([shown, await engine.rpc('keyring_get_keys'), transport]);
      expect(seen).not.toContain('NVMeTLSkey');
      expect(seen).not.toContain('VRLb');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('watches a peer whose port speaks TLS with the key that it lets the watcher in by, and says when it does not', async () => {
    const [peer, watcher] = [start(), start()];
    const host = 'nqn.2026-01.io.basalt:watcher';
    const nqn = 'nqn.2026-01.io.basalt:watched';
    const right = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';
    const wrong = 'NVMeTLSkey-1:01:c+kF8qsl7iMg8ZDG2SHbRhMYXRAOo42XMu5ROpC7y1yXdQll:';
    await peer.rpc('nvmf_create_transport', { trtype: 'TCP' });
    await peer.rpc('nvmf_create_subsystem', { nqn, internal: true });
    await peer.rpc('basalt_keyring_add_key', { name: 'right', secret: right });
    await peer.rpc('nvmf_subsystem_add_host', { nqn, host, psk: 'right' });
    const discovery = 'nqn.2014-08.org.nvmexpress.discovery';
    const listen_address = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
    const at = { nqn: discovery, listen_address, secure_channel: true };
    const { traddr, trsvcid } = await peer.rpc('nvmf_subsystem_add_listener', at);
    await watcher.rpc('basalt_keyring_add_key', { name: 'right', secret: right });
    await watcher.rpc('basalt_keyring_add_key', { name: 'wrong', secret: wrong });
    const told: object[] = [];
    watcher.on('event', ({ method, params }) => told.push({ method, name: (params as { name: string }).name }));
    const watch = { traddr, trsvcid, keep_alive_ms: 500, hostnqn: host };
    await expectRefusal(watcher.rpc('basalt_peer_watch', { name: 'n', ...watch, psk: 'none' }), 'notFound', 'psk');
    for (const psk of ['right', 'wrong']) await watcher.rpc('basalt_peer_watch', { name: psk, ...watch, psk });
    const connected = { method: 'peer_connected', name: 'right' };
    await expect
      .poll(() => told, { timeout: 10_000 })
      .toEqual(expect.arrayContaining([connected, { method: 'peer_denied', name: 'wrong' }]));
    expect(told).toHaveLength(2);
  });

  it('takes what hosts may authenticate with, and refuses what it does not know', async () => {
    const engine = start();
    const policy = { dhchap_digests: ['sha512', 'sha256'], dhchap_dhgroups: ['null'] } satisfies AuthenticationPolicy;
    expect(await engine.rpc('nvmf_set_config', policy)).toBe(true);
    const unknown = { dhchap_dhgroups: ['modp1024' as 'null'] };
    await expectRefusal(engine.rpc('nvmf_set_config', unknown), 'invalidParams', 'ffdhe2048');
    const twice = { dhchap_digests: ['sha256', 'sha256'] } satisfies AuthenticationPolicy;
    await expectRefusal(engine.rpc('nvmf_set_config', twice), 'invalidParams', 'each once');
  });

  it('takes whom discovery tells what, and the discovery services of others that it names', async () => {
    const engine = start();
    for (const discovery_access of ['authenticated', 'off', 'open'] as const)
      expect(await engine.rpc('nvmf_set_config', { discovery_access })).toBe(true);
    const wrong = { discovery_access: 'closed' as 'off' };
    await expectRefusal(engine.rpc('nvmf_set_config', wrong), 'invalidParams', 'params.discovery_access');
    const address = { trtype: 'TCP', traddr: '192.0.2.7', trsvcid: '4420' } as const;
    const six = { trtype: 'TCP', traddr: '2001:db8::7', trsvcid: '4421' } as const;
    expect(await engine.rpc('nvmf_discovery_get_referrals')).toEqual([]);
    expect(await engine.rpc('nvmf_discovery_add_referral', { address })).toBe(true);
    expect(await engine.rpc('nvmf_discovery_add_referral', { address: six, secure_channel: true })).toBe(true);
    expect(await engine.rpc('nvmf_discovery_get_referrals')).toEqual([
      { address: { ...address, adrfam: 'IPv4' }, secure_channel: false },
      { address: { ...six, adrfam: 'IPv6' }, secure_channel: true },
    ]);
    await expectRefusal(engine.rpc('nvmf_discovery_add_referral', { address }), 'exists', 'referral');
    expect(await engine.rpc('nvmf_discovery_remove_referral', { address })).toBe(true);
    await expectRefusal(engine.rpc('nvmf_discovery_remove_referral', { address }), 'notFound', 'referral');
    const free = { address: { ...address, trsvcid: '0' } };
    await expectRefusal(engine.rpc('nvmf_discovery_add_referral', free), 'invalidParams', 'port');
  });
}

export function encryption(start: () => Engine): void {
  const keys = {
    key: '27182818284590452353602874713526'.repeat(2),
    key2: '31415926535897932384626433832795'.repeat(2),
  };
  const make = async (engine: Engine): Promise<void> => {
    await engine.rpc('bdev_malloc_create', { name: 'm0', num_blocks: 64, block_size: 4096 });
    await engine.rpc('accel_crypto_key_create', { name: 'k', cipher: 'AES_XTS', ...keys });
    await engine.rpc('bdev_crypto_create', { base_bdev_name: 'm0', name: 'c0', key_name: 'k' });
  };

  it('stores AES-XTS of each block below a crypto bdev, and zeroes where nothing was written', async () => {
    const engine = start();
    await make(engine);
    const [described] = await engine.rpc('bdev_get_bdevs', { name: 'c0' });
    expect(described).toMatchObject({ product_name: 'crypto', block_size: 4096, num_blocks: 64 });
    // What holds the key is the bdev.
    await engine.rpc('accel_crypto_key_destroy', { key_name: 'k' });
    const crypto = await engine.openBdev('c0');
    const data = pattern(2 * 4096, 3);
    await crypto.write(5 * 4096, data);
    const read = new Uint8Array(4 * 4096).fill(1);
    await crypto.read(4 * 4096, read);
    expect(Buffer.compare(read.subarray(4096, 3 * 4096), data)).toBe(0);
    expect([...read.subarray(0, 4096), ...read.subarray(3 * 4096)].every((byte) => byte === 0)).toBe(true);
    await crypto.close();
    await expectRefusal(engine.rpc('bdev_malloc_delete', { name: 'm0' }), 'busy', 'c0');
    await engine.rpc('bdev_crypto_delete', { name: 'c0' });
    const base = await engine.openBdev('m0');
    await base.read(4 * 4096, read);
    const expected = Buffer.concat(
      [0, 1].map((index) => xts(keys, 5 + index, data.subarray(index * 4096, (index + 1) * 4096))),
    );
    expect(Buffer.compare(read.subarray(4096, 3 * 4096), expected)).toBe(0);
    expect([...read.subarray(0, 4096), ...read.subarray(3 * 4096)].every((byte) => byte === 0)).toBe(true);
    await base.close();
  });

  it('refuses what is no pair of keys, and shows no key in any answer', async () => {
    const engine = start();
    await make(engine);
    const create = (params: object): Promise<unknown> =>
      engine.rpc('accel_crypto_key_create', { name: 'l', cipher: 'AES_XTS', ...keys, ...params } as {
        name: string;
        cipher: 'AES_XTS';
        key: string;
        key2: string;
      });
    const secret = 'c0ffee'.repeat(5);
    const wrong = [
      [{ key: `${secret}x` }, 'params.key: must be hexadecimal digits'],
      [{ key: Number.parseInt(secret.slice(0, 12), 16) }, 'params.key: must be a string'],
      [{ key: [secret] }, 'params.key: must be a string'],
      [{ key: secret, key2: secret }, 'params.key: must be of 16 or 32 bytes, is of 15'],
      [{ key2: secret }, 'params.key2: must be as long as key, is of 15 bytes'],
      [{ key2: keys.key }, 'params.key2: must differ from key'],
    ] as const;
    for (const [params, about] of wrong) {
      const error = await refusal(create(params));
      expect(error.code).toBe(engineErrorCodes.invalidParams);
      expect(error.message).toContain(about);
      expect(error.message.toLowerCase()).not.toMatch(/c0ffee|27182818|31415926/);
      expect(error.message).not.toContain(String(Number.parseInt(secret.slice(0, 12), 16)));
    }
    await expectRefusal(create({ name: 'k' }), 'exists', 'key k');
    const shown = [await engine.rpc('accel_crypto_keys_get'), await engine.rpc('bdev_get_bdevs')];
    expect(shown[0]).toEqual([{ name: 'k', cipher: 'AES_XTS', key_bits: 256, tweak_mode: 'SIMPLE_LBA' }]);
    expect(JSON.stringify(shown)).not.toMatch(/27182818|31415926/);
    await expectRefusal(engine.rpc('accel_crypto_key_destroy', { key_name: 'x' }), 'notFound', 'key x');
    const missing = engine.rpc('bdev_crypto_create', { base_bdev_name: 'm0', name: 'c1', key_name: 'x' });
    await expectRefusal(missing, 'notFound', 'key x');
    const taken = engine.rpc('bdev_crypto_create', { base_bdev_name: 'm0', name: 'c1', key_name: 'k' });
    await expectRefusal(taken, 'busy', 'c0');
  });
}

function xts(keys: { key: string; key2: string }, block: number, data: Uint8Array): Buffer {
  const tweak = Buffer.alloc(16);
  tweak.writeBigUInt64LE(BigInt(block));
  return createCipheriv('aes-256-xts', Buffer.from(keys.key + keys.key2, 'hex'), tweak).update(data);
}
