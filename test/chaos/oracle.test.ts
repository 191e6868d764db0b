// SPDX-License-Identifier: Apache-2.0
// Goal: the clients' own judgement catches what it is for. Method: a device in memory that is right, then one bug at a time.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../src/env/clock.js';
import { HistoryLog, linesOf, lostWrites, pastWrites } from './history.js';
import { type BlockDevice, Load } from './load.js';
import { BlockOracle } from './oracle.js';
import { SeededRandom } from './random.js';
import { blockBytes } from './stamp.js';

const blocks = 256;
const volume = 77n;
const writer = 5;
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'basalt-oracle-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

class MemoryDevice implements BlockDevice {
  readonly bytes = Buffer.alloc(blocks * blockBytes);
  writes = 0;
  async read(offsetBytes: number, into: Buffer): Promise<void> {
    this.bytes.copy(into, 0, offsetBytes, offsetBytes + into.length);
  }
  async write(offsetBytes: number, from: Buffer): Promise<void> {
    this.writes++;
    from.copy(this.bytes, offsetBytes);
  }
  async flush(): Promise<void> {}
  allocate(bytes: number): Buffer {
    return Buffer.alloc(bytes);
  }
  async close(): Promise<void> {}
}

async function violations(device: BlockDevice): Promise<string[]> {
  const path = join(folder, 'client');
  const oracle = new BlockOracle({ blocks, volume, writer });
  oracle.replay(pastWrites(path));
  const history = new HistoryLog(path, writer, process.hrtime.bigint());
  const firstSequence = (pastWrites(path).at(-1)?.seq ?? 0) + 1;
  const random = new SeededRandom(1);
  const load = new Load({ device, oracle, history, random, volume, writer, depth: 4, rate: 20_000, firstSequence });
  load.start();
  while (load.completed < 1000) await systemClock.sleep(1);
  await load.stop();
  await load.verify();
  history.close();
  return load.violations;
}

test('a right device has no violation, and every operation is on record', async () => {
  expect(await violations(new MemoryDevice())).toEqual([]);
  const lines = linesOf(join(folder, 'client.ops')).map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.length).toBeGreaterThanOrEqual(1000);
  expect(lines.every((line) => line['status'] === 'ok' && Number(line['end']) >= Number(line['inv']))).toBe(true);
});

test('a client that was killed knows afterwards what it had written', async () => {
  const device = new MemoryDevice();
  expect(await violations(device)).toEqual([]);
  expect(await violations(device)).toEqual([]);
  // An older state of the device is stale now.
  expect((await violations(new MemoryDevice()))[0]).toMatch(/although \d+ had been acknowledged/);
});

test('a write that was under way at the kill may be there or not', () => {
  const path = join(folder, 'client');
  const history = new HistoryLog(path, writer, 0n);
  history.intent({ seq: 1, lba: 3, blocks: 1, inv: 10 });
  history.close();
  expect(lostWrites(path)).toEqual([{ seq: 1, lba: 3, blocks: 1, inv: 10 }]);
  const oracle = new BlockOracle({ blocks, volume, writer });
  oracle.replay(pastWrites(path));
  const stamp = { volume, block: 3, writer, sequence: 1 };
  expect(oracle.judge(3, { kind: 'zero', stamp: null }, 0)).toBeNull();
  expect(oracle.judge(3, { kind: 'stamp', stamp }, 0)).toBeNull();
  // Once read, it stays.
  expect(oracle.judge(3, { kind: 'zero', stamp: null }, oracle.floors(3, 1)[0] ?? 0)).toContain('read write 0');
});

class LosesWrites extends MemoryDevice {
  override async write(offsetBytes: number, from: Buffer): Promise<void> {
    if (++this.writes % 50 !== 0) from.copy(this.bytes, offsetBytes);
  }
}
class TearsWrites extends MemoryDevice {
  override async write(offsetBytes: number, from: Buffer): Promise<void> {
    from.copy(this.bytes, offsetBytes, 0, ++this.writes % 50 === 0 ? from.length - 512 : from.length);
  }
}
class Misdirects extends MemoryDevice {
  override async write(offsetBytes: number, from: Buffer): Promise<void> {
    from.copy(
      this.bytes,
      ++this.writes % 50 === 0 ? (offsetBytes + 64 * blockBytes) % (192 * blockBytes) : offsetBytes,
    );
  }
}
class ReadsStale extends MemoryDevice {
  readonly old = Buffer.alloc(blocks * blockBytes);
  override async read(offsetBytes: number, into: Buffer): Promise<void> {
    const from = ++this.writes % 40 === 0 ? this.old : this.bytes;
    from.copy(into, 0, offsetBytes, offsetBytes + into.length);
    if (this.writes % 30 === 0) this.bytes.copy(this.old);
  }
}

test.each([LosesWrites, TearsWrites, Misdirects, ReadsStale])('%o is caught', async (Device) => {
  expect(await violations(new Device())).not.toEqual([]);
});
