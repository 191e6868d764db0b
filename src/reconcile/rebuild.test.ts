// SPDX-License-Identifier: Apache-2.0
// Whatever the order of copies, losses and returns: no replica in a set is dropped, limits hold, and it ends.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type MemberState, type VolumeObject } from '../model/objects.js';
import { pgsOfVolume } from '../placement/pool.js';
import { planRetire } from './membership.js';
import { planRebuild, type RebuildLimits, type VolumeChange } from './rebuild.js';

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const poolId = uuid(1);
const mib = 2 ** 20;
const pgCount = 8;
const nodeNames = ['n0', 'n1', 'n2', 'n3', 'n4'];
const diskOf = (node: number): string => uuid(100 + node);

/** A store, with volumes of two copies over nodes of one disk each. */
class World {
  readonly state = new ClusterState();
  readonly lost = new Set<string>();
  limits: RebuildLimits = { rebuildsMax: 2, rebuildsPerDiskMax: 2 };
  /** On dead disks of nodes that are up. */
  readonly #dead = new Set<string>();
  #next = 1_000;
  #revision = 1;

  constructor(nodes: number, volumes: number) {
    for (let node = 0; node < nodes; node++) {
      this.setUp(node, true);
      this.#put(
        keys.disk(diskOf(node)),
        codecs.disk.encode({ ...blankDisk, id: diskOf(node), node: nodeNames[node] ?? '' }),
      );
    }
    this.#put(keys.pool(poolId), codecs.pool.encode(blankPool));
    this.setMap(Array.from({ length: nodes }, (_, node) => node));
    for (let volume = 0; volume < volumes; volume++) this.#addVolume(volume);
  }

  readonly newUuid = (): string => uuid(this.#next++);

  setUp(node: number, up: boolean): void {
    const name = nodeNames[node] ?? '';
    const live = { ...blankLive, name };
    this.state.apply(keys.live(name), up ? codecs.live.encode(live) : null, this.#revision++);
  }

  /** PG p on the p-th two of `nodes`, round and round. */
  setMap(nodes: readonly number[]): void {
    const disks = nodeNames.map((node, index) => ({
      id: diskOf(index),
      node,
      domain: node,
      capacityBytes: 1024 * mib,
    }));
    const pgs = Array.from({ length: pgCount }, (_, pg) => [0, 1].map((at) => nodes[(pg + at) % nodes.length] ?? 0));
    this.#put(keys.pgMap(poolId), codecs.pgMap.encode({ format: 1, poolId, version: 1, disks, pgs }));
  }

  volumes(): VolumeObject[] {
    return this.state.all('volumes');
  }

  leadership(id: string): Leadership {
    const found = this.state.get('leaderships', id);
    if (found === null) throw new Error('no leadership');
    return found;
  }

  plan(): VolumeChange[] {
    return planRebuild({ state: this.state, lostNodes: this.lost, limits: this.limits, newUuid: this.newUuid });
  }

  apply(change: VolumeChange): void {
    const { volume, volumeId, leadership } = change;
    this.#put(keys.volume(volumeId), volume === null ? null : codecs.volume.encode(volume));
    if (leadership !== null) this.#put(keys.leadership(volumeId), codecs.leadership.encode(leadership));
    for (const entry of change.tombstones) this.#put(keys.tombstone(entry.replica), codecs.tombstone.encode(entry));
  }

  /** What the volume's controller does: members that are away leave, successors join, those with successors leave. */
  drive(id: string, joins: boolean): void {
    const volume = this.volumes().find((entry) => entry.id === id);
    if (volume === undefined) return;
    const up = (replica: string): boolean =>
      volume.legs.some((leg) =>
        leg.replicas.some((entry) => entry.replica === replica && this.state.get('lives', entry.node) !== null),
      ) && !this.#dead.has(replica);
    const present = this.leadership(id);
    const legs = present.legs.map(({ inSync }, leg) => {
      const reachable = inSync.filter((entry) => up(entry.replica));
      const kept = reachable.length > 0 ? reachable : inSync;
      const out = volume.legs[leg]?.replicas.filter(
        (entry) =>
          entry.leaving !== true && up(entry.replica) && !kept.some((known) => known.replica === entry.replica),
      );
      // A copy needs a source.
      const joined = joins && reachable.length > 0 ? (out ?? []).slice(0, 1) : [];
      return { inSync: [...kept, ...joined.map(({ replica }) => ({ replica, incarnation: 'x' }))] };
    });
    const next = { ...present, legs };
    const going = new Set(planRetire(next, volume.legs).map((entry) => entry.replica));
    const retired = legs.map(({ inSync }) => ({ inSync: inSync.filter((entry) => !going.has(entry.replica)) }));
    this.#put(keys.leadership(id), codecs.leadership.encode({ ...next, legs: retired }));
  }

  /** These left their sets, and cannot be had, although their nodes are up. */
  leave(id: string, gone: ReadonlySet<string>): void {
    const present = this.leadership(id);
    const legs = present.legs.map(({ inSync }) => ({ inSync: inSync.filter(({ replica }) => !gone.has(replica)) }));
    this.#put(keys.leadership(id), codecs.leadership.encode({ ...present, legs }));
    for (const replica of gone) this.#dead.add(replica);
  }

  /** What the volume's controller says of these replicas. */
  show(id: string, states: ReadonlyMap<string, MemberState>): void {
    const legs = this.volumes()
      .find((entry) => entry.id === id)
      ?.legs.map(({ replicas }) =>
        replicas.map(({ replica }) => ({ replica, state: states.get(replica) ?? ('in_sync' as const) })),
      );
    const seen = { format: 1 as const, volumeId: id, node: 'n0', state: 'active' as const, epoch: 1, address: null };
    const text = codecs.observedVolume.encode({ ...seen, resyncing: false, legs: legs ?? [], nbd: [], problem: null });
    this.#put(keys.observedVolume(id, 'n0'), text);
  }

  #put(key: string, text: string | null): void {
    this.state.apply(key, text, this.#revision++);
  }

  #addVolume(index: number): void {
    const id = uuid(10 + index);
    const route = [{ ...blankRange, seed: index * 7 + 1 }];
    const map = this.state.get('pgMaps', poolId);
    const legs = pgsOfVolume({ route } as unknown as VolumeObject, pgCount).map((pg) => ({
      replicas: (map?.pgs[pg] ?? []).map((disk) => ({
        replica: this.newUuid(),
        disk: diskOf(disk),
        node: nodeNames[disk] ?? '',
      })),
    }));
    const volume: VolumeObject = { ...blankVolume, id, name: `v${index}`, legs, route };
    this.#put(keys.volume(id), codecs.volume.encode(volume));
    const inSync = legs.map((leg) => ({ inSync: leg.replicas.map(({ replica }) => ({ replica, incarnation: 'x' })) }));
    this.#put(keys.leadership(id), codecs.leadership.encode({ ...blankLeadership, volumeId: id, legs: inSync }));
  }
}

