// SPDX-License-Identifier: Apache-2.0
// Goal: the lab itself. Method: boot guests and look at what they report, also when they fail, hang, die or are stopped.

import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Guest, runGuest } from '../lab/guest.js';
import { hostNqn } from '../lab/init.js';
import { kernelSeries } from '../lab/kernel.js';
import { bootScript } from './guest-scripts.js';

test.each(kernelSeries)(
  "a guest boots Debian's stock kernel %s with nvme-tcp, multipath, fio and nvme-cli",
  async (kernel) => {
    const result = await runGuest({ name: `boot-${kernel}`, script: bootScript(), system: { kernel, equipment: [] } });
    expect(result.rc, result.log).toBe(0);
    expect(result.values.get('kernel')?.startsWith(`${kernel}.`)).toBe(true);
    expect(result.values.get('kernel')).toMatch(/amd64$/);
    expect(result.values.get('fio')).toMatch(/^fio-3\./);
    expect(result.values.get('nvme')).toMatch(/^nvme version 2\./);
    expect(result.values.get('mke2fs')).toMatch(/^mke2fs 1\.4/);
    expect(result.values.get('hostnqn')).toBe(hostNqn);
  },
);

test('a test and a running guest take turns, and a failing script reports its code and the kernel messages', async () => {
  const guest = await Guest.boot({
    name: 'turns',
    script: 'mark first; wait_go second 30; echo went on; echo said by the kernel >/dev/kmsg; exit 7',
  });
  try {
    await guest.waitForMark('first');
    expect(guest.console.lines).not.toContain('went on');
    guest.go('second');
    await guest.waitForLine(/^went on$/);
    const result = await guest.result();
    expect(result.rc).toBe(7);
    expect(result.dmesg.join('\n')).toContain('said by the kernel');
  } finally {
    await guest.stop();
  }
});

test('a guest that dies without a report, hangs, or is stopped is an error and leaves no process', async () => {
  await expect(runGuest({ name: 'dies', script: 'poweroff -f' })).rejects.toMatchObject({ code: 'LAB_GUEST_LOST' });
  await expect(runGuest({ name: 'hangs', script: 'sleep 600', timeoutMs: 8_000 })).rejects.toMatchObject({
    code: 'LAB_GUEST_DEADLINE',
  });
  const controller = new AbortController();
  const guest = await Guest.boot({ name: 'stopped', script: 'mark up; sleep 600', signal: controller.signal });
  await guest.waitForMark('up');
  const waiting = guest.waitForMark('never');
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'LAB_ABORTED' });
  await expect(guest.result()).rejects.toMatchObject({ code: 'LAB_ABORTED' });
  expect(existsSync(`/proc/${guest.pid}`)).toBe(false);
});
