// SPDX-License-Identifier: Apache-2.0
// The failover test, for any target that has two controllers: what the machine's side must offer, the run, the verdict.

import { expect } from 'vitest';
import { Guest, type GuestResult } from '../lab/guest.js';
import type { GuestSystem } from '../lab/image.js';
import { machineAddress } from '../lab/network.js';
import { failoverScript } from './guest-scripts.js';

export interface TwoPathTarget {
  /** Ports of 127.0.0.1 on the machine; the first is the active controller's. */
  readonly ports: readonly [number, number];
  readonly nqn: string;
  /** Kills the active controller without warning. Need not wait until the other one has taken over. */
  killActive(): Promise<void>;
}

export interface FailoverOptions {
  /** Names the guest and its log file. */
  readonly name: string;
  /** @default the machine's address as the guest sees it */
  readonly address?: string;
  /** Script that the guest runs first. */
  readonly before?: string;
  readonly writeSeconds?: number;
  /** Script that the guest runs when both paths are connected. */
  readonly connected?: string;
  /** Script that the guest runs when one path is left. */
  readonly afterKill?: string;
  /** Brings back what was killed; the guest must then see both paths again. */
  readonly restart?: () => Promise<void>;
  /** Then: makes the volume larger; the guest must see that without a reconnect. */
  readonly grow?: () => Promise<void>;
  /** @default plainSystem */
  readonly system?: GuestSystem;
  readonly signal?: AbortSignal;
}

export interface FailoverOutcome {
  readonly result: GuestResult;
  /** The longest time that one write of the guest took. */
  readonly writeMsMax: number;
}

/** Runs the whole failover in a guest and asserts that no error reached the file system. */
export async function expectFailover(
  target: TwoPathTarget | ((guest: Guest) => TwoPathTarget),
  where: Pick<TwoPathTarget, 'ports' | 'nqn'>,
  options: FailoverOptions,
): Promise<FailoverOutcome> {
  const address = options.address ?? machineAddress;
  const script = failoverScript({
    nqn: where.nqn,
    paths: [
      { address, port: where.ports[0] },
      { address, port: where.ports[1] },
    ],
    ...(options.writeSeconds === undefined ? {} : { writeSeconds: options.writeSeconds }),
    ...(options.connected === undefined ? {} : { connected: options.connected }),
    ...(options.afterKill === undefined ? {} : { afterKill: options.afterKill }),
    pathReturns: options.restart !== undefined,
    grows: options.grow !== undefined,
  });
  const guest = await Guest.boot({
    name: options.name,
    script: `${options.before ?? ''}\n${script}`,
    timeoutMs: 270_000, // software emulation beside other work; on a quiet machine a run takes some 30 s
    ...(options.system === undefined ? {} : { system: options.system }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  try {
    const killable = typeof target === 'function' ? target(guest) : target;
    await guest.waitForMark('writing', { timeoutMs: 180_000 });
    await killable.killActive();
    guest.go('killed');
    if (options.restart !== undefined) {
      await guest.waitForMark('finished', { timeoutMs: 180_000 });
      await options.restart();
      guest.go('restarted');
    }
    if (options.grow !== undefined) {
      await guest.waitForMark('returned', { timeoutMs: 180_000 });
      await options.grow();
      guest.go('grown');
    }
    const result = await guest.result();
    expect(result.rc, result.log).toBe(0);
    expect(pathStates(result.values.get('subsys_before') ?? '')).toEqual(['inaccessible', 'optimized']);
    expect(pathStates(result.values.get('subsys_after') ?? '')).toContain('optimized');
    if (options.restart !== undefined) {
      expect(pathStates(result.values.get('subsys_returned') ?? '')).toEqual(['inaccessible', 'optimized']);
    }
    return { result, writeMsMax: fioWriteMsMax(result.values.get('fio') ?? '') };
  } finally {
    await guest.stop();
  }
}

/** ANA states of the live paths in `nvme list-subsys DEVICE`, sorted. */
export function pathStates(listSubsys: string): string[] {
  return [...listSubsys.matchAll(/^\s*\+- nvme\d+ \S+ .*\blive\s+(\S+)\s*$/gm)].map((match) => match[1] ?? '').sort();
}

/** The longest write latency of a fio JSON report. @throws when the report has no job or no writes */
export function fioWriteMsMax(fioJson: string): number {
  const report = JSON.parse(fioJson) as { jobs?: { write?: { total_ios?: number; lat_ns?: { max?: number } } }[] };
  const write = report.jobs?.[0]?.write;
  if (write?.lat_ns?.max === undefined || !((write.total_ios ?? 0) > 0)) {
    throw new Error(`fio reports no writes: ${fioJson.slice(0, 400)}`);
  }
  return Math.round(write.lat_ns.max / 1e6);
}
