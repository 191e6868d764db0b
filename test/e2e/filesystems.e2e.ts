// SPDX-License-Identifier: Apache-2.0
// Goal: the usual Linux file systems keep what they promised, on a replicated volume, through a failover and a crash of
// their host. Method: one guest makes and works a file system while the active controller gets SIGKILL, then loses power;
// a new guest mounts it, compares every synced file, and runs the file system's own checker, which must find nothing.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { Guest, runGuest } from '../lab/guest.js';
import { ClusterTarget } from './cluster-target.js';
import { checkScript, fileSystems, useScript } from './filesystem-scripts.js';
import { systemOf } from './scenarios.js';

const MiB = 1024 * 1024;
const guestMsMax = 240_000;
const system = systemOf('filesystems');
let cluster: ClusterTarget;

beforeAll(async () => {
  cluster = await ClusterTarget.start(512 * MiB);
});

afterAll(async () => {
  await cluster?.stop();
});

/** What the first guest was promised before it lost power. */
function promisedBy(guest: Guest): { tree: string; acked: string[] } {
  const { values } = guest;
  expect(values.get('broken')).toBeUndefined();
  const acked: string[] = [];
  for (let index = 1; ; index++) {
    const sum = values.get(`acked_${index}`);
    if (sum === undefined) break;
    acked.push(sum);
  }
  return { tree: values.get('tree') ?? '', acked };
}

test.each(fileSystems)('$name keeps what it promised through a failover and a crash of its host', async (fs) => {
  const before = await cluster.paths();
  const guest = await Guest.boot({
    name: `filesystems-${fs.name}-use`,
    script: useScript(fs, before),
    system,
    memoryMib: 1024,
    timeoutMs: guestMsMax,
  });
  try {
    await guest.waitForMark('working', { timeoutMs: guestMsMax });
    await cluster.killActive();
    guest.go('killed');
    await guest.waitForMark('crash-me', { timeoutMs: guestMsMax });
    await guest.crash();
  } finally {
    await guest.stop();
  }
  const promised = promisedBy(guest);
  expect(promised.acked.length).toBeGreaterThan(3);
  await cluster.restartKilled();
  const result = await runGuest({
    name: `filesystems-${fs.name}-check`,
    script: checkScript(fs, await cluster.paths(), promised),
    system,
    memoryMib: 1024,
    timeoutMs: guestMsMax,
  });
  expect(result.rc, result.log).toBe(0);
  process.stderr.write(`${fs.name}: ${result.values.get('checked')} synced files found again\n`);
});
