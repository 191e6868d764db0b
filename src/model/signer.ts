// SPDX-License-Identifier: Apache-2.0
//
// Signs what nodes leave on disks for the day on which the store is lost: by HMAC-SHA256 under a key that follows from the
// node key, so that only nodes of the cluster can have written it. Where nodes have no key they go by their names alone,
// and so does this: the signature is a checksum then, and says so.
//
// Invariants:  - a signature is of one kind of thing: one that was made of a set is none of a configuration
//              - every key of the ring is believed, the newest one signs
//              - who has a key does not believe what is not signed

import { createHash, timingSafeEqual } from 'node:crypto';
import type { NodeKey, NodeKeyRing } from './node-key.js';

const keyIdBytes = 8;
const macBytes = 32;
export const signatureBytes = keyIdBytes + macBytes;

export type SignedKind = 'in-sync set' | 'configuration';

export class Signer {
  readonly #ring: NodeKeyRing | null;

  /** Null: there is no node key. */
  constructor(ring: NodeKeyRing | null) {
    this.#ring = ring;
  }

  get hasKey(): boolean {
    return this.#ring !== null;
  }

  sign(kind: SignedKind, bytes: Uint8Array): Buffer {
    return this.#signature(this.#ring?.newest ?? null, kind, bytes);
  }

  isSigned(kind: SignedKind, bytes: Uint8Array, signature: Uint8Array): boolean {
    if (signature.length !== signatureBytes) return false;
    const id = Buffer.from(signature.subarray(0, keyIdBytes)).toString('hex');
    const key = this.#ring === null ? null : this.#ring.keys.find((each) => each.id === id);
    if (key === undefined) return false;
    return timingSafeEqual(this.#signature(key, kind, bytes), Buffer.from(signature));
  }

  #signature(key: NodeKey | null, kind: SignedKind, bytes: Uint8Array): Buffer {
    const id = key === null ? Buffer.alloc(keyIdBytes) : Buffer.from(key.id, 'hex');
    return Buffer.concat([id, key?.macOf(kind, bytes) ?? checksumOf(kind, bytes)]);
  }
}

function checksumOf(kind: SignedKind, bytes: Uint8Array): Buffer {
  return createHash('sha256').update(`basalt ${kind}\0`).update(bytes).digest();
}
