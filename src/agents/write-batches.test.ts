// SPDX-License-Identifier: Apache-2.0
//
// Goal: many writers cost few transactions, and none of them notices the others. Method: a store that the test answers for.

import { describe, expect, it } from 'vitest';
import { BasaltError } from '../model/errors.js';
import type { Change } from '../store/store.js';
import { WriteBatches } from './write-batches.js';

interface Asked {
  readonly keys: string[];
  readonly signal: AbortSignal;
  readonly answer: (error?: unknown) => Promise<void>;
}

const fresh = (): AbortSignal => new AbortController().signal;
const put = (key: string): Change => ({ kind: 'put', key, value: 'x' });
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const refusal = (): BasaltError =>
  new BasaltError('STORE_TOO_LARGE', { what: 'the transaction', detail: 'more than it takes' });

function bench(): { asked: Asked[]; batches: WriteBatches } {
  const asked: Asked[] = [];
  const batches = new WriteBatches(
    (changes, given) =>
      new Promise((resolve, reject) => {
        const answer = (error?: unknown): Promise<void> => {
          if (error === undefined) resolve();
          else reject(error);
          return settled();
        };
        asked.push({ keys: changes.map((change) => change.key), signal: given, answer });
      }),
  );
  return { asked, batches };
}

describe('write batches', () => {
  it('write one at once, and what comes meanwhile together', async () => {
    const { asked, batches } = bench();
    const all = Array.from({ length: 50 }, (_, index) => batches.add([put(`k${index}`)], fresh()));
    expect(asked.map(({ keys }) => keys)).toEqual([['k0']]);
    await asked[0]?.answer();
    expect(asked).toHaveLength(2);
    expect(asked[1]?.keys).toEqual(Array.from({ length: 49 }, (_, index) => `k${index + 1}`));
    await asked[1]?.answer();
    await Promise.all(all);
  });

  it('put no key twice into a transaction, and keep the order of its writes', async () => {
    const { asked, batches } = bench();
    const all = ['a', 'b', 'a', 'c'].map((key) => batches.add([put(key)], fresh()));
    await asked[0]?.answer();
    expect(asked[1]?.keys).toEqual(['b', 'a', 'c']);
    const more = ['d', 'd'].map((key) => batches.add([put(key)], fresh()));
    await asked[1]?.answer();
    expect(asked[2]?.keys).toEqual(['d']);
    await asked[2]?.answer();
    expect(asked[3]?.keys).toEqual(['d']);
    await asked[3]?.answer();
    await Promise.all([...all, ...more]);
  });

  it('stay below what a transaction holds, but never cut a write', async () => {
    const { asked, batches } = bench();
    const large = Array.from({ length: 100 }, (_, index) => put(`large${index}`));
    const all = [
      batches.add([put('first')], fresh()),
      batches.add(large, fresh()),
      batches.add([put('last')], fresh()),
    ];
    await asked[0]?.answer();
    expect(asked[1]?.keys).toHaveLength(100);
    await asked[1]?.answer();
    expect(asked[2]?.keys).toEqual(['last']);
    await asked[2]?.answer();
    await Promise.all(all);
  });

  it('tell all writers of a transaction that nobody knows what became of it', async () => {
    const { asked, batches } = bench();
    const first = batches.add([put('first')], fresh());
    const both = [batches.add([put('a')], fresh()), batches.add([put('b')], fresh())];
    const outcomes = Promise.allSettled(both);
    await asked[0]?.answer();
    await asked[1]?.answer(new Error('no answer'));
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(asked).toHaveLength(2);
    await first;
  });

  it('refuse only the write that the store does not take', async () => {
    const { asked, batches } = bench();
    const first = batches.add([put('first')], fresh());
    const outcomes = Promise.allSettled(['a', 'bad', 'b'].map((key) => batches.add([put(key)], fresh())));
    await asked[0]?.answer();
    await asked[1]?.answer(refusal());
    await asked[2]?.answer();
    await asked[3]?.answer(refusal());
    await asked[4]?.answer();
    expect(asked.slice(2).map(({ keys }) => keys)).toEqual([['a'], ['bad'], ['b']]);
    expect((await outcomes).map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    await first;
  });

  it('let a writer give up without the others', async () => {
    const { asked, batches } = bench();
    const giving = new AbortController();
    const first = batches.add([put('first')], giving.signal);
    const unsent = batches.add([put('unsent')], giving.signal);
    const stays = batches.add([put('stays')], fresh());
    giving.abort(new Error('had enough'));
    await expect(first).rejects.toThrow('had enough');
    await expect(unsent).rejects.toThrow('had enough');
    // Nobody waits for what was sent any more.
    expect(asked[0]?.signal.aborted).toBe(true);
    await asked[0]?.answer(new Error('cancelled'));
    expect(asked[1]?.keys).toEqual(['stays']);
    await asked[1]?.answer();
    await stays;
    await expect(batches.add([put('late')], giving.signal)).rejects.toThrow('had enough');
  });
});
