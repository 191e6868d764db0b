// SPDX-License-Identifier: Apache-2.0
// Goal: a stock Linux host works with our target. Method: one engined with a malloc namespace on the machine; the guest
// discovers, connects, verifies with fio, makes a file system, disconnects, reconnects and checks.

import { afterEach, beforeEach, expect, test } from 'vitest';
import { runGuest } from '../lab/guest.js';
import type { KernelSeries } from '../lab/kernel.js';
import { BreakableLink } from './breakable-link.js';
import { Engined, freePort, serveMalloc, setAnaState } from './engined.js';
import { diskScript, driverComplaints } from './guest-scripts.js';
import { expectFailover } from './two-path-target.js';

const nqn = 'nqn.2026-01.io.basalt:lab-malloc';
const sizeMib = 64;
let engined: Engined;
let ports: [number, number];

beforeEach(async (context) => {
  engined = await Engined.start(context.task.name.replace(/\W+/g, '-').slice(0, 40));
  ports = [await freePort(), await freePort()];
  await serveMalloc(engined, { nqn, ports, sizeMib });
});

afterEach(async () => {
  await engined?.stop();
});

async function expectDisk(name: string, digests: boolean, kernel: KernelSeries): Promise<void> {
  const script = diskScript({ nqn, path: { port: ports[0] }, sizeMib, digests });
  const result = await runGuest({ name, script, system: { kernel, equipment: [] } });
  expect(result.rc, `${result.log}\nengined:\n${engined.log.tail(40)}`).toBe(0);
  const controller = JSON.parse(result.values.get('id_ctrl') ?? '{}') as Record<string, unknown>;
  expect(controller['subnqn']).toBe(nqn);
  expect(String(controller['sn']).trim()).toBe('BASALTLAB0000001');
  expect(driverComplaints(result.values.get('driver') ?? '')).toEqual([]);
}

test('a Linux host discovers, connects, verifies, makes a file system and finds it whole after reconnecting', async () => {
  await expectDisk('malloc-plain', false, '6.1');
});

test('the same holds for a newer kernel, with header and data digests', async () => {
  await expectDisk('malloc-digests', true, '6.12');
});

test('a change of ANA states under writes moves the host to the other path without an error', async () => {
  const flip = {
    nqn,
    ports,
    killActive: async () => {
      await setAnaState(engined, nqn, ports[0], 'inaccessible');
      await setAnaState(engined, nqn, ports[1], 'optimized');
    },
  };
  const { writeMsMax } = await expectFailover(flip, flip, { name: 'malloc-ana', writeSeconds: 5 });
  process.stderr.write(`malloc: longest write over the ANA change ${writeMsMax} ms\n`);
});

test('a broken connection under writes moves the host to the other path without an error', async () => {
  const link = await BreakableLink.open(ports[0]);
  const broken = {
    nqn,
    ports: [link.port, ports[1]] as const,
    killActive: async () => {
      await link.cut();
      await setAnaState(engined, nqn, ports[0], 'inaccessible');
      await setAnaState(engined, nqn, ports[1], 'optimized');
    },
  };
  try {
    const { writeMsMax } = await expectFailover(broken, broken, { name: 'malloc-cut', writeSeconds: 5 });
    expect(link.connections).toBeGreaterThan(1);
    process.stderr.write(`malloc: longest write over the broken connection ${writeMsMax} ms\n`);
  } finally {
    await link.cut();
  }
});
