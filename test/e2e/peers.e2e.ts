// SPDX-License-Identifier: Apache-2.0
// Goal: lvol and raid beside dm-thin and md, on the same disks, in the same guest. Method: one program loads the kernel's block
// devices and our bdevs in turns, and reads back what it wrote; the table says what a request costs. It passes when all
// of it ran and was read back as written: never by speed, which an emulator does not tell.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packFreight } from '../lab/freight.js';
import { runGuest } from '../lab/guest.js';
import { checkoutDir } from '../lab/image.js';
import { peersScript } from './peers-script.js';
import { peerFigures, peerTable } from './peers-table.js';
import { systemOf } from './scenarios.js';

const rounds = 2;
const blocksPerMib = 256;
let folder: string;
let freight: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-peers-'));
  freight = join(folder, 'freight.tar');
  await packFreight(freight, [join(checkoutDir(), 'build/release/basalt_stack')]);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('lvol and raid keep what is written, as dm-thin and md do, beside which they are measured', async () => {
  const result = await runGuest({
    name: 'peers',
    script: peersScript('/dev/vda', rounds),
    system: systemOf('peers'),
    devices: [{ kind: 'disk', path: freight }],
    memoryMib: 2048,
    timeoutMs: 1_500_000,
  });
  expect(result.rc, result.log).toBe(0);
  const figures = peerFigures(result.values, rounds);
  for (const { name, mib, peer, ours } of figures)
    expect([name, peer.verified_blocks, ours.verified_blocks]).toEqual([name, mib * blocksPerMib, mib * blocksPerMib]);
  process.stderr.write(`peers: Linux ${result.values.get('kernel')}, ${rounds} rounds\n${peerTable(figures)}\n`);
}, 1_600_000);
