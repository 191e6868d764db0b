// SPDX-License-Identifier: Apache-2.0
// Goal: databases that rely on flushes lose no acknowledged transaction, on a replicated volume, through a failover and a
// crash of their host. Method: a guest runs PostgreSQL (data checksums) and SQLite (WAL, synchronous=FULL) while the active
// controller gets SIGKILL, then loses power under load; a new guest recovers them, counts, and lets their own checkers run.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { Guest, runGuest } from '../lab/guest.js';
import { ClusterTarget } from './cluster-target.js';
import { postgresWorkers, recoverScript, workScript } from './database-scripts.js';
import { systemOf } from './scenarios.js';

const MiB = 1024 * 1024;
const guestMsMax = 280_000;
const system = systemOf('databases');
let cluster: ClusterTarget;

beforeAll(async () => {
  cluster = await ClusterTarget.start(512 * MiB);
});

afterAll(async () => {
  await cluster?.stop();
});

test('PostgreSQL and SQLite keep every acknowledged transaction', async () => {
  const guest = await Guest.boot({
    name: 'databases-work',
    script: workScript(await cluster.paths()),
    system,
    memoryMib: 1280,
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
  const { values } = guest;
  expect(values.get('broken')).toBeUndefined();
  const number = (key: string): number => Number(values.get(key) ?? Number.NaN);
  const postgres = Array.from({ length: postgresWorkers }, (_, index) => number(`pg_${index + 1}`));
  const acked = { postgres, sqlite: number('sqlite') };
  for (const count of [...postgres, acked.sqlite]) expect(count).toBeGreaterThan(20);
  await cluster.restartKilled();
  const result = await runGuest({
    name: 'databases-recover',
    script: recoverScript(await cluster.paths(), acked),
    system,
    memoryMib: 1280,
    timeoutMs: guestMsMax,
  });
  expect(result.rc, result.log).toBe(0);
  expect(result.values.get('checksums')).toMatch(/Bad checksums:\s+0$/m);
  process.stderr.write(`acknowledged ${JSON.stringify(acked)}, all there\n`);
});
