// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { NodeKey, NodeKeyRing } from './node-key.js';
import { compareRanks, decodeSetNote, encodeSetNote, noteBytesMax, type SetNote } from './set-note.js';
import { Signer } from './signer.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
const ring = (...fills: number[]): NodeKeyRing =>
  new NodeKeyRing(fills.map((fill) => new NodeKey(Buffer.alloc(32, fill))));
const signer = new Signer(ring(1));
const note: SetNote = {
  volumeId: uuid(1),
  leg: 3,
  epoch: 2 ** 53 - 1,
  revision: 77,
  inSync: [
    { replica: uuid(2), incarnation: '0123456789abcdef0123' },
    { replica: uuid(3), incarnation: null },
    { replica: uuid(4), incarnation: 'S1' },
  ],
  coming: [uuid(5)],
  size: { servedBytes: 2 ** 52, wantedBytes: 2 ** 53 - 1, growing: true },
};

describe('what a member keeps of its set', () => {
  it('is read as it was written', () => {
    expect(decodeSetNote(encodeSetNote(note, signer), signer)).toEqual({ is: 'note', note });
    const { size: _, ...plain } = note;
    expect(decodeSetNote(encodeSetNote({ ...plain, coming: [] }, signer), signer)).toEqual({
      is: 'note',
      note: { ...plain, coming: [] },
    });
    expect(decodeSetNote('', signer)).toEqual({ is: 'none' });
  });

  it('is as it always was on disks', () => {
    expect(encodeSetNote(note, signer)).toMatchInlineSnapshot(
      `"425345540103030000000000000040008000000000000001ffffffffffff1f004d00000000000000030100000000000000001000ffffffffffff1f0000000000000040008000000000000002010123456789abcdef012300000000000040008000000000000003000000000000004000800000000000000404533100000000000040008000000000000005d887696b8bf9e83c7bad084d83e1b32d1e5a234c8969486631801e1e8bcaec9230806d35f1389dbf"`,
    );
  });

  it('has room for every member of the widest leg', () => {
    const inSync = Array.from({ length: 20 }, (_, n) => ({ replica: uuid(n), incarnation: 'f'.repeat(20) }));
    const text = encodeSetNote({ ...note, inSync, coming: [uuid(1), uuid(2)] }, signer);
    expect(text.length / 2).toBeLessThanOrEqual(noteBytesMax);
    expect(decodeSetNote(text, signer)).toMatchObject({ is: 'note', note: { inSync } });
  });

  it('counts only when a node of the cluster has signed it, by any key that is still known', () => {
    const text = encodeSetNote(note, signer);
    expect(decodeSetNote(text, new Signer(ring(1, 2)))).toMatchObject({ is: 'note' });
    for (const other of [new Signer(ring(2)), new Signer(null)])
      expect(decodeSetNote(text, other)).toEqual({
        is: 'refused',
        problem: 'it is not signed by a node of this cluster',
      });
    const unsigned = encodeSetNote(note, new Signer(null));
    expect(decodeSetNote(unsigned, signer)).toMatchObject({ is: 'refused' });
    expect(decodeSetNote(unsigned, new Signer(null))).toMatchObject({ is: 'note' });
  });

  it('counts no more when a bit of it has changed, or a part is missing', () => {
    const whole = Buffer.from(encodeSetNote(note, signer), 'hex');
    for (let at = 0; at < whole.length; at++) {
      const bad = Buffer.from(whole);
      bad[at] = (bad[at] ?? 0) ^ 1;
      expect(decodeSetNote(bad.toString('hex'), signer).is).toBe('refused');
      expect(decodeSetNote(whole.toString('hex', 0, at), signer).is).toBe(at === 0 ? 'none' : 'refused');
    }
  });

  it('ranks by epoch, then by revision', () => {
    expect(compareRanks({ epoch: 2, revision: 1 }, { epoch: 1, revision: 9 })).toBeGreaterThan(0);
    expect(compareRanks({ epoch: 2, revision: 1 }, { epoch: 2, revision: 2 })).toBeLessThan(0);
  });
});
