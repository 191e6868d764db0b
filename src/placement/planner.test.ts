// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { systemClock } from '../env/clock.js';
import type { PgProblem } from './pg-problem.js';
import { InlinePlanner, WorkerPlanner } from './planner.js';

const disks = Array.from({ length: 200 }, (_, at) => ({
  id: `disk${1000 + at}`,
  domain: `node${at % 20}`,
  capacityBytes: (1 + (at % 4)) * 2 ** 40,
}));
const problem: PgProblem = { disks, pgCount: 2048, width: 3, current: null, pgBytes: null };

describe('the planner in a thread of its own', () => {
  it('gives the plan that the same call gives here, and leaves the event loop free meanwhile', async () => {
    let turns = 0;
    let running = true;
    const count = async (): Promise<void> => {
      while (running) {
        await systemClock.sleep(1);
        turns += 1;
      }
    };
    const counting = count();
    const start = systemClock.now();
    const plan = await new WorkerPlanner().plan(problem);
    const tookMs = systemClock.now() - start;
    running = false;
    await counting;
    expect(plan).toEqual(await new InlinePlanner().plan(problem));
    // Held up, the loop would have turned a handful of times.
    expect(turns).toBeGreaterThan(tookMs / 20);
  });

  it('hands on what a problem is refused for', async () => {
    const pgBytes = new Array<number>(2048).fill(2 ** 42);
    await expect(new WorkerPlanner().plan({ ...problem, pgBytes })).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
    });
  });

  it('stops when nobody waits for it any more', async () => {
    const ended = new AbortController();
    const plan = new WorkerPlanner().plan(problem, ended.signal);
    ended.abort(new Error('enough'));
    await expect(plan).rejects.toThrow('enough');
  });
});
