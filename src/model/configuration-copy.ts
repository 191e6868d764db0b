// SPDX-License-Identifier: Apache-2.0
//
// The copy of the configuration that a disk keeps in its lvol `basalt.configuration` (docs/on-disk/configuration.md): the
// objects of the store that concern it, as they were at one revision. Two places are written in turn, each a header of one
// block and a body behind it.
//
// Invariants:  - the body is on stable media before the header that names it is written: a write that is cut short leaves the
//                other place as it was
//              - what is damaged, of an unknown format, or not signed by a node of the cluster is no copy; the other place counts

import { createHash } from 'node:crypto';
import { type Signer, signatureBytes } from './signer.js';

export const configurationLvol = 'basalt.configuration';
export const placeBytes = 64 * 1024 * 1024;
export const configurationLvolBytes = 2 * placeBytes;
export const headerBytes = 4096;

/** Of an object: where it is in the store, the revision of its last change, and what it says. */
export interface KeptObject {
  readonly key: string;
  readonly revision: number;
  readonly text: string;
}

export interface ConfigurationCopy {
  readonly cluster: string;
  readonly generation: number;
  /** Of the store: all that concerns the disk is as it was then. */
  readonly revision: number;
  readonly disk: string;
  readonly node: string;
  readonly objects: readonly KeptObject[];
}

export interface Place {
  readonly header: Buffer;
  /** Whole blocks. */
  readonly body: Buffer;
}

/** Of a place: which of the two was written last, and where its body ends. */
export interface PlaceHeader {
  readonly sequence: number;
  readonly bodyBytes: number;
  readonly digest: Buffer;
}

const magic = 'BASCONF1';
const format = 1;
const signedBytes = 80;
/** Equal texts say the same. The first line is the copy's, each other an object's. */
export function copyText(copy: ConfigurationCopy): string {
  const { cluster, generation, revision, disk, node } = copy;
  const head = JSON.stringify({ cluster, generation, revision, disk, node });
  return [head, ...copy.objects.map(({ key, revision: at, text }) => `${at}\t${key}\t${text}`)].join('\n');
}

/** Null: it is no such text. */
export function parseCopyText(text: string): ConfigurationCopy | null {
  const [first = '', ...lines] = text.split('\n');
  const head = parseHead(first);
  const objects = lines.map((line) => {
    const match = /^(\d+)\t([^\t]+)\t(.*)$/.exec(line);
    return match === null ? null : { revision: Number(match[1]), key: match[2] ?? '', text: match[3] ?? '' };
  });
  if (head === null || objects.some((object) => object === null)) return null;
  return { ...head, objects: objects as KeptObject[] };
}

function parseHead(line: string): Omit<ConfigurationCopy, 'objects'> | null {
  try {
    const { cluster, generation, revision, disk, node } = JSON.parse(line) as Record<string, unknown>;
    const texts = [cluster, disk, node].every((each) => typeof each === 'string');
    const counts = [generation, revision].every((each) => Number.isSafeInteger(each) && (each as number) >= 0);
    if (!texts || !counts) return null;
    return { cluster, generation, revision, disk, node } as Omit<ConfigurationCopy, 'objects'>;
  } catch {
    return null;
  }
}

export function encodePlace(text: string, sequence: number, signer: Signer): Place {
  const bytes = Buffer.from(text, 'utf8');
  const body = Buffer.alloc(Math.ceil(bytes.length / headerBytes) * headerBytes);
  bytes.copy(body);
  if (body.length > placeBytes - headerBytes) throw new Error(`${bytes.length} bytes have no room in a place`);
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, 'latin1');
  header.writeUInt32LE(format, 8);
  header.writeBigUInt64LE(BigInt(sequence), 32);
  header.writeBigUInt64LE(BigInt(bytes.length), 40);
  createHash('sha256').update(bytes).digest().copy(header, 48);
  signer.sign('configuration', header.subarray(0, signedBytes)).copy(header, signedBytes);
  return { header, body };
}

/** `empty`: nothing was ever written there. */
export function decodeHeader(header: Buffer, signer: Signer): PlaceHeader | 'empty' | { readonly problem: string } {
  if (header.every((byte) => byte === 0)) return 'empty';
  if (header.toString('latin1', 0, 8) !== magic) return { problem: 'it is damaged' };
  if (header.readUInt32LE(8) !== format) return { problem: `its format is ${header.readUInt32LE(8)}` };
  const signature = header.subarray(signedBytes, signedBytes + signatureBytes);
  if (!signer.isSigned('configuration', header.subarray(0, signedBytes), signature))
    return { problem: 'it is not signed by a node of this cluster, or damaged' };
  // Bytes 16 to 23 are for what others may ignore.
  const incompatible = header.readBigUInt64LE(24);
  if (incompatible !== 0n) return { problem: `it has features that are unknown here: ${incompatible.toString(16)}` };
  const [sequence, bodyBytes] = [Number(header.readBigUInt64LE(32)), Number(header.readBigUInt64LE(40))];
  if (bodyBytes > placeBytes - headerBytes || !Number.isSafeInteger(sequence)) return { problem: 'it is damaged' };
  return { sequence, bodyBytes, digest: Buffer.from(header.subarray(48, 80)) };
}

/** Null: it is not what the header names. */
export function decodeBody(body: Buffer, { bodyBytes, digest }: PlaceHeader): string | null {
  const bytes = body.subarray(0, bodyBytes);
  if (bytes.length !== bodyBytes || !createHash('sha256').update(bytes).digest().equals(digest)) return null;
  return bytes.toString('utf8');
}
