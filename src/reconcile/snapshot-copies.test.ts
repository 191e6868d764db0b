// SPDX-License-Identifier: Apache-2.0
// Copies of snapshots of legs with parity: each disk of the leg has one, and no two have the same place.

import { beforeEach, describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import type { SnapshotObject } from '../model/snapshots.js';
import {
  copyExports,
  copyLvol,
  isReady,
  planMade,
  planMaking,
  planSource,
  planSurplus,
  sourcesOf,
} from './snapshot-copies.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const replica = (n: number): string => `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
const disk = (n: number): string => uuid(100 + n);
const node = (n: number): string => `d${n}`;
const mib = 2 ** 20;

/** One leg of 2+1; replica n is on disk n % 10. */
class Bed {
  readonly state = new ClusterState();
  #revision = 0;

  constructor() {
    for (let n = 0; n < 6; n++) this.up(n, true);
    this.place([0, 1, 2]);
    this.snapshot = {
      format: 1,
      id: uuid(9),
      name: 's',
      volumeId: uuid(1),
      phase: 'ready',
      createdAtMs: 1,
      failedCount: 0,
      leftovers: [],
      cut: {
        attempt: 'abcdef01',
        epoch: 7,
        identity: uuid(1),
        copies: [0, 1, 2].map((n) => ({ leg: 0, replica: replica(n), disk: disk(n), node: node(n), place: n })),
      },
    };
  }

  get snapshot(): SnapshotObject {
    const found = this.state.get('snapshots', uuid(9));
    if (found === null) throw new Error('it is gone');
    return found;
  }
  set snapshot(snapshot: SnapshotObject) {
    this.#put(keys.snapshot(snapshot.id), codecs.snapshot.encode(snapshot));
  }

  #put(key: string, text: string | null): void {
    this.state.apply(key, text, ++this.#revision);
  }

  up(n: number, isUp: boolean): void {
    const address = { traddr: '127.0.0.1', trsvcid: '4420' };
    const live = { kind: 'node' as const, incarnation: '1', engine: 'e', hosts: null, draining: false };
    const text = codecs.live.encode({ format: 1, name: node(n), ...live, roles: ['disk'], internal: address });
    this.#put(keys.live(node(n)), isUp ? text : null);
  }

  /** The leg's replicas, all in sync; `leaving` ones beside them. */
  place(staying: readonly number[], leaving: readonly number[] = []): void {
    const placed = (n: number) => ({ replica: replica(n), disk: disk(n % 10), node: node(n % 10) });
    const replicas = [...staying.map(placed), ...leaving.map((n) => ({ ...placed(n), leaving: true as const }))];
    const volume: VolumeObject = {
      format: 1,
      id: uuid(1),
      name: 'v',
      sizeBytes: 4 * mib,
      blockSizeBytes: 4096,
      stripeSizeBytes: 65536,
      copies: 1,
      erasure: { data: 2, parity: 1 },
      legSizeBytes: 5 * mib,
      legs: [{ replicas }],
      controllers: [],
      hosts: [],
      nbd: [],
      phase: 'live',
    };
    const leadership: Leadership = {
      format: 1,
      volumeId: uuid(1),
      epoch: 7,
      controller: 'c1',
      instance: uuid(2),
      clean: false,
      leaseMs: 300,
      needs: 2,
      legs: [{ inSync: staying.map((n) => ({ replica: replica(n), incarnation: 'i' })) }],
    };
    this.#put(keys.volume(volume.id), codecs.volume.encode(volume));
    this.#put(keys.leadership(volume.id), codecs.leadership.encode(leadership));
  }

  /** What is due on one disk, when it is up; a copy is made at once. */
  work(n: number): void {
    if (this.state.get('lives', node(n)) === null) return;
    this.snapshot = planMaking(this.state, this.snapshot, disk(n)) ?? this.snapshot;
    for (const entry of (this.snapshot.making ?? []).filter((each) => each.disk === disk(n))) {
      const { snapshot } = this;
      if (isReady(snapshot) && sourcesOf(this.state, snapshot, entry).length > 0)
        this.snapshot = planMade(snapshot, entry) ?? snapshot;
    }
    const leftovers = this.snapshot.leftovers.filter((each) => each.node !== node(n));
    this.snapshot = { ...this.snapshot, leftovers };
  }

  surplus(): void {
    this.snapshot = planSurplus(this.state, this.snapshot) ?? this.snapshot;
  }

  /** Until nothing is due. */
  settle(): void {
    for (let turn = 0; turn < 50; turn++) {
      const before = JSON.stringify(this.snapshot);
      for (let n = 0; n < 6; n++) this.work(n);
      this.surplus();
      if (JSON.stringify(this.snapshot) === before) return;
    }
    throw new Error('it does not come to rest');
  }

  /** Place by disk. */
  get places(): Record<string, number | undefined> {
    return Object.fromEntries((this.snapshot.cut?.copies ?? []).map((copy) => [copy.node, copy.place]));
  }
}

describe('copies of a leg with parity', () => {
  let bed: Bed;
  beforeEach(() => {
    bed = new Bed();
  });

  it('are moved where the one with the same place can be read', () => {
    bed.place([0, 1, 3], [2]);
    const making = planMaking(bed.state, bed.snapshot, disk(3));
    expect(making?.making).toEqual([
      { leg: 0, replica: replica(3), disk: disk(3), node: 'd3', from: replica(2), place: 2 },
    ]);
    bed.settle();
    expect(bed.places).toEqual({ d0: 0, d1: 1, d3: 2 });
    expect(planMaking(bed.state, bed.snapshot, disk(3))).toBeNull();
  });

  it('are recomputed from as many others as there are data members, which are exported for that', () => {
    bed.up(2, false);
    bed.place([0, 1, 3], [2]);
    bed.snapshot = planMaking(bed.state, bed.snapshot, disk(3)) ?? bed.snapshot;
    const { snapshot } = bed;
    const [entry] = snapshot.making ?? [];
    if (entry === undefined || !isReady(snapshot)) throw new Error('it is not made');
    expect(entry).toMatchObject({ place: 2, from: replica(0) });
    expect(sourcesOf(bed.state, snapshot, entry).map(({ place }) => place)).toEqual([0, 1]);
    const readable = copyExports(bed.state, new Set([disk(0), disk(1)]));
    expect(readable.map(({ lvol }) => lvol)).toEqual([0, 1].map((n) => copyLvol(snapshot, replica(n))));
    // The one that has the place is back: it is read instead.
    bed.up(2, true);
    expect(planSource(bed.state, snapshot, entry).making).toMatchObject([{ from: replica(2) }]);
  });

  it('are not begun where too few others can be read', () => {
    bed.up(1, false);
    bed.up(2, false);
    bed.place([0, 1, 3], [2]);
    expect(planMaking(bed.state, bed.snapshot, disk(3))).toBeNull();
  });

  it('go where another one has their place, and not where that one is away', () => {
    bed.up(2, false);
    bed.place([0, 1, 3], [2]);
    bed.settle();
    // It could not be asked; when it is back, it goes.
    expect(bed.places).toEqual({ d0: 0, d1: 1, d3: 2 });
    expect(bed.snapshot.leftovers.map((each) => each.node)).toEqual(['d2']);
    bed.place([0, 1, 4], [3]);
    bed.up(3, false);
    const planned = planSurplus(bed.state, bed.snapshot);
    expect(planned, 'the only one with its place').toBeNull();
  });

  it('have one of each place on the disks of the leg whatever way replicas went', () => {
    const random = new SeededRandom(7n);
    let homes = [0, 1, 2];
    let next = 10;
    for (let step = 0; step < 300; step++) {
      const at = random.between(0, 2);
      const free = [0, 1, 2, 3, 4, 5].filter((n) => !homes.some((home) => home % 10 === n));
      const to = random.pick(free) + next;
      next += 10;
      const old = homes[at] ?? 0;
      homes = homes.map((home, index) => (index === at ? to : home));
      bed.place(homes, random.chance(0.5) ? [old] : []);
      const away = random.chance(0.6) ? random.between(0, 5) : null;
      if (away !== null) bed.up(away, false);
      for (let turn = random.between(0, 8); turn > 0; turn--) {
        if (random.chance(0.3)) bed.surplus();
        else bed.work(random.between(0, 5));
      }
      if (away !== null) bed.up(away, true);
      if (random.chance(0.6)) continue;
      bed.place(homes);
      bed.settle();
      const there = (bed.snapshot.cut?.copies ?? []).map((copy) => [copy.disk, copy.place] as const);
      expect(there.map(([on]) => on).sort()).toEqual(homes.map((home) => disk(home % 10)).sort());
      expect(new Set(there.map(([, place]) => place)).size, JSON.stringify(bed.places)).toBe(3);
    }
  });
});
