// SPDX-License-Identifier: Apache-2.0
// Copies of snapshots: each disk of the leg has one, of legs with parity none with another one's place; what cannot be read
// is neither counted on nor waited for.

import { beforeEach, describe, expect, it } from 'vitest';
import { SeededRandom } from '../env/seeded-random.js';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import { onePerPlace, type SnapshotCopy, type SnapshotObject } from '../model/snapshots.js';
import { copyWaitingFor } from './drain.js';
import { planRollback } from './rollback.js';
import {
  copyExports,
  copyLvol,
  isReady,
  planMade,
  planMaking,
  planSource,
  planSurplus,
  type ReadySnapshot,
  sourcesOf,
} from './snapshot-copies.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const replica = (n: number): string => `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
const disk = (n: number): string => uuid(100 + n);
const node = (n: number): string => `d${n}`;
const mib = 2 ** 20;

/** One leg, of 2+1 or three copies; replica n is on disk n % 10. */
class Bed {
  readonly state = new ClusterState();
  readonly #erasure: VolumeObject['erasure'] | undefined;
  #revision = 0;

  constructor(redundancy: 'coded' | 'mirrored' = 'coded') {
    this.#erasure = redundancy === 'coded' ? { data: 2, parity: 1 } : undefined;
    for (let n = 0; n < 6; n++) {
      this.up(n, true);
      this.has(n, true);
    }
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
        copies: [0, 1, 2].map((n) => {
          const copy = { leg: 0, replica: replica(n), disk: disk(n), node: node(n) };
          return this.#erasure === undefined ? copy : { ...copy, place: n };
        }),
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

  /** Its disk is one of the cluster's, at that node. */
  has(n: number, isThere: boolean, at = node(n)): void {
    const bytes = { clusterSizeBytes: mib, totalBytes: 8 * mib, freeBytes: 8 * mib, buffered: false };
    const object = { id: disk(n), cluster: uuid(3), node: at, path: '/d', lvstore: 'l' };
    this.#put(keys.disk(disk(n)), isThere ? codecs.disk.encode({ format: 1, ...object, ...bytes }) : null);
  }

  /** The leg's replicas, all in sync but those that are `out`; `leaving` ones beside them. */
  place(staying: readonly number[], leaving: readonly number[] = [], out: readonly number[] = []): void {
    const placed = (n: number) => ({ replica: replica(n), disk: disk(n % 10), node: node(n % 10) });
    const replicas = [...staying.map(placed), ...leaving.map((n) => ({ ...placed(n), leaving: true as const }))];
    const volume: VolumeObject = {
      format: 1,
      id: uuid(1),
      name: 'v',
      sizeBytes: 4 * mib,
      blockSizeBytes: 4096,
      stripeSizeBytes: 65536,
      ...(this.#erasure === undefined ? { copies: 3 } : { copies: 1, erasure: this.#erasure }),
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
      ...(this.#erasure === undefined ? {} : { needs: this.#erasure.data }),
      legs: [
        { inSync: staying.filter((n) => !out.includes(n)).map((n) => ({ replica: replica(n), incarnation: 'i' })) },
      ],
    };
    this.#put(keys.volume(volume.id), codecs.volume.encode(volume));
    this.#put(keys.leadership(volume.id), codecs.leadership.encode(leadership));
  }

  copy(n: number): SnapshotCopy {
    const found = this.snapshot.cut?.copies.find((each) => each.replica === replica(n));
    if (found === undefined) throw new Error(`no copy ${n}`);
    return found;
  }

  /** Handed back in good order, for that job. */
  suspend(jobId: string): void {
    const volume = this.state.get('volumes', uuid(1));
    const led = this.state.get('leaderships', uuid(1));
    if (volume === null || led === null) throw new Error('no volume');
    this.#put(keys.volume(volume.id), codecs.volume.encode({ ...volume, suspended: jobId }));
    this.#put(
      keys.leadership(volume.id),
      codecs.leadership.encode({ ...led, controller: null, instance: null, clean: true }),
    );
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

const placesOf = (ways: readonly SnapshotCopy[][]): (number | undefined)[][] =>
  ways.map((way) => way.map(({ place }) => place).sort());

function ready(bed: Bed): ReadySnapshot {
  const { snapshot } = bed;
  if (!isReady(snapshot)) throw new Error('it is not ready');
  return snapshot;
}

describe('a copy', () => {
  it('of a mirror is made of any other one, first of those that were read and serve', () => {
    const bed = new Bed('mirrored');
    bed.place([0, 1, 3], [2]);
    const nodesOf = (doubtful: number[] = []): string[] =>
      sourcesOf(
        bed.state,
        ready(bed),
        { leg: 0, disk: disk(3) },
        new Set(doubtful.map((n) => copyLvol(ready(bed), replica(n)))),
      ).map((way) => way.map((each) => each.node).join());
    expect(nodesOf()).toEqual(['d0', 'd1', 'd2']);
    expect(nodesOf([0])).toEqual(['d1', 'd2', 'd0']);
    // The disk is the cluster's no more, though the node is up.
    bed.has(1, false);
    expect(nodesOf()).toEqual(['d0', 'd2']);
    bed.place([0, 3], [2], [0]);
    expect(nodesOf(), 'nobody knows whether either can be read').toEqual(['d0', 'd2']);
  });

  it('of a mirror goes when all disks of the leg have theirs, and hold what is written', () => {
    const bed = new Bed('mirrored');
    bed.place([0, 1]);
    expect(planSurplus(bed.state, bed.snapshot)?.leftovers.map((each) => each.node)).toEqual(['d2']);
    bed.place([0, 1], [], [1]);
    expect(planSurplus(bed.state, bed.snapshot), 'its disk may be dead').toBeNull();
    bed.place([0, 1]);
    bed.has(1, false);
    expect(planSurplus(bed.state, bed.snapshot), 'its disk is gone').toBeNull();
  });

  it('is preferred where the leg stays, among those of one place', () => {
    const bed = new Bed();
    const second = { ...bed.copy(2), disk: disk(4), node: node(4), replica: replica(4) };
    const copies = [bed.copy(0), bed.copy(2), second];
    expect(onePerPlace(copies)).toEqual([bed.copy(0), bed.copy(2)]);
    expect(onePerPlace(copies, (copy) => copy === second)).toEqual([bed.copy(0), second]);
  });
});

describe.each(['mirrored', 'coded'] as const)(
  'copies (%s) on a disk that was carried to another node',
  (redundancy) => {
    let bed: Bed;
    beforeEach(() => {
      bed = new Bed(redundancy);
      bed.has(2, true, node(5));
    });
    const sources = (): string[] =>
      sourcesOf(bed.state, ready(bed), { leg: 0, disk: disk(3), place: bed.copy(2).place })[0]?.map(
        (each) => each.disk,
      ) ?? [];

    it('are up while that one is, and read and made there', () => {
      bed.up(2, false);
      bed.up(0, false);
      bed.up(1, false);
      expect(sources()).toEqual([disk(2)]);
      bed.up(2, true);
      bed.up(5, false);
      expect(sources()).toEqual([]);
      // A replica was placed there when it was elsewhere.
      for (const n of [0, 1, 5]) bed.up(n, true);
      bed.snapshot = { ...bed.snapshot, cut: { ...ready(bed).cut, copies: [bed.copy(0), bed.copy(1)] } };
      bed.snapshot = planMaking(bed.state, bed.snapshot, disk(2)) ?? bed.snapshot;
      expect(bed.snapshot.making).toMatchObject([{ disk: disk(2), node: node(5) }]);
      expect(copyExports(bed.state, new Set([disk(0)]))).toMatchObject([{ disk: disk(0), readers: [node(5)] }]);
    });

    it('begin the replicas of a volume that goes back to them there', () => {
      bed.snapshot = { ...bed.snapshot, shape: { sizeBytes: 4 * mib, legSizeBytes: 5 * mib } };
      bed.suspend(uuid(50));
      let drawn = 60;
      const step = planRollback(bed.state, {
        jobId: uuid(50),
        volumeId: uuid(1),
        snapshotId: uuid(9),
        swapped: false,
        newUuid: () => uuid(drawn++),
      });
      if (step.do !== 'swap') throw new Error(JSON.stringify(step));
      const put = step.step.put.find(({ key }) => key === keys.volume(uuid(1)));
      const made = codecs.volume
        .decode(put?.text ?? '', 'v')
        .legs[0]?.replicas.filter(({ leaving }) => leaving !== true);
      expect(made?.map((entry) => [entry.disk, entry.node, entry.source !== undefined])).toEqual([
        [disk(0), node(0), true],
        [disk(1), node(1), true],
        [disk(2), node(5), true],
      ]);
    });
  },
);

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
    expect(placesOf(sourcesOf(bed.state, snapshot, entry))).toEqual([[0, 1]]);
    const readable = copyExports(bed.state, new Set([disk(0), disk(1)]));
    expect(readable.map(({ lvol }) => lvol)).toEqual([0, 1].map((n) => copyLvol(snapshot, replica(n))));
    // The one that has the place is back: it is read instead.
    bed.up(2, true);
    expect(planSource(bed.state, snapshot, entry).making).toMatchObject([{ from: replica(2) }]);
  });

  it('are recomputed when the one that has the place could not be read, or its disk is gone while its node is up', () => {
    bed.place([0, 1, 3], [2]);
    const at = { leg: 0, disk: disk(3), place: 2 };
    const ways = (...doubtful: number[]): (number | undefined)[][] => {
      const lvols = new Set(doubtful.map((n) => copyLvol(ready(bed), replica(n))));
      return placesOf(sourcesOf(bed.state, ready(bed), at, lvols));
    };
    // What can be read of it is still of use.
    expect(ways()).toEqual([[2], [0, 1, 2]]);
    expect(ways(2)).toEqual([[0, 1, 2]]);
    expect(ways(0)).toEqual([[2], [0, 1, 2]]);
    bed.up(1, false);
    expect(ways(2), 'there is no other way').toEqual([[2]]);
    bed.up(1, true);
    bed.has(2, false);
    expect(ways()).toEqual([[0, 1]]);
    expect(planMaking(bed.state, bed.snapshot, disk(3))?.making).toMatchObject([{ place: 2, from: replica(0) }]);
    bed.settle();
    expect(bed.places).toEqual({ d0: 0, d1: 1, d3: 2 });
  });

  it('are kept while the only other one with their place is on a disk that may be dead', () => {
    bed.place([0, 1, 3], [2]);
    bed.snapshot = planMaking(bed.state, bed.snapshot, disk(3)) ?? bed.snapshot;
    const [entry] = bed.snapshot.making ?? [];
    if (entry === undefined) throw new Error('it is not made');
    bed.snapshot = planMade(bed.snapshot, entry) ?? bed.snapshot;
    bed.place([0, 1, 3], [2], [3]);
    expect(planSurplus(bed.state, bed.snapshot)).toBeNull();
    bed.place([0, 1, 3], [2]);
    expect(planSurplus(bed.state, bed.snapshot)?.leftovers.map((each) => each.node)).toEqual(['d2']);
  });

  it('are made first of places that no disk has', () => {
    bed.place([0, 3, 4], [1, 2]);
    expect(planMaking(bed.state, bed.snapshot, disk(3))?.making).toMatchObject([{ place: 1, from: replica(1) }]);
    bed.up(2, false);
    expect(planMaking(bed.state, bed.snapshot, disk(3))?.making).toMatchObject([{ place: 2, from: replica(0) }]);
    bed.up(0, false);
    expect(planMaking(bed.state, bed.snapshot, disk(3))?.making, 'it cannot be recomputed').toMatchObject([
      { place: 1, from: replica(1) },
    ]);
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

  it('keep a drain waiting as long as too few can be read, which it says', () => {
    const why = (): string | null => copyWaitingFor(bed.state, new Set([disk(2)]));
    bed.up(0, false);
    bed.up(1, false);
    expect(why(), 'it is read itself').toBe('copies of v@s are made on other disks');
    bed.up(2, false);
    bed.up(1, true);
    expect(why()).toBe('fewer than 2 copies of v@s can be read: delete it, or bring one back');
    bed.up(0, true);
    expect(why()).toBe('copies of v@s are made on other disks');
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