const blankRange = {
  startBytes: 0,
  lengthBytes: 2 * mib,
  stripeSizeBytes: 65536,
  firstLeg: 0,
  legCount: 2,
  legOffsetBytes: 0,
  seed: 1,
  conflict: 'spread' as const,
};
const blankDisk = {
  format: 1 as const,
  id: '',
  cluster: uuid(2),
  node: '',
  path: '/d',
  lvstore: 'l',
  clusterSizeBytes: mib,
  totalBytes: 1024 * mib,
  freeBytes: 1024 * mib,
  buffered: false,
};
const blankPool = {
  format: 1 as const,
  id: poolId,
  name: 'p',
  redundancy: { kind: 'copies' as const, copies: 2 },
  domain: 'node' as const,
  selector: { class: null, tags: [] },
  pgCount,
};
const blankLive = {
  format: 1 as const,
  name: '',
  kind: 'node' as const,
  incarnation: 'x',
  engine: 'fake',
  roles: [],
  internal: null,
  hosts: null,
  draining: false,
};
const blankVolume = {
  format: 1 as const,
  id: '',
  name: '',
  sizeBytes: 2 * mib,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 2,
  legSizeBytes: mib,
  legs: [],
  pool: poolId,
  controllers: ['n0'],
  hosts: [],
  nbd: [],
  phase: 'live' as const,
};
const blankLeadership = {
  format: 1 as const,
  volumeId: '',
  epoch: 1,
  controller: 'n0',
  instance: uuid(3),
  clean: false,
  leaseMs: 300,
  legs: [],
};

function inSyncReplicas(world: World, id: string): string[] {
  return world.leadership(id).legs.flatMap((leg) => leg.inSync.map((entry) => entry.replica));
}

function rebuilding(world: World): number {
  return world.volumes().reduce((sum, volume) => {
    const inSync = new Set(inSyncReplicas(world, volume.id));
    const legs = volume.legs.filter((leg) =>
      leg.replicas.some(
        (entry) =>
          entry.leaving !== true && !inSync.has(entry.replica) && world.state.get('lives', entry.node) !== null,
      ),
    );
    return sum + legs.length;
  }, 0);
}

/** Applies the plan, holding every change to the invariants. */
function step(world: World): number {
  const changes = world.plan();
  for (const change of changes) {
    const before = inSyncReplicas(world, change.volumeId);
    const volume = change.volume;
    const left = new Set(volume?.legs.flatMap((leg) => leg.replicas.map((entry) => entry.replica)));
    expect(before.every((replica) => left.has(replica))).toBe(true);
    world.apply(change);
  }
  return changes.length;
}

function settle(world: World): void {
  for (let round = 0; round < 200; round++) {
    for (const { id } of world.volumes()) world.drive(id, true);
    if (step(world) === 0 && rebuilding(world) === 0) return;
  }
  throw new Error('it does not end');
}

