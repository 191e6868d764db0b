// SPDX-License-Identifier: Apache-2.0
//
// The in-sync set of a leg as each of its members keeps it (docs/on-disk/note.md), for the day on which the store is lost:
// what the leadership object says of the leg, and of the size of the volume, as of one revision of the store.
//
// Invariants:  - of the notes about a leg the one of the highest rank counts, with what others of its rank announce
//              - `coming` names who may be in a newer set that was not noted yet: without it nothing is known for sure
//              - what is not signed by a node of the cluster is none

import { Buffer } from 'node:buffer';
import type { GrowingSize, InSyncMember } from './objects.js';
import { type Signer, signatureBytes } from './signer.js';

/** When a set was in the store: epochs grow with the store's generations, revisions within one. */
export interface Rank {
  readonly epoch: number;
  readonly revision: number;
}

export interface SetNote extends Rank {
  readonly volumeId: string;
  readonly leg: number;
  readonly inSync: readonly InSyncMember[];
  /** Replicas that are about to be let in. */
  readonly coming: readonly string[];
  /** Absent: the size that the volume was made with. */
  readonly size?: GrowingSize;
}

export const noteBytesMax = 944;
const magic = 'BSET';
const format = 1;
const headerBytes = 44;
const uuidBytes = 16;
const hasSize = 1;
const isGrowing = 2;
/** Of an incarnation: nothing is known, 20 hexadecimal digits, or text of this length less two. */
const incarnationKinds = { none: 0, digits: 1 } as const;

export function compareRanks(a: Rank, b: Rank): number {
  return a.epoch === b.epoch ? a.revision - b.revision : a.epoch - b.epoch;
}

/** As hexadecimal digits, which engines take. */
export function encodeSetNote(note: SetNote, signer: Signer): string {
  const { size } = note;
  const head = Buffer.alloc(headerBytes);
  head.write(magic, 0, 'latin1');
  head.writeUInt8(format, 4);
  head.writeUInt8(size === undefined ? 0 : hasSize | (size.growing ? isGrowing : 0), 5);
  head.writeUInt16LE(note.leg, 6);
  uuidToBytes(note.volumeId).copy(head, 8);
  head.writeBigUInt64LE(BigInt(note.epoch), 24);
  head.writeBigUInt64LE(BigInt(note.revision), 32);
  head.writeUInt8(note.inSync.length, 40);
  head.writeUInt8(note.coming.length, 41);
  const sizes = Buffer.alloc(size === undefined ? 0 : 16);
  if (size !== undefined) sizes.writeBigUInt64LE(BigInt(size.servedBytes), 0);
  if (size !== undefined) sizes.writeBigUInt64LE(BigInt(size.wantedBytes), 8);
  const members = note.inSync.map(encodeMember);
  const body = Buffer.concat([head, sizes, ...members, ...note.coming.map(uuidToBytes)]);
  const whole = Buffer.concat([body, signer.sign('in-sync set', body)]);
  if (whole.length > noteBytesMax) throw new Error(`a set of ${note.inSync.length} members has no room in a note`);
  return whole.toString('hex');
}

export type FoundNote =
  | { readonly is: 'none' }
  | { readonly is: 'note'; readonly note: SetNote }
  /** Of another cluster's nodes, of another version, or damaged. */
  | { readonly is: 'refused'; readonly problem: string };

export function decodeSetNote(hex: string, signer: Signer): FoundNote {
  if (hex === '') return { is: 'none' };
  const refused = (problem: string): FoundNote => ({ is: 'refused', problem });
  const whole = Buffer.from(hex, 'hex');
  const body = whole.subarray(0, Math.max(0, whole.length - signatureBytes));
  if (body.length < headerBytes || body.toString('latin1', 0, 4) !== magic) return refused('it is no set');
  if (body[4] !== format) return refused(`its format is ${body[4]}`);
  if (!signer.isSigned('in-sync set', body, whole.subarray(body.length)))
    return refused('it is not signed by a node of this cluster');
  const note = decodeBody(body);
  return note === null ? refused('it is damaged') : { is: 'note', note };
}

function decodeBody(body: Buffer): SetNote | null {
  const flags = body.readUInt8(5);
  let at = headerBytes;
  const take = (bytes: number): Buffer | null => {
    if (body.length - at < bytes) return null;
    at += bytes;
    return body.subarray(at - bytes, at);
  };
  const sizes = (flags & hasSize) === 0 ? null : take(16);
  if ((flags & hasSize) !== 0 && sizes === null) return null;
  const inSync: InSyncMember[] = [];
  for (let index = 0; index < body.readUInt8(40); index++) {
    const member = decodeMember(take);
    if (member === null) return null;
    inSync.push(member);
  }
  const coming: string[] = [];
  for (let index = 0; index < body.readUInt8(41); index++) {
    const uuid = take(uuidBytes);
    if (uuid === null) return null;
    coming.push(uuidFromBytes(uuid));
  }
  const [epoch, revision] = [Number(body.readBigUInt64LE(24)), Number(body.readBigUInt64LE(32))];
  if (at !== body.length || inSync.length === 0 || flags > 3) return null;
  if (!Number.isSafeInteger(epoch) || !Number.isSafeInteger(revision)) return null;
  const size =
    sizes === null
      ? {}
      : {
          size: {
            servedBytes: Number(sizes.readBigUInt64LE(0)),
            wantedBytes: Number(sizes.readBigUInt64LE(8)),
            growing: (flags & isGrowing) !== 0,
          },
        };
  const volumeId = uuidFromBytes(body.subarray(8, 24));
  return { volumeId, leg: body.readUInt16LE(6), epoch, revision, inSync, coming, ...size };
}

function encodeMember({ replica, incarnation }: InSyncMember): Buffer {
  if (incarnation === null) return Buffer.concat([uuidToBytes(replica), Buffer.from([incarnationKinds.none])]);
  if (/^[0-9a-f]{20}$/.test(incarnation)) {
    const kind = Buffer.from([incarnationKinds.digits]);
    return Buffer.concat([uuidToBytes(replica), kind, Buffer.from(incarnation, 'hex')]);
  }
  const text = Buffer.from(incarnation, 'utf8');
  return Buffer.concat([uuidToBytes(replica), Buffer.from([text.length + 2]), text]);
}

function decodeMember(take: (bytes: number) => Buffer | null): InSyncMember | null {
  const uuid = take(uuidBytes);
  const kind = take(1)?.[0];
  if (uuid === null || kind === undefined) return null;
  const replica = uuidFromBytes(uuid);
  if (kind === incarnationKinds.none) return { replica, incarnation: null };
  const bytes = take(kind === incarnationKinds.digits ? 10 : kind - 2);
  if (bytes === null) return null;
  return { replica, incarnation: bytes.toString(kind === incarnationKinds.digits ? 'hex' : 'utf8') };
}

function uuidToBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

function uuidFromBytes(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
