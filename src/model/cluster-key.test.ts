// SPDX-License-Identifier: Apache-2.0

import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { ClusterKey, dataKeyBytes, KeyRing, unwrapDataKey, wrapDataKey } from './cluster-key.js';

const id = '6fbe5ee2-8d0a-4c5e-9f0e-0c3b7a5b7e11';
const key = new ClusterKey(randomBytes(32));
const other = new ClusterKey(randomBytes(32));
const dataKey = randomBytes(dataKeyBytes);
const encryption = wrapDataKey(key, id, { dataKey, nonce: randomBytes(12) });

describe('a data key', () => {
  it('opens under its cluster key, for its volume', () => {
    const ring = new KeyRing([other, key]);
    expect(unwrapDataKey(ring, { id, name: 'v', encryption }).equals(dataKey)).toBe(true);
    expect(encryption).toMatchObject({ cipher: 'aes-256-xts', keyId: key.id });
    expect(Buffer.from(encryption.wrappedKey, 'base64').includes(dataKey.subarray(0, 8))).toBe(false);
  });

  it('is refused by name when the key is not there, and when what is stored is not what was wrapped', () => {
    const refused = (ring: KeyRing | null, volume: Parameters<typeof unwrapDataKey>[1]): unknown => {
      try {
        return unwrapDataKey(ring, volume);
      } catch (error) {
        return error;
      }
    };
    expect(refused(null, { id, name: 'v', encryption })).toMatchObject({ code: 'CLUSTER_KEY_MISSING' });
    expect(refused(new KeyRing([other]), { id, name: 'v', encryption })).toMatchObject({
      code: 'CLUSTER_KEY_MISSING',
      message: `volume v needs cluster key ${key.id}; held here: ${other.id}`,
    });
    const ring = new KeyRing([key, other]);
    const damaged = { code: 'VOLUME_KEY_DAMAGED', message: expect.stringContaining(`under cluster key ${key.id}`) };
    const anothers = { id: id.replace('6', '7'), name: 'v', encryption };
    expect(refused(ring, anothers)).toMatchObject(damaged);
    expect(refused(ring, { id, name: 'v', encryption: { ...encryption, keyId: other.id } })).toMatchObject({
      code: 'VOLUME_KEY_DAMAGED',
    });
    const sealed = Buffer.from(encryption.wrappedKey, 'base64');
    for (let at = 0; at < sealed.length; at++) {
      const wrong = Buffer.from(sealed);
      wrong[at] = (wrong[at] ?? 0) ^ 1;
      const wrappedKey = wrong.toString('base64');
      expect(refused(ring, { id, name: 'v', encryption: { ...encryption, wrappedKey } })).toMatchObject(damaged);
    }
    for (const length of [0, 12, 27, 28, 60]) {
      const wrappedKey = sealed.subarray(0, length).toString('base64');
      expect(refused(ring, { id, name: 'v', encryption: { ...encryption, wrappedKey } })).toMatchObject(damaged);
    }
  });
});

describe('a key file', () => {
  it('keeps its keys in order', () => {
    const ring = KeyRing.parse(new KeyRing([key, other]).toText(), 'f');
    expect(ring.keys.map((each) => each.id)).toEqual([key.id, other.id]);
    expect(ring.newest.id).toBe(other.id);
    expect(ring.find(key.id)?.toText()).toBe(key.toText());
  });

  it('is refused with the line that is wrong, which is not shown', () => {
    const good = `basalt-cluster-key-1 ${key.id} ${key.toText()}`;
    const cases: [string, string][] = [
      ['', 'holds no key'],
      ['# nothing\n\n', 'holds no key'],
      [`${good}\n${good.slice(0, -2)}\n`, 'line 2: is no cluster key'],
      [good.replace('-1 ', '-2 '), 'line 1: is no cluster key'],
      [`#\nbasalt-cluster-key-1 ${key.id} ${other.toText()}`, `line 2: the key does not have the id ${key.id}`],
    ];
    for (const [text, problem] of cases) {
      let message = '';
      try {
        KeyRing.parse(text, '/etc/f');
      } catch (error) {
        expect(error).toMatchObject({ code: 'CLUSTER_KEY_FILE' });
        message = (error as Error).message;
      }
      expect(message).toContain(`cluster key file /etc/f: ${problem}`);
      expect(message).not.toContain(key.toText().slice(0, 10));
      expect(message).not.toContain(other.toText().slice(0, 10));
    }
  });

  it('shows its keys by their ids only', () => {
    const shown = JSON.stringify({ key }) + inspect(key, { depth: 9, showHidden: true }) + String(key);
    expect(shown).toContain(key.id);
    for (const encoding of ['base64', 'hex', 'latin1'] as const)
      expect(shown).not.toContain(Buffer.from(key.toText(), 'base64').toString(encoding).slice(0, 12));
  });
});
