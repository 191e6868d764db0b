// SPDX-License-Identifier: Apache-2.0
//
// Hosts that prove who they are: what they prove it with, as it lives in the store.
//
// A host is known by its NQN. One that has an object here has keys: every controller of every volume that it is attached
// to asks it for them. Hosts without an object are admitted by their name alone.
//
// Invariants:  - a key is stored wrapped by a cluster key, for one host and one use: nowhere else does it open
//              - `version` changes with the keys, and with nothing else
//              - no error shows what a key is made of

import Type, { type Static } from 'typebox';
import { type KeyRing, missingKey } from './cluster-key.js';
import { crc32 } from './crc32.js';
import { BasaltError } from './errors.js';

const strict = { additionalProperties: false } as const;
const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });

/** In the order in which they are shown. */
export const hostKeyKinds = ['dhchapKey', 'dhchapCtrlrKey', 'tlsPsk'] as const;
/** `dhchapKey`: the host's secret. `dhchapCtrlrKey`: the controllers', which the host asks for. `tlsPsk`: of its TLS. */
export type HostKeyKind = (typeof hostKeyKinds)[number];

export const WrappedKey = Type.Object(
  {
    /** Of the cluster key that wraps it. */
    keyId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    /** Sealed by AES-256-GCM: nonce, ciphertext, tag; base64 (docs/security.md). */
    wrapped: Type.String({ pattern: '^[A-Za-z0-9+/]+={0,2}$', maxLength: 512 }),
  },
  strict,
);
export type WrappedKey = Static<typeof WrappedKey>;

export const HostObject = Type.Object(
  {
    format: Type.Literal(1),
    nqn: Type.String({ minLength: 1, maxLength: 223 }),
    version: Uuid,
    dhchapKey: Type.Optional(WrappedKey),
    dhchapCtrlrKey: Type.Optional(WrappedKey),
    tlsPsk: Type.Optional(WrappedKey),
  },
  strict,
);
export type HostObject = Static<typeof HostObject>;

/** As text, in the form of the NVMe specifications. */
export type HostKeys = Partial<Record<HostKeyKind, string>>;

export function wrapHostKey(
  ring: { key: KeyRing['newest']; nonce: Buffer },
  at: { nqn: string; kind: HostKeyKind },
  text: string,
): WrappedKey {
  const plain = Buffer.from(text);
  try {
    const sealed = ring.key.seal(plain, { nonce: ring.nonce, associated: associatedWith(at) });
    return { keyId: ring.key.id, wrapped: sealed.toString('base64') };
  } finally {
    plain.fill(0);
  }
}

/** @throws CLUSTER_KEY_MISSING, HOST_KEY_DAMAGED */
export function unwrapHostKey(ring: KeyRing | null, at: { nqn: string; kind: HostKeyKind }, key: WrappedKey): string {
  const held = ring?.find(key.keyId) ?? null;
  if (held === null) throw missingKey(`host ${at.nqn}`, key.keyId, ring);
  const plain = held.open(Buffer.from(key.wrapped, 'base64'), associatedWith(at));
  if (plain === null) throw new BasaltError('HOST_KEY_DAMAGED', { nqn: at.nqn, keyId: key.keyId });
  const text = plain.toString();
  plain.fill(0);
  return text;
}

/** Those that the host has, in clear. @throws CLUSTER_KEY_MISSING, HOST_KEY_DAMAGED */
export function unwrapHostKeys(ring: KeyRing | null, host: HostObject): HostKeys {
  const keys: HostKeys = {};
  for (const kind of hostKeyKinds) {
    const key = host[kind];
    if (key !== undefined) keys[kind] = unwrapHostKey(ring, { nqn: host.nqn, kind }, key);
  }
  return keys;
}

function associatedWith(at: { nqn: string; kind: HostKeyKind }): Buffer {
  return Buffer.from(`basalt host key\0${at.kind}\0${at.nqn}`);
}

interface Form {
  readonly what: string;
  readonly prefix: string;
  readonly hashes: RegExp;
  readonly bytes: readonly number[];
  readonly tool: string;
}

const dhchapForm: Form = {
  what: 'DH-HMAC-CHAP secret',
  prefix: 'DHHC-1:',
  hashes: /^0[0-3]$/,
  bytes: [32, 48, 64],
  tool: 'nvme gen-dhchap-key',
};
const tlsForm: Form = {
  what: 'TLS key',
  prefix: 'NVMeTLSkey-1:',
  hashes: /^0[0-2]$/,
  bytes: [32, 48],
  tool: 'nvme gen-tls-key',
};

/** The text without what surrounds it. @throws INVALID_ARGUMENT when it is no key of that kind */
export function checkHostKey(kind: HostKeyKind, given: string, field: string): string {
  const form = kind === 'tlsPsk' ? tlsForm : dhchapForm;
  const text = given.trim();
  const problem = problemOf(form, text);
  if (problem === null) return text;
  const what = `is no ${form.what} (${form.prefix}…:, as ${form.tool} makes them): ${problem}`;
  throw new BasaltError('INVALID_ARGUMENT', { field, problem: what });
}

function problemOf(form: Form, text: string): string | null {
  if (!text.startsWith(form.prefix)) return `it does not begin with ${form.prefix}`;
  const [hash = '', encoded = '', ...rest] = text.slice(form.prefix.length).split(':');
  if (rest.length !== 1 || rest[0] !== '') return 'it does not end with a colon';
  if (!form.hashes.test(hash)) return 'it names no hash that is known';
  const bytes = Buffer.from(encoded, 'base64');
  if (bytes.toString('base64') !== encoded) return 'it is not base64';
  const key = bytes.subarray(0, Math.max(0, bytes.length - 4));
  if (!form.bytes.includes(key.length)) return `its key must have ${form.bytes.join(' or ')} bytes`;
  return bytes.readUInt32LE(key.length) === crc32(key) ? null : 'its checksum is wrong';
}
