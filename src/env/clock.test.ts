// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { systemClock } from './clock.js';
import { systemRandom } from './random.js';

describe('system clock', () => {
  it('resolves a sleep not before its time', async () => {
    const start = systemClock.now();
    await systemClock.sleep(20);
    expect(systemClock.now() - start).toBeGreaterThanOrEqual(19);
  });

  it('rejects a sleep with the reason of the signal, at once', async () => {
    const controller = new AbortController();
    const start = systemClock.now();
    const sleeping = systemClock.sleep(60_000, controller.signal);
    controller.abort(new Error('enough'));
    await expect(sleeping).rejects.toThrow('enough');
    await expect(systemClock.sleep(60_000, controller.signal)).rejects.toThrow('enough');
    expect(systemClock.now() - start).toBeLessThan(5_000);
  });

  it('never calls a cancelled timer', async () => {
    let calls = 0;
    const timer = systemClock.setTimer(1, () => calls++);
    timer.cancel();
    timer.cancel();
    await systemClock.sleep(20);
    expect(calls).toBe(0);
  });

  it('does not fire a timer longer than 31 bits of milliseconds at once', async () => {
    let calls = 0;
    const timer = systemClock.setTimer(2 ** 33, () => calls++);
    await systemClock.sleep(20);
    timer.cancel();
    expect(calls).toBe(0);
  });
});

describe('system random', () => {
  it('draws bytes, version 4 UUIDs and fractions', () => {
    expect(systemRandom.bytes(16)).toHaveLength(16);
    expect(systemRandom.uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const fraction = systemRandom.fraction();
    expect(fraction >= 0 && fraction < 1).toBe(true);
  });
});
