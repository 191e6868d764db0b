// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { History } from './history.js';
import { blockBytes, readStamp, type Stamp, valueText, writeStamp } from './stamp.js';

const at = { client: 1, lba: 3, blocks: 1 };
const stamp = (sequence: number): Stamp => ({ volume: 1, lba: 3, writer: 1, sequence });

describe('a history', () => {
  it('takes reads of what was acknowledged, or is under way', () => {
    const history = new History(0);
    history.endWrite(history.beginWrite(at, 1), true, 2);
    history.beginWrite(at, 3);
    for (const sequence of [1, 2, 2]) history.endRead(history.beginRead({ ...at, client: 2 }, 4), [stamp(sequence)], 5);
    expect(history.violation).toBeNull();
    expect(history.text.split('\n').at(-2)).toBe(
      '{"op":"write","client":1,"lba":3,"blocks":1,"inv":3,"status":"info","seq":2}',
    );
  });

  it('names a read of what was overwritten, and one that goes back', () => {
    const stale = new History(0);
    for (const time of [1, 3]) stale.endWrite(stale.beginWrite(at, time), true, time + 1);
    stale.endRead(stale.beginRead(at, 5), [stamp(1)], 6);
    expect(stale.violation).toContain('read w1#1 from block 3');

    const back = new History(0);
    back.beginWrite(at, 1);
    back.endRead(back.beginRead(at, 2), [stamp(1)], 3);
    back.endRead(back.beginRead(at, 4), ['zero'], 5);
    expect(back.violation).toContain('read zero');
  });

  it('names torn blocks, and bytes of other places', () => {
    for (const value of ['torn', 'garbage', { ...stamp(1), lba: 4 }] as const) {
      const history = new History(0);
      history.beginWrite(at, 1);
      history.endRead(history.beginRead(at, 2), [value], 3);
      expect(history.violation).not.toBeNull();
    }
  });

  it('lets a write that was answered with an error happen later', () => {
    const history = new History(0);
    history.endWrite(history.beginWrite(at, 1), false, 2);
    history.endWrite(history.beginWrite(at, 3), true, 4);
    history.endRead(history.beginRead(at, 5), [stamp(1)], 6);
    expect(history.violation).toBeNull();
  });
});

describe('a stamp', () => {
  it('is read as it was written, and told from torn and other bytes', () => {
    const block = Buffer.alloc(blockBytes);
    expect(readStamp(block)).toBe('zero');
    writeStamp(block, stamp(7));
    expect(readStamp(block)).toEqual(stamp(7));
    expect(valueText(readStamp(block), { volume: 1, lba: 3 })).toBe('w1#7');
    expect(valueText(readStamp(block), { volume: 2, lba: 4 })).toBe('w1#7@3:1');
    block.fill(0, 512, 1024);
    expect(readStamp(block)).toBe('torn');
    block[2000] = 1;
    expect(readStamp(block)).toBe('garbage');
  });
});
