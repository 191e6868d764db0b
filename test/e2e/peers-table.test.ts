// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { peerRows, peersScript, resultKey } from './peers-script.js';
import { peerFigures, peerTable } from './peers-table.js';

const run = (iops: number, machine_us_per_io: number, verified_blocks = 10): string =>
  JSON.stringify({ iops, machine_us_per_io, verified_blocks });

/** Three rounds in which the machine becomes slower by ten. */
function values(): Map<string, string> {
  const all = new Map<string, string>();
  for (const [round, slower] of [1, 10, 10].entries()) {
    for (const index of peerRows.keys()) {
      all.set(resultKey(round, index, 'peer'), run(1000 / slower, 20 * slower));
      all.set(resultKey(round, index, 'ours'), run(3000 / slower, 10 * slower, 9 + round));
      all.set(resultKey(round, index, 'fio'), String(500 / slower));
    }
  }
  return all;
}

describe('the table of kernel peers', () => {
  it('has ratios of neighbouring runs, which a slower machine does not change', () => {
    const [first] = peerFigures(values(), 3);
    expect(first).toMatchObject({
      speedRatio: 3,
      costRatio: 2,
      fioRatio: 0.5,
      peer: { iops: 100 },
      ours: { iops: 300 },
    });
    // The least, so that one round that read back less is seen.
    expect(first?.ours.verified_blocks).toBe(9);
    expect(peerTable(peerFigures(values(), 3)).split('\n')).toHaveLength(peerRows.length + 2);
  });

  it('is none when a run is missing or did nothing', () => {
    const missing = values();
    missing.delete(resultKey(2, 0, 'ours'));
    expect(() => peerFigures(missing, 3)).toThrow(/disk itself, 4 KiB: nothing was measured \(ours\)/);
    const idle = values().set(resultKey(1, 1, 'peer'), run(0, 1));
    expect(() => peerFigures(idle, 3)).toThrow(/nothing was done \(peer\)/);
    const silent = values().set(resultKey(0, 0, 'fio'), '');
    expect(() => peerFigures(silent, 3)).toThrow(/fio said nothing/);
  });

  it('comes of a script in which each row takes its turn with ours in every round', () => {
    const script = peersScript('/dev/vda', 2);
    for (const [index, row] of peerRows.entries()) {
      for (const round of [0, 1]) {
        const [peer, ours] = [resultKey(round, index, 'peer'), resultKey(round, index, 'ours')];
        expect(script).toContain(`measure ${peer} --stack device --paths ${row.device} `);
        expect(script.indexOf(peer)).toBeLessThan(script.indexOf(`measure ${ours} ${row.ours} `));
      }
    }
    expect(script.indexOf(resultKey(0, 8, 'ours'))).toBeLessThan(script.indexOf(resultKey(1, 0, 'peer')));
  });
});
