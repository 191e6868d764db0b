// SPDX-License-Identifier: Apache-2.0
//
// A run as JSON, as the simulator keeps it under test/sim (native/sim/plan_file.h has the form for all suites):
//
//   {"suite":"cluster-ts","seed":"0x1f3a","reduction":{"steps":[3,7],"clients":[1,2],"hosts":1},
//    "bugs":["skip_fence"],"found":"...","why":"..."}

import type { PlantedBugs } from './planted-bugs.js';

export const suite = 'cluster-ts';

/** What is left of what the seed gives; what is missing is left whole. */
export interface Reduction {
  /** These steps of the nemesis, from 0. */
  readonly steps?: readonly number[];
  /** These clients, from 1, over all hosts. */
  readonly clients?: readonly number[];
  /** Of each client. */
  readonly opsMax?: number;
  readonly hosts?: number;
  readonly legs?: number;
  readonly copies?: number;
  readonly controllers?: number;
  readonly legBlocks?: number;
  /** After each step. */
  readonly pauseMsMax?: number;
}

export interface Plan {
  readonly seed: bigint;
  readonly reduction: Reduction;
  readonly bugs: PlantedBugs;
}

const lists = { steps: 'steps', clients: 'clients' } as const;
const numbers = {
  ops_max: 'opsMax',
  hosts: 'hosts',
  legs: 'legs',
  copies: 'copies',
  controllers: 'controllers',
  leg_blocks: 'legBlocks',
  pause_ms_max: 'pauseMsMax',
} as const;
const bugs: Readonly<Record<string, keyof PlantedBugs>> = {
  skip_fence: 'skipFence',
  promote_before_takeover: 'promoteBeforeTakeover',
  forget_epoch: 'forgetEpoch',
  shrink_without_consent: 'shrinkWithoutConsent',
  ignore_read_lease: 'ignoreReadLease',
  ignore_leftover_lease: 'ignoreLeftoverLease',
  cut_leg_by_leg: 'cutLegByLeg',
  resync_head_only: 'resyncHeadOnly',
  cut_volumes_apart: 'cutVolumesApart',
};

/** @throws {RangeError} naming the field that is wrong */
export function parsePlan(text: string): Plan {
  const plan = objectOf(parseJson(text), 'the plan');
  for (const name of Object.keys(plan)) {
    if (!['suite', 'seed', 'reduction', 'bugs', 'found', 'why'].includes(name))
      throw new RangeError(`${name}: unknown`);
  }
  if (plan['suite'] !== suite) throw new RangeError(`suite: must be ${suite}`);
  const seed = plan['seed'];
  if (typeof seed !== 'string' || !/^0x[0-9a-f]{1,16}$/i.test(seed)) throw new RangeError('seed: a string, 0x...');
  return {
    seed: BigInt(seed),
    reduction: reductionOf(objectOf(plan['reduction'] ?? {}, 'reduction')),
    bugs: bugsOf(plan['bugs'] ?? []),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new RangeError('the plan is not JSON');
  }
}

function objectOf(value: unknown, name: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new RangeError(`${name}: an object`);
  return value as Record<string, unknown>;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function reductionOf(given: Readonly<Record<string, unknown>>): Reduction {
  const reduction: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    if (Object.hasOwn(lists, name)) {
      if (!Array.isArray(value) || !value.every(isCount)) throw new RangeError(`reduction.${name}: a list of numbers`);
      reduction[lists[name as keyof typeof lists]] = value;
    } else if (Object.hasOwn(numbers, name)) {
      if (!isCount(value)) throw new RangeError(`reduction.${name}: a number`);
      reduction[numbers[name as keyof typeof numbers]] = value;
    } else {
      throw new RangeError(`reduction.${name}: unknown`);
    }
  }
  return reduction;
}

function bugsOf(names: unknown): PlantedBugs {
  if (!Array.isArray(names)) throw new RangeError('bugs: a list of names');
  const planted: Partial<Record<keyof PlantedBugs, boolean>> = {};
  for (const name of names) {
    const bug = typeof name === 'string' && Object.hasOwn(bugs, name) ? bugs[name] : undefined;
    if (bug === undefined) throw new RangeError(`bugs: '${String(name)}' is none of ${Object.keys(bugs).join(', ')}`);
    planted[bug] = true;
  }
  return planted;
}
