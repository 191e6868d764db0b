// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { isExpired, isTokenSecret, mayDo, parseToken, type TokenObject, tokenDigest, tokenText } from './tokens.js';

const secret = Buffer.alloc(32, 7);
const token: TokenObject = {
  format: 1,
  name: 'ci.1',
  role: 'operator',
  digest: tokenDigest(secret),
  createdAtMs: 1_000,
  expiresAtMs: 2_000,
};

describe('an API token', () => {
  it('is recognised by what is stored of it, which tells nothing about it', () => {
    const text = tokenText('ci.1', secret);
    expect(parseToken(text)).toEqual({ name: 'ci.1', secret });
    expect(isTokenSecret(token, secret)).toBe(true);
    expect(isTokenSecret(token, Buffer.alloc(32, 8))).toBe(false);
    expect(isTokenSecret(null, secret)).toBe(false);
    expect(JSON.stringify(token)).not.toContain(secret.toString('base64url'));
    expect(JSON.stringify(token)).not.toContain(secret.toString('hex'));
  });

  it.each([
    '',
    'basalt1/ci',
    `basalt2/ci/${'A'.repeat(43)}`,
    `basalt1//${'A'.repeat(43)}`,
    `basalt1/../${'A'.repeat(43)}`,
    `basalt1/ci/${'A'.repeat(42)}`,
    `basalt1/ci/${'A'.repeat(44)}`,
    `basalt1/ci/${'+'.repeat(43)}`,
    `basalt1/ci/${'A'.repeat(43)}\n`,
  ])('is nothing else: %j', (text) => {
    expect(parseToken(text)).toBeNull();
  });

  it('ends at its time', () => {
    expect([1_999, 2_000].map((wallMs) => isExpired(token, wallMs))).toEqual([false, true]);
    expect(isExpired({ ...token, expiresAtMs: null }, Number.MAX_SAFE_INTEGER)).toBe(false);
  });

  it('of each role may do what the lower ones may', () => {
    const may = (['viewer', 'operator', 'admin'] as const).map((has) =>
      (['viewer', 'operator', 'admin'] as const).filter((needs) => mayDo(has, needs)),
    );
    expect(may).toEqual([['viewer'], ['viewer', 'operator'], ['viewer', 'operator', 'admin']]);
  });
});
