// SPDX-License-Identifier: Apache-2.0
// Cores that are simulated get done what arithmetic says, where that says something.

import { describe, expect, it } from 'vitest';
import { type Costs, simulateCores } from './cores.js';

const costs: Costs = { alone: 10, front: 8, owner: 12, replicas: 80 };
const load = { controllers: 1, hosts: 8, depth: 32, requests: 20_000 };
const near = (value: number, wanted: number): void => {
  expect(value / wanted).toBeGreaterThan(0.97);
  expect(value / wanted).toBeLessThan(1.03);
};

describe('simulated cores', () => {
  it('get done what their time allows', () => {
    near(simulateCores(costs, load).iops, 100_000);
    near(simulateCores({ ...costs, alone: 20 }, load).iops, 50_000);
    near(simulateCores(costs, { ...load, controllers: 2 }).iops, 2 * 50_000);
    near(simulateCores(costs, { ...load, controllers: 4 }).iops, 4 * 50_000);
  });

  it('wait for each other when one host keeps its own busy', () => {
    // A front's 8 us, and a quarter of the parts: 3 us more, of one core.
    near(simulateCores(costs, { ...load, hosts: 1, depth: 256, controllers: 4 }).iops, 1e6 / 11);
  });

  it('take as long as a single request takes', () => {
    const one = simulateCores(costs, { controllers: 1, hosts: 1, depth: 1, requests: 100 });
    near(one.iops, 1e6 / 90);
    near(one.p50Us, 90);
    near(simulateCores(costs, { controllers: 2, hosts: 1, depth: 1, requests: 100 }).p50Us, 100);
  });
});
