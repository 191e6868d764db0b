// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { quiet, VirtualTime } from '../env/virtual-clock.js';
import { Slots } from './signal.js';

describe('slots', () => {
  const { signal } = new AbortController();

  it('run so many at a time, in the order in which they came', async () => {
    const slots = new Slots({ count: 2, clock: new VirtualTime(0).clock(), heldMsMax: 1000 });
    const began: number[] = [];
    const ends: (() => void)[] = [];
    const all = [0, 1, 2, 3].map((index) =>
      slots.run(signal, () => {
        began.push(index);
        return new Promise<void>((resolve) => ends.push(resolve));
      }),
    );
    await quiet();
    expect(began).toEqual([0, 1]);
    ends[1]?.();
    await quiet();
    expect(began).toEqual([0, 1, 2]);
    for (const end of ends) end();
    await quiet();
    ends[3]?.();
    await Promise.all(all);
    expect(began).toEqual([0, 1, 2, 3]);
  });

  it('do not wait for one that never ends, nor for one that is aborted or fails', async () => {
    const time = new VirtualTime(0);
    const slots = new Slots({ count: 1, clock: time.clock(), heldMsMax: 1000 });
    void slots.run(signal, () => new Promise(() => {}));
    const stop = new AbortController();
    const aborted = slots.run(stop.signal, () => Promise.resolve('ran'));
    stop.abort(new Error('stopped'));
    await expect(aborted).rejects.toThrow('stopped');
    const failing = slots.run(signal, () => Promise.reject(new Error('failed')));
    const next = slots.run(signal, () => Promise.resolve('ran'));
    failing.catch(() => {});
    time.advanceTo(1000e6);
    time.fireOne();
    await expect(failing).rejects.toThrow('failed');
    expect(await next).toBe('ran');
  });
});
