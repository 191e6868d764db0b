// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { isBasaltError } from '../model/errors.js';
import { waterLevelBytes } from './capacity.js';
import { chooseSeed, type SeedRequest } from './choose-seed.js';
import { loadHighs } from './linear-program.js';
import { planPgs } from './plan-pgs.js';
import { legPgs, mix32 } from './route.js';

const mib = 2 ** 20;
const disks = Array.from({ length: 24 }, (_, at) => ({
  id: `disk${100 + at}`,
  domain: `node${at % 6}`,
  capacityBytes: (2 + (at % 5) * 3) * 1024 * mib,
}));

async function poolOf(pgCount: number): Promise<SeedRequest> {
  const plan = planPgs({ disks, pgCount, width: 2, current: null, pgBytes: null }, await loadHighs());
  const capacityBytes = plan.disks.map((disk) => disk.capacityBytes);
  return {
    pgs: plan.pgs,
    capacityBytes,
    availableBytes: capacityBytes,
    legCount: 4,
    legSizeBytes: 16 * mib,
    overheadBytes: mib,
    conflict: 'spread',
    firstSeed: 7,
    awayText: 'none',
  };
}

function message(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return '';
}

describe('choosing a seed', () => {
  it('fills an uneven cluster with volumes to 98 % of what it can hold before it refuses one', async () => {
    const request = await poolOf(1024);
    const availableBytes = [...request.capacityBytes];
    let placedBytes = 0;
    for (let volume = 0; ; volume++) {
      try {
        const { pgs } = chooseSeed({ ...request, availableBytes, firstSeed: mix32(volume) });
        for (const pg of pgs) {
          for (const disk of request.pgs[pg] ?? []) {
            availableBytes[disk] = (availableBytes[disk] ?? 0) - request.legSizeBytes;
            expect(availableBytes[disk]).toBeGreaterThanOrEqual(0);
          }
        }
        placedBytes += pgs.length * request.legSizeBytes;
      } catch (error) {
        if (!isBasaltError(error, 'PLACEMENT_IMPOSSIBLE')) throw error;
        break;
      }
    }
    expect(placedBytes).toBeGreaterThan(0.98 * waterLevelBytes(disks, 2));
  });

  it('gives the PGs that the seed gives, and names the largest size that fits', async () => {
    const request = await poolOf(256);
    const { seed, pgs } = chooseSeed(request);
    expect(pgs).toEqual(legPgs({ legCount: 4, seed, conflict: 'spread' }, 256));
    const refused = (): unknown => chooseSeed({ ...request, legSizeBytes: 2 ** 40 });
    expect(refused).toThrow(/ask for at most \d+ bytes/);
    const most = Number(/at most (\d+) bytes/.exec(message(refused))?.[1]);
    expect(chooseSeed({ ...request, legSizeBytes: most / 4 + mib }).pgs).toHaveLength(4);
  });

  it('keeps away from disks that are away, and says so when there are none but those', async () => {
    const request = await poolOf(256);
    const away = new Set([0, 5]);
    const availableBytes = request.capacityBytes.map((bytes, disk) => (away.has(disk) ? null : bytes));
    const { pgs } = chooseSeed({ ...request, availableBytes });
    for (const pg of pgs) for (const disk of request.pgs[pg] ?? []) expect(away.has(disk)).toBe(false);
    const none = request.capacityBytes.map(() => null);
    expect(() => chooseSeed({ ...request, availableBytes: none, awayText: 'down: n1' })).toThrow(/down: n1/);
  });
});
