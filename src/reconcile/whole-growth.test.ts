// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type GrowingSize, type Leadership, type VolumeObject } from '../model/objects.js';
import { partBytesAt, planWholeWish, servedToSome, wholeSize, whyNotGrown } from './whole-growth.js';

const mib = 2 ** 20;
const id = (last: number): string => `00000000-0000-0000-0000-${String(last).padStart(12, '0')}`;
const [parts, fronts] = [
  [id(11), id(12)],
  [id(21), id(22)],
];

function volumeOf(name: string, sizeBytes: number, rest: Partial<VolumeObject>): VolumeObject {
  return {
    format: 1,
    id: id(1),
    name,
    sizeBytes,
    blockSizeBytes: 4096,
    stripeSizeBytes: 65536,
    copies: 2,
    legSizeBytes: 2 * mib,
    legs: [],
    controllers: [],
    hosts: [],
    nbd: [],
    phase: 'live',
    ...rest,
  };
}

const whole = volumeOf('v1', 4 * mib, { parts, fronts });

/** Of a volume of 4 MiB; what its parts and fronts say of their sizes. */
function stateWith(sizes: Readonly<Record<string, GrowingSize>>): ClusterState {
  const state = new ClusterState();
  state.apply(keys.volume(whole.id), codecs.volume.encode(whole), 1);
  for (const part of parts) {
    const text = codecs.volume.encode(volumeOf(`v1.${part.at(-1)}`, 2 * mib, { id: part, partOf: whole.id }));
    state.apply(keys.volume(part), text, 1);
  }
  for (const driven of [...parts, ...fronts]) {
    const led: Leadership = {
      format: 1,
      volumeId: driven,
      epoch: 1,
      controller: null,
      instance: null,
      clean: true,
      leaseMs: 300,
      legs: [],
    };
    const size = sizes[driven];
    state.apply(keys.leadership(driven), codecs.leadership.encode(size === undefined ? led : { ...led, size }), 2);
  }
  return state;
}

const of = (servedBytes: number, wantedBytes: number, growing = false): GrowingSize => ({
  servedBytes: servedBytes * mib,
  wantedBytes: wantedBytes * mib,
  growing,
});
const [part0, part1] = parts as [string, string];
const [front0, front1] = fronts as [string, string];

describe('the size of a volume with several active controllers', () => {
  const cases: [string, Record<string, GrowingSize>, { wanted: number; growing: boolean; some: number }][] = [
    ['nobody asked', {}, { wanted: 4, growing: false, some: 4 }],
    [
      'nobody has begun',
      { [part0]: of(2, 4), [part1]: of(2, 4), [front0]: of(4, 8), [front1]: of(4, 8) },
      { wanted: 8, growing: false, some: 4 },
    ],
    [
      'a part has begun',
      { [part0]: of(2, 4, true), [part1]: of(2, 4), [front0]: of(4, 8), [front1]: of(4, 8) },
      { wanted: 8, growing: true, some: 4 },
    ],
    [
      'a part has ended',
      { [part0]: of(4, 4), [part1]: of(2, 4), [front0]: of(4, 8), [front1]: of(4, 8) },
      { wanted: 8, growing: true, some: 4 },
    ],
    [
      'a front has ended',
      { [part0]: of(4, 4), [part1]: of(4, 4), [front0]: of(8, 8), [front1]: of(4, 8) },
      { wanted: 8, growing: true, some: 8 },
    ],
    [
      'all have ended',
      { [part0]: of(4, 4), [part1]: of(4, 4), [front0]: of(8, 8), [front1]: of(8, 8) },
      { wanted: 8, growing: false, some: 8 },
    ],
  ];

  it.each(cases)('%s', (_, sizes, { wanted, growing, some }) => {
    const state = stateWith(sizes);
    expect(wholeSize(state, whole)).toEqual({ servedBytes: 4 * mib, wantedBytes: wanted * mib, growing });
    expect(servedToSome(state, whole)).toBe(some * mib);
  });

  it('is said when every front serves it', () => {
    const all = { [part0]: of(4, 4), [part1]: of(4, 4), [front0]: of(8, 8) };
    expect(whyNotGrown(stateWith({ ...all, [front1]: of(4, 8) }), whole, 8 * mib)).toMatch(/^front 1 /);
    expect(whyNotGrown(stateWith({ ...all, [front1]: of(8, 8) }), whole, 8 * mib)).toBeNull();
  });

  it('is wanted of all at once, of parts what each of them has to hold', () => {
    const puts = planWholeWish(stateWith({}), whole, 5 * mib);
    const wanted = puts?.map(({ key, text }) => codecs.leadership.decode(text, key).size?.wantedBytes);
    expect(wanted).toEqual([3 * mib, 3 * mib, 5 * mib, 5 * mib]);
    expect(partBytesAt(whole, 5 * mib)).toBe(3 * mib);
    const state = stateWith({});
    state.apply(keys.leadership(front1), null, 3);
    expect(planWholeWish(state, whole, 5 * mib)).toBeNull();
  });
});
