// SPDX-License-Identifier: Apache-2.0
//
// Cluster keys, and volumes' data keys wrapped by them. A data key is drawn with its volume and never changes; the
// cluster key that wraps it may. Only wrapped data keys and ids of cluster keys are ever stored.
//
// Invariants:  - a cluster key's id is computed from it, so a file cannot pass off one key as another
//              - a data key opens only for the volume that it was wrapped for
//              - the bytes of keys do not show in JSON, in logs or in error messages

import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { BasaltError } from './errors.js';
import type { VolumeEncryption } from './objects.js';

export const clusterKeyBytes = 32;
/** Two AES-256 keys: one for the data, one for the tweak. */
export const dataKeyBytes = 64;
const nonceBytes = 12;
const tagBytes = 16;

export class ClusterKey {
  readonly id: string;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    if (bytes.length !== clusterKeyBytes) throw new BasaltError('INTERNAL', { detail: 'a cluster key has 32 bytes' });
    this.#bytes = bytes;
    this.id = createHash('sha256').update('basalt cluster key\0').update(bytes).digest('hex').slice(0, 32);
  }

  /** For whoever writes the key file. */
  toText(): string {
    return this.#bytes.toString('base64');
  }

  toJSON(): { id: string } {
    return { id: this.id };
  }

  /** @returns nonce, ciphertext and tag */
  seal(plain: Buffer, context: { nonce: Buffer; associated: Buffer }): Buffer {
    const cipher = createCipheriv('aes-256-gcm', this.#bytes, context.nonce, { authTagLength: tagBytes });
    cipher.setAAD(context.associated);
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
    return Buffer.concat([context.nonce, sealed, cipher.getAuthTag()]);
  }

  /** null: sealed by another key, for something else, or damaged. */
  open(sealed: Buffer, associated: Buffer): Buffer | null {
    if (sealed.length < nonceBytes + tagBytes) return null;
    const nonce = sealed.subarray(0, nonceBytes);
    const decipher = createDecipheriv('aes-256-gcm', this.#bytes, nonce, { authTagLength: tagBytes });
    decipher.setAAD(associated);
    decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, -tagBytes)), decipher.final()]);
    } catch {
      return null;
    }
  }
}

/** What a key file holds: the cluster keys that are in use, oldest first. */
export class KeyRing {
  readonly keys: readonly ClusterKey[];

  constructor(keys: readonly ClusterKey[]) {
    this.keys = keys;
  }

  /** One line for each key: its id and its 32 bytes in base64. @throws CLUSTER_KEY_FILE naming the line */
  static parse(text: string, path: string): KeyRing {
    const keys: ClusterKey[] = [];
    for (const [index, line] of text.split('\n').entries()) {
      if (line.trim() === '' || line.startsWith('#')) continue;
      const problem = (detail: string): BasaltError =>
        new BasaltError('CLUSTER_KEY_FILE', { path, problem: `line ${index + 1}: ${detail}` });
      const match = /^basalt-cluster-key-1 ([0-9a-f]{32}) ([A-Za-z0-9+/]{43}=)$/.exec(line.trim());
      if (match === null) throw problem('is no cluster key');
      const key = new ClusterKey(Buffer.from(match[2] ?? '', 'base64'));
      if (key.id !== match[1]) throw problem(`the key does not have the id ${match[1]} that it is filed under`);
      if (!keys.some((known) => known.id === key.id)) keys.push(key);
    }
    if (keys.length === 0) throw new BasaltError('CLUSTER_KEY_FILE', { path, problem: 'holds no key' });
    return new KeyRing(keys);
  }

  toText(): string {
    const lines = this.keys.map((key) => `basalt-cluster-key-1 ${key.id} ${key.toText()}\n`);
    return `# Cluster keys of Basalt, oldest first. Who has this file can read every encrypted volume.\n${lines.join('')}`;
  }

  get newest(): ClusterKey {
    const newest = this.keys.at(-1);
    if (newest === undefined) throw new BasaltError('INTERNAL', { detail: 'an empty key ring' });
    return newest;
  }

  find(id: string): ClusterKey | null {
    return this.keys.find((key) => key.id === id) ?? null;
  }
}

/** Where cluster keys come from, and go to. */
export interface KeySource {
  /** As the file is now. @throws CLUSTER_KEY_FILE */
  ring(): Promise<KeyRing>;
}

interface Wrapped {
  readonly id: string;
  readonly name: string;
  readonly encryption: VolumeEncryption;
}

export function wrapDataKey(
  key: ClusterKey,
  volumeId: string,
  secret: { dataKey: Buffer; nonce: Buffer },
): VolumeEncryption {
  const sealed = key.seal(secret.dataKey, { nonce: secret.nonce, associated: associatedWith(volumeId) });
  return { cipher: 'aes-256-xts', keyId: key.id, wrappedKey: sealed.toString('base64') };
}

/**
 * The caller overwrites it after use.
 * @throws CLUSTER_KEY_MISSING when the ring lacks the key, VOLUME_KEY_DAMAGED when it has it and that does not open it
 */
export function unwrapDataKey(ring: KeyRing | null, volume: Wrapped): Buffer {
  const { keyId, wrappedKey } = volume.encryption;
  const key = ring?.find(keyId) ?? null;
  if (key === null) throw missingKey(`volume ${volume.name}`, keyId, ring);
  const drawnFor = volume.encryption.drawnFor ?? volume.id;
  const dataKey = key.open(Buffer.from(wrappedKey, 'base64'), associatedWith(drawnFor));
  if (dataKey === null || dataKey.length !== dataKeyBytes)
    throw new BasaltError('VOLUME_KEY_DAMAGED', { name: volume.name, keyId });
  return dataKey;
}

export function missingKey(what: string, keyId: string, ring: KeyRing | null): BasaltError {
  const held = ring === null ? 'no cluster key' : ring.keys.map((key) => key.id).join(', ');
  return new BasaltError('CLUSTER_KEY_MISSING', { what, keyId, held });
}

function associatedWith(volumeId: string): Buffer {
  return Buffer.from(`basalt volume data key\0aes-256-xts\0${volumeId}`);
}