function expectFollowed(world: World): void {
  const map = world.state.get('pgMaps', poolId);
  for (const volume of world.volumes()) {
    const wanted = pgsOfVolume(volume, pgCount).map((pg) => (map?.pgs[pg] ?? []).map((disk) => diskOf(disk)).sort());
    expect(volume.legs.map((leg) => leg.replicas.map((entry) => entry.disk).sort())).toEqual(wanted);
  }
}

describe('rebuilding', () => {
  it('ends where the map says, drops nothing that is in a set, and then plans nothing more', () => {
    const events = fc.array(
      fc.oneof(
        fc.record({ do: fc.constant('lose' as const), node: fc.integer({ min: 1, max: 4 }) }),
        fc.record({ do: fc.constant('return' as const), node: fc.integer({ min: 1, max: 4 }) }),
        fc.record({ do: fc.constant('drive' as const), volume: fc.nat(5), joins: fc.boolean() }),
        fc.record({ do: fc.constant('plan' as const) }),
      ),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(events, (list) => {
        const world = new World(5, 6);
        for (const event of list) {
          if (event.do === 'lose' && world.lost.size < 2) {
            world.setUp(event.node, false);
            world.lost.add(nodeNames[event.node] ?? '');
          } else if (event.do === 'return') {
            world.setUp(event.node, true);
            world.lost.delete(nodeNames[event.node] ?? '');
          } else if (event.do === 'drive') world.drive(uuid(10 + event.volume), event.joins);
          else if (event.do === 'plan') step(world);
          world.setMap([0, 1, 2, 3, 4].filter((node) => !world.lost.has(nodeNames[node] ?? '')));
        }
        // What was lost for good while it was the last copy of a leg stays lost: let everything return.
        for (const node of [1, 2, 3, 4]) world.setUp(node, true);
        settle(world);
        expectFollowed(world);
        expect(world.plan()).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  it('starts no more legs than it may, and none on a disk that has its number', () => {
    const world = new World(5, 6);
    world.setUp(2, false);
    world.lost.add('n2');
    for (const { id } of world.volumes()) world.drive(id, false);
    world.setMap([0, 1, 3, 4]);
    for (const rebuildsMax of [0, 1, 3]) {
      world.limits = { rebuildsMax, rebuildsPerDiskMax: 100 };
      const legs = world.plan().flatMap((change) => change.volume?.legs ?? []);
      expect(legs.filter((leg) => leg.replicas.some((entry) => entry.leaving === true))).toHaveLength(rebuildsMax);
    }
    world.limits = { rebuildsMax: 100, rebuildsPerDiskMax: 1 };
    const fresh = world.plan().flatMap((change) => {
      const known = new Set(
        world
          .volumes()
          .find((volume) => volume.id === change.volumeId)
          ?.legs.flatMap((leg) => leg.replicas.map((entry) => entry.replica)),
      );
      return change.volume?.legs.flatMap((leg) => leg.replicas.filter((entry) => !known.has(entry.replica))) ?? [];
    });
    expect(new Set(fresh.map((entry) => entry.disk)).size).toBe(fresh.length);
  });

  it('begins with what has the fewest good copies, and with losses before moves', () => {
    const world = new World(5, 6);
    world.setUp(2, false);
    world.lost.add('n2');
    for (const { id } of world.volumes()) world.drive(id, false);
    world.setMap([4, 3, 1, 0]);
    world.limits = { rebuildsMax: 1, rebuildsPerDiskMax: 1 };
    const [first] = world.plan();
    const leg = first?.volume?.legs.find((entry) => entry.replicas.some(({ leaving }) => leaving === true));
    expect(leg?.replicas.some((entry) => entry.node === 'n2')).toBe(true);
  });

  it('goes on without what a dead disk of a node that is up held, once the map has others, and waits for what is copied', () => {
    const world = new World(5, 1);
    world.limits = { rebuildsMax: 1, rebuildsPerDiskMax: 1 };
    const [volume] = world.volumes();
    const held = volume?.legs.flatMap((leg) => leg.replicas).filter(({ disk }) => disk === diskOf(2)) ?? [];
    expect(held.length).toBeGreaterThan(0);
    const id = volume?.id ?? '';
    const gone = new Set(held.map(({ replica }) => replica));
    world.leave(id, gone);
    // It may come back as long as the map names it.
    expect(world.plan()).toEqual([]);
    world.setMap([0, 1, 3, 4]);
    world.show(id, new Map([...gone].map((replica) => [replica, 'joining'])));
    expect(world.plan()).toEqual([]);
    world.show(id, new Map([...gone].map((replica) => [replica, 'out'])));
    expect(world.plan()).toHaveLength(1);
    settle(world);
    expectFollowed(world);
  });

  it('waits for a controller where nobody drives the volume', () => {
    const world = new World(5, 1);
    world.setUp(0, false);
    world.setMap([1, 2, 3, 4]);
    expect(world.plan()).toEqual([]);
  });
});
