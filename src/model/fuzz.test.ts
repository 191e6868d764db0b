// SPDX-License-Identifier: Apache-2.0
//
// Goal: whatever lies in a member's note, or in the place of a disk's copy of the configuration, is read as what a node of
// the cluster signed, or refused with a reason; nothing throws, and nothing that was changed afterwards passes.
// Method: random bytes, signed and unsigned, and right ones with bytes changed. A failure prints its seed; with
// BASALT_FUZZ_RUNS the number of runs grows.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBody, decodeHeader, encodePlace, parseCopyText } from './configuration-copy.js';
import { NodeKey, NodeKeyRing } from './node-key.js';
import { decodeSetNote, encodeSetNote, type SetNote } from './set-note.js';
import { type SignedKind, Signer, signatureBytes } from './signer.js';

const numRuns = Number(process.env['BASALT_FUZZ_RUNS'] ?? 300);
const signers = [new Signer(new NodeKeyRing([new NodeKey(Buffer.alloc(32, 1))])), new Signer(null)];
const anySigner = fc.constantFrom(...signers);

const uuids = fc.uuid({ version: 4 });
const sizes = fc.record({
  servedBytes: fc.maxSafeNat(),
  wantedBytes: fc.maxSafeNat(),
  growing: fc.boolean(),
});
const notes: fc.Arbitrary<SetNote> = fc.record(
  {
    volumeId: uuids,
    leg: fc.nat(0xffff),
    epoch: fc.maxSafeNat(),
    revision: fc.maxSafeNat(),
    inSync: fc.array(
      fc.record({
        replica: uuids,
        incarnation: fc.oneof(
          fc.constant(null),
          fc.stringMatching(/^[0-9a-f]{20}$/),
          fc.stringMatching(/^[A-Z]{1,9}$/),
        ),
      }),
      { minLength: 1, maxLength: 8 },
    ),
    coming: fc.array(uuids, { maxLength: 8 }),
    size: sizes,
  },
  { requiredKeys: ['volumeId', 'leg', 'epoch', 'revision', 'inSync', 'coming'] },
);

function signed(signer: Signer, kind: SignedKind, body: Uint8Array): Buffer {
  return Buffer.concat([body, signer.sign(kind, body)]);
}

/** With one byte made another one. */
function changed(bytes: Buffer, at: number, by: number): Buffer {
  const other = Buffer.from(bytes);
  const index = at % bytes.length;
  other[index] = (other[index] ?? 0) ^ by;
  return other;
}
const changes = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 }));

describe('the set that a member keeps', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(notes, anySigner, (note, signer) => {
        expect(decodeSetNote(encodeSetNote(note, signer), signer)).toEqual({ is: 'note', note });
      }),
      { numRuns },
    );
  });

  it('is refused when a byte of it is another one', () => {
    fc.assert(
      fc.property(notes, anySigner, changes, (note, signer, [at, by]) => {
        const hex = changed(Buffer.from(encodeSetNote(note, signer), 'hex'), at, by).toString('hex');
        expect(decodeSetNote(hex, signer).is).toBe('refused');
      }),
      { numRuns },
    );
  });

  it('is none of what else is signed, and of what makes no sense nothing is believed', () => {
    const heads = fc.tuple(notes, fc.array(changes, { maxLength: 4 }), fc.nat(400));
    const bodies = heads.map(([note, some, length]) => {
      const whole = Buffer.from(encodeSetNote(note, signers[0] as Signer), 'hex');
      const body = whole.subarray(0, Math.min(whole.length - signatureBytes, 6 + length));
      return some.reduce<Buffer>((bytes, [at, by]) => changed(bytes, at, by), Buffer.from(body));
    });
    fc.assert(
      fc.property(fc.oneof(bodies, fc.uint8Array({ maxLength: 200 })), anySigner, (body, signer) => {
        expect(decodeSetNote(signed(signer, 'configuration', body).toString('hex'), signer).is).toBe('refused');
        const found = decodeSetNote(signed(signer, 'in-sync set', body).toString('hex'), signer);
        if (found.is === 'refused') expect(found.problem).not.toBe('');
        else if (found.is === 'note') expect(decodeSetNote(encodeSetNote(found.note, signer), signer)).toEqual(found);
      }),
      { numRuns },
    );
  });

  it('may be anything', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.uint8Array({ maxLength: 999 }).map((b) => Buffer.from(b).toString('hex')),
        ),
        (hex) => {
          for (const signer of signers) expect(decodeSetNote(hex, signer).is).toBe(hex === '' ? 'none' : 'refused');
        },
      ),
      { numRuns },
    );
  });
});

describe('the copy of the configuration that a disk keeps', () => {
  it('is read as it was written, and refused when a byte of it is another one', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme' }),
        fc.nat(2 ** 48),
        anySigner,
        changes,
        (text, sequence, signer, [at, by]) => {
          const { header, body } = encodePlace(text, sequence, signer);
          const read = decodeHeader(header, signer);
          if (read === 'empty' || 'problem' in read) throw new Error('it is not read');
          expect(read.sequence).toBe(sequence);
          expect(decodeBody(body, read)).toBe(text);
          const length = Buffer.byteLength(text);
          if (length > 0) expect(decodeBody(changed(body.subarray(0, length), at, by), read)).toBeNull();
          const other = decodeHeader(changed(header, at, by), signer);
          // What lies behind the signature says nothing.
          if (other !== 'empty' && !('problem' in other)) expect(other).toEqual(read);
        },
      ),
      { numRuns },
    );
  });

  it('may be anything', () => {
    const lines = fc.array(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.constant('{"cluster":"c","generation":1,"revision":2,"disk":"d","node":"n"}'),
        fc.tuple(fc.nat(), fc.string(), fc.string()).map((parts) => parts.join('\t')),
      ),
      { maxLength: 4 },
    );
    fc.assert(
      fc.property(lines, (some) => {
        const copy = parseCopyText(some.join('\n'));
        if (copy === null) return;
        expect([typeof copy.cluster, typeof copy.disk, typeof copy.node]).toEqual(['string', 'string', 'string']);
        for (const { revision, key } of copy.objects) {
          expect(Number.isNaN(revision)).toBe(false);
          expect(key).not.toBe('');
        }
      }),
      { numRuns },
    );
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), anySigner, (bytes, signer) => {
        const read = decodeHeader(Buffer.from(bytes), signer);
        expect(read === 'empty' || 'problem' in read).toBe(true);
      }),
      { numRuns: Math.min(numRuns, 50) },
    );
  });
});
