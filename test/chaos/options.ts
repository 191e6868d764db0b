// SPDX-License-Identifier: Apache-2.0

export interface ChaosOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly faultIntervalMs: number;
  readonly store: 'embedded' | 'etcd';
  /** How many faults hold at the same time, each of another part of the cluster. */
  readonly faultsAtOnce: number;
  /** Operations per second of each client. */
  readonly rate: number;
  readonly json: boolean;
  readonly keep: boolean;
  /** Only kinds of faults whose name contains this. */
  readonly only: string | null;
}

export const usage = `usage: npm run chaos -- [--minutes N] [--seed S] [--fault-interval SECONDS] [--store embedded|etcd]
                        [--faults-at-once 1|2] [--rate OPERATIONS-PER-SECOND] [--only FAULT] [--json] [--keep]`;

const valued = ['--minutes', '--seed', '--fault-interval', '--faults-at-once', '--store', '--rate', '--only'];

/** @throws with the words for the user */
export function parseOptions(args: readonly string[], seedDefault: number): ChaosOptions {
  const values = new Map<string, string>();
  for (let at = 0; at < args.length; at++) {
    const name = args[at] ?? '';
    if (name === '--json' || name === '--keep') values.set(name, '');
    else if (valued.includes(name)) values.set(name, args[++at] ?? '');
    else throw new Error(`${name}: not understood; ${usage}`);
  }
  const number = (name: string, otherwise: number, min: number): number => {
    const value = Number(values.get(name) ?? otherwise);
    if (!Number.isFinite(value) || value < min || values.get(name) === '')
      throw new Error(`${name}: must be a number, at least ${min}`);
    return value;
  };
  const store = values.get('--store') ?? 'embedded';
  if (store !== 'embedded' && store !== 'etcd') throw new Error('--store: must be embedded or etcd');
  const faultsAtOnce = number('--faults-at-once', 1, 1);
  if (faultsAtOnce !== 1 && faultsAtOnce !== 2) throw new Error('--faults-at-once: must be 1 or 2');
  return {
    minutes: number('--minutes', 5, 0.1),
    seed: Math.floor(number('--seed', seedDefault, 0)) >>> 0,
    faultIntervalMs: number('--fault-interval', 60, 1) * 1000,
    faultsAtOnce,
    store,
    rate: number('--rate', 200, 1),
    json: values.has('--json'),
    keep: values.has('--keep'),
    only: values.get('--only') ?? null,
  };
}
