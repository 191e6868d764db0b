// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { parsePlan } from './plan.js';

describe('a plan', () => {
  it('is read', () => {
    const text = `{"suite":"cluster-ts","seed":"0xfedcba9876543210","reduction":{"steps":[3,7],"clients":[],"ops_max":10,
      "leg_blocks":32,"pause_ms_max":0},"bugs":["skip_fence"],"found":"wrong read: ...","why":"..."}`;
    expect(parsePlan(text)).toEqual({
      seed: 0xfedcba9876543210n,
      reduction: { steps: [3, 7], clients: [], opsMax: 10, legBlocks: 32, pauseMsMax: 0 },
      bugs: { skipFence: true },
    });
    expect(parsePlan('{"suite":"cluster-ts","seed":"0x1"}')).toEqual({ seed: 1n, reduction: {}, bugs: {} });
  });

  for (const [text, message] of [
    ['', 'the plan is not JSON'],
    ['[]', 'the plan: an object'],
    ['{"seed":"0x1"}', 'suite: must be cluster-ts'],
    ['{"suite":"cluster","seed":"0x1"}', 'suite: must be cluster-ts'],
    ['{"suite":"cluster-ts","seed":1}', 'seed: a string, 0x...'],
    ['{"suite":"cluster-ts","seed":"0x"}', 'seed: a string, 0x...'],
    ['{"suite":"cluster-ts","seed":"0x1","step":[]}', 'step: unknown'],
    ['{"suite":"cluster-ts","seed":"0x1","reduction":{"step":[1]}}', 'reduction.step: unknown'],
    ['{"suite":"cluster-ts","seed":"0x1","reduction":{"toString":1}}', 'reduction.toString: unknown'],
    ['{"suite":"cluster-ts","seed":"0x1","reduction":{"steps":[-1]}}', 'reduction.steps: a list of numbers'],
    ['{"suite":"cluster-ts","seed":"0x1","reduction":{"hosts":"2"}}', 'reduction.hosts: a number'],
    ['{"suite":"cluster-ts","seed":"0x1","bugs":["toString"]}', "bugs: 'toString' is none of skip_fence"],
  ] as const) {
    it(`is refused when it is ${text === '' ? 'empty' : text}`, () => {
      expect(() => parsePlan(text)).toThrow(message);
    });
  }
});
