// SPDX-License-Identifier: Apache-2.0
// What controllers of one core each get done together when a request costs what it was measured to cost: closed loops of
// hosts, a queue for each core, in virtual time. Nothing else is ever short of anything: disk nodes and networks only take
// their time, so these are figures of controllers alone.

import { SeededRandom } from '../../src/env/seeded-random.js';

/** Of a request, in microseconds of a core; half of each before replicas answer, half after. */
export interface Costs {
  /** Where one controller does it all. */
  readonly alone: number;
  /** Of several: at the one that serves the host, and at the one that drives the part. */
  readonly front: number;
  readonly owner: number;
  /** Nobody's: from the controller's last step to the replicas' answer. */
  readonly replicas: number;
}

export interface Load {
  readonly controllers: number;
  readonly hosts: number;
  /** Requests that each host has under way. */
  readonly depth: number;
  readonly requests: number;
}

export interface Done {
  readonly iops: number;
  readonly p50Us: number;
}

/** Core null: time that passes at none of them. */
type Step = readonly [core: number | null, us: number];

export function simulateCores(costs: Costs, load: Load, seed = 1n): Done {
  const random = new SeededRandom(seed);
  const freeAtUs = new Array<number>(load.controllers).fill(0);
  const loops = Array.from({ length: load.hosts * load.depth }, (_, index) => {
    const host = index % load.hosts;
    return { front: host % load.controllers, steps: [] as Step[], atUs: 0, beganUs: 0 };
  });
  const latencies: number[] = [];
  // What begins all at once is no closed loop yet.
  const warmUp = Math.floor(load.requests / 4);
  let done = 0;
  let startUs = 0;
  for (;;) {
    const next = loops.reduce((first, each) => (each.atUs < first.atUs ? each : first));
    const step = next.steps.shift();
    if (step !== undefined) {
      const [core, us] = step;
      const beginUs = core === null ? next.atUs : Math.max(next.atUs, freeAtUs[core] ?? 0);
      next.atUs = beginUs + us;
      if (core !== null) freeAtUs[core] = next.atUs;
      continue;
    }
    if (next.atUs > 0) {
      done += 1;
      if (done === warmUp) startUs = next.atUs;
      if (done > warmUp) latencies.push(next.atUs - next.beganUs);
    }
    if (done === load.requests) {
      latencies.sort((a, b) => a - b);
      const p50Us = latencies[latencies.length >> 1] ?? Number.NaN;
      return { iops: (1e6 * latencies.length) / (next.atUs - startUs), p50Us };
    }
    next.beganUs = next.atUs;
    next.steps = stepsOf(costs, next.front, load.controllers === 1 ? null : random.between(0, load.controllers - 1));
  }
}

/** `owner` null: there is one controller. */
function stepsOf({ alone, front, owner, replicas }: Costs, at: number, ownedAt: number | null): Step[] {
  const wait: Step = [null, replicas];
  if (ownedAt === null) return [[at, alone / 2], wait, [at, alone / 2]];
  return [[at, front / 2], [ownedAt, owner / 2], wait, [ownedAt, owner / 2], [at, front / 2]];
}
