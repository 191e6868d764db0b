// SPDX-License-Identifier: Apache-2.0

import { getEventListeners } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../env/clock.js';
import { waitForAnswer } from './rpc-wait.js';

const warnings: Error[] = [];
const note = (warning: Error): void => void warnings.push(warning);

afterEach(() => {
  process.off('warning', note);
});

describe('waiting for an answer', () => {
  it('many times at once with one signal warns of no leak, and leaves no listener behind', async () => {
    process.on('warning', note);
    const life = new AbortController();
    let answer = (_value: number): void => {};
    const answered = new Promise<number>((resolve) => {
      answer = resolve;
    });
    const waits = Array.from({ length: 40 }, () =>
      waitForAnswer('any', answered, { signal: life.signal }, systemClock),
    );
    expect(getEventListeners(life.signal, 'abort')).toHaveLength(40);
    answer(7);
    expect(await Promise.all(waits)).toEqual(waits.map(() => 7));
    // Warnings are told in a later turn.
    await new Promise((resolve) => setImmediate(resolve));
    expect(warnings).toEqual([]);
    expect(getEventListeners(life.signal, 'abort')).toEqual([]);
  });
});
