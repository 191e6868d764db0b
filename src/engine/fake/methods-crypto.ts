// SPDX-License-Identifier: Apache-2.0
//
// The fake's accel_crypto_* and bdev_crypto_* methods: the same ciphertext as the native engine's.

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { type FakeIo, followSize, makeBdev } from './bdev.js';
import type { Fields } from './fields.js';
import { type Handler, remove } from './methods-bdev.js';
import { internalError, Refused } from './refusal.js';
import type { EngineState } from './state.js';

function createKey(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  fields.choice('cipher', ['AES_XTS']);
  const key = hex(fields, 'key');
  const key2 = hex(fields, 'key2');
  if (fields.has('tweak_mode')) fields.choice('tweak_mode', ['SIMPLE_LBA']);
  fields.end();
  if (state.cryptoKeys.has(name)) throw new Refused('exists', `key ${name} exists`);
  if (key.length !== 16 && key.length !== 32) fields.refuse('key', `must be of 16 or 32 bytes, is of ${key.length}`);
  if (key2.length !== key.length) fields.refuse('key2', `must be as long as key, is of ${key2.length} bytes`);
  if (key.equals(key2)) fields.refuse('key2', 'must differ from key');
  state.cryptoKeys.set(name, Buffer.concat([key, key2]));
  return true;
}

function hex(fields: Fields, name: string): Buffer {
  const text = fields.secret(name);
  if (!/^([0-9a-fA-F]{2})+$/.test(text)) fields.refuse(name, 'must be hexadecimal digits, two for each byte');
  return Buffer.from(text, 'hex');
}

function destroyKey(state: EngineState, fields: Fields): true {
  const name = fields.string('key_name');
  fields.end();
  if (!state.cryptoKeys.delete(name)) throw noKey(name);
  return true;
}

function getKeys(state: EngineState, fields: Fields): unknown {
  const wanted = fields.has('key_name') ? fields.string('key_name') : null;
  fields.end();
  if (wanted !== null && !state.cryptoKeys.has(wanted)) throw noKey(wanted);
  return [...state.cryptoKeys]
    .filter(([name]) => wanted === null || name === wanted)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, keys]) => ({ name, cipher: 'AES_XTS', key_bits: keys.length * 4, tweak_mode: 'SIMPLE_LBA' }));
}

function createCrypto(state: EngineState, fields: Fields): string {
  const base = fields.string('base_bdev_name');
  const name = fields.string('name');
  const keyName = fields.string('key_name');
  const uuid = fields.uuidOr('uuid', () => state.network.random.uuid());
  fields.end();
  const keys = state.cryptoKeys.get(keyName);
  if (keys === undefined) throw noKey(keyName);
  state.assertFree(name);
  const [below] = state.claim([base], `bdev ${name}`);
  if (below === undefined) throw new Refused('notFound', `bdev ${base} does not exist`);
  const { blockBytes, numBlocks } = below;
  const io = cryptoIo(below, keys, blockBytes);
  const bdev = makeBdev({ name, product: 'crypto', uuid, blockBytes, numBlocks, children: [base] }, io);
  state.bdevs.set(
    name,
    followSize(bdev, () => below.numBlocks),
  );
  return name;
}

/** A block of zeroes below was never written. */
function cryptoIo(below: FakeIo, keys: Buffer, blockBytes: number): FakeIo {
  const cipher = keys.length === 64 ? 'aes-256-xts' : 'aes-128-xts';
  const blocks = (
    data: Uint8Array,
    offset: number,
    run: (block: Uint8Array, tweak: Buffer) => Uint8Array,
  ): Uint8Array => {
    const out = new Uint8Array(data.length);
    for (let at = 0; at < data.length; at += blockBytes) {
      const tweak = Buffer.alloc(16);
      tweak.writeBigUInt64LE(BigInt(offset + at / blockBytes));
      out.set(run(data.subarray(at, at + blockBytes), tweak), at);
    }
    return out;
  };
  return {
    async read(offset, count) {
      return blocks(await below.read(offset, count), offset, (block, tweak) =>
        block.every((byte) => byte === 0) ? block : createDecipheriv(cipher, keys, tweak).update(block),
      );
    },
    async write(offset, data) {
      const sealed = blocks(data, offset, (block, tweak) => {
        const out = createCipheriv(cipher, keys, tweak).update(block);
        if (out.every((byte) => byte === 0)) throw internalError();
        return out;
      });
      await below.write(offset, sealed);
    },
    flush: () => below.flush(),
  };
}

function noKey(name: string): Refused {
  return new Refused('notFound', `key ${name} does not exist`);
}

export const cryptoMethods: Record<string, Handler> = {
  accel_crypto_key_create: createKey,
  accel_crypto_key_destroy: destroyKey,
  accel_crypto_keys_get: getKeys,
  bdev_crypto_create: createCrypto,
  bdev_crypto_delete: remove('crypto'),
};
