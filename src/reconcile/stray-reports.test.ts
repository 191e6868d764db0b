// SPDX-License-Identifier: Apache-2.0
// Which reports are about replicas that nobody has any more.

import { describe, expect, it } from 'vitest';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import { strayReports } from './stray-reports.js';

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const volumeId = uuid(1);
const replica = uuid(2);
const disk = uuid(3);
const report = { format: 1, replica, volumeId, disk, node: 'd1', state: 'ready' } as const;
const tombstone = { format: 1, replica, disk, volumeId, epoch: 1 } as const;
const volume: VolumeObject = {
  format: 1,
  id: volumeId,
  name: 'v1',
  phase: 'live',
  sizeBytes: 2 ** 20,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 1,
  legSizeBytes: 2 ** 20,
  controllers: ['c1'],
  legs: [{ replicas: [{ replica, node: 'd1', disk }] }],
  hosts: [],
  nbd: [],
};

/** What is stray on `onDisk`, in a store that holds the report and these. */
function strays(others: readonly { key: string; text: string }[], onDisk = disk): string[] {
  const state = new ClusterState();
  state.apply(keys.observedReplica(replica), codecs.observedReplica.encode(report), 7);
  for (const { key, text } of others) state.apply(key, text, 8);
  expect(strayReports(state, new Set([onDisk])).every(({ revision }) => revision === 7)).toBe(true);
  return strayReports(state, new Set([onDisk])).map(({ key }) => key);
}

describe('a report', () => {
  const stray = [keys.observedReplica(replica)];
  const put = { key: keys.volume(volumeId), text: codecs.volume.encode(volume) };
  const other = { replica: uuid(9), node: 'd1', disk };

  it('of a replica that is in no leg is stray', () => {
    expect(strays([])).toEqual(stray);
    const moved = { ...volume, legs: [{ replicas: [other] }] };
    expect(strays([{ ...put, text: codecs.volume.encode(moved) }])).toEqual(stray);
  });

  it("of another node's disk is left to that", () => {
    expect(strays([], uuid(4))).toEqual([]);
  });

  it('of a replica that a volume has, or that is yet to be deleted, stays', () => {
    expect(strays([put])).toEqual([]);
    expect(strays([{ ...put, text: codecs.volume.encode({ ...volume, phase: 'deleting' }) }])).toEqual([]);
    expect(strays([{ key: keys.tombstone(replica), text: codecs.tombstone.encode(tombstone) }])).toEqual([]);
  });

  it('stays when its volume cannot be read: a replica that was lost would be made again, empty', () => {
    expect(strays([{ ...put, text: '{"format":99}' }])).toEqual([]);
    expect(strays([{ key: keys.tombstone(replica), text: '{' }])).toEqual([]);
  });
});
