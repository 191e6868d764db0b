// SPDX-License-Identifier: Apache-2.0
// Goal: keep the guest scripts honest with a target that is not ours. Method: the guest kernel's own NVMe/TCP target on the
// guest's loopback, two ports with ANA; the port of the optimized path is taken away under `fio --verify`.

import { expect, test } from 'vitest';
import { type Guest, runGuest } from '../lab/guest.js';
import { diskScript, driverComplaints, kernelTargetScript } from './guest-scripts.js';
import { expectFailover } from './two-path-target.js';

const where = { nqn: 'nqn.2026-01.io.basalt:lab-selftest', ports: [4420, 4421] } as const;
const kernelTarget = kernelTargetScript({ ...where, sizeMib: 64 });

test("the failover run passes on the kernel's own target when its optimized port vanishes under writes", async () => {
  const killer = (guest: Guest) => ({
    ...where,
    killActive: async () => {
      guest.go('kill-active');
      await guest.waitForMark('active-killed', { timeoutMs: 20_000 });
    },
  });
  const { writeMsMax } = await expectFailover(killer, where, {
    name: 'selftest-failover',
    address: '127.0.0.1',
    before: kernelTarget,
    writeSeconds: 4,
  });
  process.stderr.write(`selftest: longest write ${writeMsMax} ms\n`);
});

test("the single-path run passes on the kernel's own target", async () => {
  const script = diskScript({ nqn: where.nqn, path: { address: '127.0.0.1', port: where.ports[0] }, sizeMib: 64 });
  const result = await runGuest({ name: 'selftest-disk', script: `${kernelTarget}\n${script}` });
  expect(result.rc, result.log).toBe(0);
  expect(result.values.get('discovery')).toContain(where.nqn);
  expect(driverComplaints(result.values.get('driver') ?? '')).toEqual([]);
});
