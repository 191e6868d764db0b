// SPDX-License-Identifier: Apache-2.0
//
// Node keys: by them the nodes of a cluster know each other. Every node has one, and whoever has it is a node. It is not
// the cluster key, and nothing about that one follows from it: machines that only have disks need not be able to read
// what is encrypted on them.
//
// Invariants:  - a key's id is computed from it
//              - what a controller authenticates with is derived for its name and one direction: nothing else follows from it

import { createHash, createHmac, hkdfSync } from 'node:crypto';
import { crc32 } from './crc32.js';
import { BasaltError } from './errors.js';

export const nodeKeyBytes = 32;

/** Which side proves itself: the controller of a volume, or the node that has the replica. */
export type NodeSide = 'controller' | 'replica';

export class NodeKey {
  readonly id: string;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    if (bytes.length !== nodeKeyBytes) throw new BasaltError('INTERNAL', { detail: 'a node key has 32 bytes' });
    this.#bytes = bytes;
    this.id = createHash('sha256').update('basalt node key\0').update(bytes).digest('hex').slice(0, 16);
  }

  /** For whoever writes the key file. */
  toText(): string {
    return this.#bytes.toString('base64');
  }

  toJSON(): { id: string } {
    return { id: this.id };
  }

  /** What that side authenticates with between a replica and the controller that calls itself `hostnqn`. */
  secretOf(side: NodeSide, hostnqn: string): string {
    return `DHHC-1:00:${this.#interchange(`basalt node authentication\0${side}\0${hostnqn}`)}:`;
  }

  /** What a connection by TLS of the controller that calls itself `hostnqn` begins with. */
  pskOf(hostnqn: string): string {
    return `NVMeTLSkey-1:01:${this.#interchange(`basalt node TLS\0${hostnqn}`)}:`;
  }

  /** 32 bytes derived for that use and their checksum: both formats' way to write them down. */
  #interchange(info: string): string {
    const derived = this.#derive(info);
    const checksum = Buffer.alloc(4);
    checksum.writeUInt32LE(crc32(derived));
    return Buffer.concat([derived, checksum]).toString('base64');
  }

  #derive(info: string): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#bytes, Buffer.alloc(0), info, 32));
  }

  /** Shows that a node wrote those bytes, as something of that kind. */
  macOf(kind: string, bytes: Uint8Array): Buffer {
    return createHmac('sha256', this.#derive(`basalt signed by a node\0${kind}`))
      .update(bytes)
      .digest();
  }
}

/** What a node key file holds, oldest first. All are accepted; the newest is used. */
export class NodeKeyRing {
  readonly keys: readonly NodeKey[];

  constructor(keys: readonly NodeKey[]) {
    this.keys = keys;
  }

  /** @throws NODE_KEY_FILE naming the line */
  static parse(text: string, path: string): NodeKeyRing {
    const keys: NodeKey[] = [];
    for (const [index, line] of text.split('\n').entries()) {
      if (line.trim() === '' || line.startsWith('#')) continue;
      const problem = (detail: string): BasaltError =>
        new BasaltError('NODE_KEY_FILE', { path, problem: `line ${index + 1}: ${detail}` });
      const match = /^basalt-node-key-1 ([0-9a-f]{16}) ([A-Za-z0-9+/]{43}=)$/.exec(line.trim());
      if (match === null) throw problem('is no node key');
      const key = new NodeKey(Buffer.from(match[2] ?? '', 'base64'));
      if (key.id !== match[1]) throw problem(`the key does not have the id ${match[1]} that it is filed under`);
      if (!keys.some((known) => known.id === key.id)) keys.push(key);
    }
    if (keys.length === 0) throw new BasaltError('NODE_KEY_FILE', { path, problem: 'holds no key' });
    return new NodeKeyRing(keys);
  }

  toText(): string {
    const lines = this.keys.map((key) => `basalt-node-key-1 ${key.id} ${key.toText()}\n`);
    return `# Node keys of Basalt, oldest first. Who has this file is a node of the cluster.\n${lines.join('')}`;
  }

  get newest(): NodeKey {
    const newest = this.keys.at(-1);
    if (newest === undefined) throw new BasaltError('INTERNAL', { detail: 'an empty ring of node keys' });
    return newest;
  }
}
