// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { SeededRandom } from './seeded-random.js';
import { quiet, VirtualTime } from './virtual-clock.js';

function run(time: VirtualTime, untilNs: number): void {
  for (;;) {
    if (time.fireOne()) continue;
    const next = time.nextNs();
    time.advanceTo(Math.min(next ?? untilNs, untilNs));
    if (next === null || next > untilNs) return;
  }
}

describe('virtual time', () => {
  it('fires timers by due time, then in the order of setting, over all clocks', () => {
    const time = new VirtualTime(0);
    const [a, b] = [time.clock(), time.clock()];
    const fired: string[] = [];
    a.setTimer(2, () => fired.push('a2'));
    b.setTimer(1, () => fired.push('b1'));
    a.setTimer(1, () => fired.push('a1'));
    b.setTimer(2, () => fired.push('b2')).cancel();
    a.setTimer(0, () => a.setTimer(0, () => fired.push('nested')));
    run(time, 1e6);
    expect(fired).toEqual(['nested', 'b1', 'a1']);
    expect(a.now()).toBe(1);
    run(time, 5e6);
    expect(fired).toEqual(['nested', 'b1', 'a1', 'a2']);
  });

  it('holds back the timers of a paused clock, and drops those of an ended one', () => {
    const time = new VirtualTime(0);
    const [paused, ended, other] = [time.clock(), time.clock(), time.clock()];
    const fired: string[] = [];
    paused.setTimer(1, () => fired.push('paused 1'));
    paused.setTimer(2, () => fired.push('paused 2'));
    ended.setTimer(1, () => fired.push('ended'));
    other.setTimer(3, () => fired.push('other'));
    paused.pause();
    ended.end();
    run(time, 10e6);
    expect(fired).toEqual(['other']);
    paused.resume();
    run(time, 10e6);
    expect(fired).toEqual(['other', 'paused 1', 'paused 2']);
  });

  it('rejects a sleep at once when its signal aborts', async () => {
    const clock = new VirtualTime(0).clock();
    const ending = new AbortController();
    let reason: unknown = null;
    clock.sleep(1000, ending.signal).catch((error: unknown) => {
      reason = error;
    });
    ending.abort('enough');
    await quiet();
    expect(reason).toBe('enough');
  });

  it('fires a thousand random timers in order', () => {
    const random = new SeededRandom(7n);
    const time = new VirtualTime(0);
    const clock = time.clock();
    const fired: number[] = [];
    for (let i = 0; i < 1000; i++) {
      const delayMs = random.between(0, 200);
      clock.setTimer(delayMs, () => fired.push(delayMs));
    }
    run(time, 1e9);
    expect(fired).toHaveLength(1000);
    expect(fired).toEqual([...fired].sort((a, b) => a - b));
  });
});

describe('seeded random', () => {
  it('draws the same from the same seed, and other values from another', () => {
    const draw = (seed: bigint): string => {
      const random = new SeededRandom(seed);
      return `${random.uuid()} ${random.fraction()} ${random.bytes(4).toString('hex')} ${random.between(1, 1000)}`;
    };
    expect(draw(1n)).toBe(draw(1n));
    expect(draw(1n)).not.toBe(draw(2n));
    expect(new SeededRandom(3n).uuid()).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  });
});
