// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { fioWriteMsMax, pathStates } from './two-path-target.js';

const twoLive = `nvme-subsys0 - NQN=nqn.2026-01.io.basalt:lab
\\
 +- nvme0 tcp traddr=10.0.2.2,trsvcid=4420,src_addr=10.0.2.15 live optimized
 +- nvme1 tcp traddr=10.0.2.2,trsvcid=4421,src_addr=10.0.2.15 live inaccessible
`;

test('path states are those of live controllers only', () => {
  expect(pathStates(twoLive)).toEqual(['inaccessible', 'optimized']);
  expect(pathStates(twoLive.replace('src_addr=10.0.2.15 live optimized', 'src_addr= connecting optimized'))).toEqual([
    'inaccessible',
  ]);
  expect(pathStates('')).toEqual([]);
});

test('the longest write comes from the report, and a report without writes is an error', () => {
  const report = (total_ios: number) =>
    JSON.stringify({ jobs: [{ write: { total_ios, lat_ns: { max: 812_345_678 } } }] });
  expect(fioWriteMsMax(report(5))).toBe(812);
  expect(() => fioWriteMsMax(report(0))).toThrow(/no writes/);
  expect(() => fioWriteMsMax('{}')).toThrow(/no writes/);
});
