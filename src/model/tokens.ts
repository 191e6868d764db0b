// SPDX-License-Identifier: Apache-2.0
//
// API tokens: who shows one may do what its role allows. The store holds what a token is recognised by, never the token.
//
// Invariants:  - a stored token tells nothing about its text: that has 256 random bits, and only their digest is kept
//              - whether a text is right takes as long to find out as whether it is wrong
//              - no error shows any part of a token but its name

import { createHash, timingSafeEqual } from 'node:crypto';
import Type, { type Static } from 'typebox';

const strict = { additionalProperties: false } as const;
// As names of other objects; objects.ts names this file.
const TokenName = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' });
const Millis = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const ApiRole = Type.Union([Type.Literal('viewer'), Type.Literal('operator'), Type.Literal('admin')]);
/** `viewer` reads; `operator` works with volumes, disks and nodes; `admin` also with keys, hosts' keys, pools and tokens. */
export type ApiRole = Static<typeof ApiRole>;
/** Each may do what those before it may. */
export const apiRoles: readonly ApiRole[] = ['viewer', 'operator', 'admin'];

export const TokenObject = Type.Object(
  {
    format: Type.Literal(1),
    name: TokenName,
    role: ApiRole,
    /** SHA-256 over a fixed text and the secret part, in hexadecimal. */
    digest: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    createdAtMs: Millis,
    /** Null: until it is revoked. */
    expiresAtMs: Type.Union([Millis, Type.Null()]),
  },
  strict,
);
export type TokenObject = Static<typeof TokenObject>;

export const tokenSecretBytes = 32;

/** What its holder shows: `basalt1/<name>/<secret>`. */
export function tokenText(name: string, secret: Buffer): string {
  return `basalt1/${name}/${secret.toString('base64url')}`;
}

/** Null: it is no token. */
export function parseToken(text: string): { name: string; secret: Buffer } | null {
  const match = /^basalt1\/([A-Za-z0-9][A-Za-z0-9_.-]{0,62})\/([A-Za-z0-9_-]{43})$/.exec(text);
  if (match === null) return null;
  return { name: match[1] ?? '', secret: Buffer.from(match[2] ?? '', 'base64url') };
}

/** A plain hash is enough: nobody guesses 256 random bits. */
export function tokenDigest(secret: Buffer): string {
  return createHash('sha256').update('basalt api token\0').update(secret).digest('hex');
}

/** `token` null: there is none of that name, which takes as long to say. */
export function isTokenSecret(token: TokenObject | null, secret: Buffer): boolean {
  const known = Buffer.from(token?.digest ?? '0'.repeat(64), 'hex');
  return timingSafeEqual(known, Buffer.from(tokenDigest(secret), 'hex')) && token !== null;
}

export function isExpired(token: TokenObject, wallMs: number): boolean {
  return token.expiresAtMs !== null && wallMs >= token.expiresAtMs;
}

export function mayDo(has: ApiRole, needs: ApiRole): boolean {
  return apiRoles.indexOf(has) >= apiRoles.indexOf(needs);
}
