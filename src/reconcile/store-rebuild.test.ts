// SPDX-License-Identifier: Apache-2.0
//
// Goal: what disks say becomes the store that was lost, and never more than they can be sure of. Method: disks that are made
// up, each with a copy of the configuration as of some revision and notes of sets; what the planner makes of them.

import { describe, expect, it } from 'vitest';
import type { ConfigurationCopy } from '../model/configuration-copy.js';
import { firstEpoch, generationMax } from '../model/generation.js';
import { keys } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import type { SetNote } from '../model/set-note.js';
import type { RebuildChoice, SurveyedDisk, SurveyedLvol } from '../model/survey.js';
import { planStoreRebuild, type RebuildPlan } from './store-rebuild.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
const cluster = uuid(1);
const v1 = uuid(10);
const v2 = uuid(11);
/** Disk n has replica n of the volume. */
const disk = (n: number): string => uuid(100 + n);
const replica = (n: number): string => uuid(200 + n);
const none: RebuildChoice = { acceptLoss: new Set(), leaveOut: new Set() };

function volume(at: readonly number[], over: Partial<VolumeObject> = {}): VolumeObject {
  const replicas = at.map((n) => ({ replica: replica(n), disk: disk(n), node: `n${n}` }));
  return {
    format: 1,
    id: v1,
    name: 'v1',
    sizeBytes: 2 ** 24,
    blockSizeBytes: 4096,
    stripeSizeBytes: 2 ** 16,
    copies: 2,
    legSizeBytes: 2 ** 24,
    legs: [{ replicas }],
    controllers: ['c1'],
    hosts: [],
    nbd: [],
    phase: 'live',
    ...over,
  };
}

function led(inSync: readonly number[], over: Partial<Leadership> = {}): Leadership {
  const members = inSync.map((n) => ({ replica: replica(n), incarnation: `i${n}` }));
  const id = over.volumeId ?? v1;
  return {
    format: 1,
    volumeId: id,
    epoch: 3,
    controller: 'c1',
    instance: uuid(5),
    clean: false,
    leaseMs: 300,
    legs: [{ inSync: members }],
    ...over,
  };
}

interface Said {
  readonly volumes?: readonly { value: VolumeObject; at?: number }[];
  readonly leaderships?: readonly { value: Leadership; at?: number }[];
  readonly revision?: number;
  readonly generation?: number;
  readonly more?: readonly { key: string; text: string; revision: number }[];
}

function copy(
  n: number,
  { volumes = [], leaderships = [], revision = 50, generation = 0, more = [] }: Said,
): ConfigurationCopy {
  const object = { format: 1, id: cluster, createdAtMs: 7, ...(generation === 0 ? {} : { generation }) } as const;
  const objects = [
    { key: keys.cluster, revision: 1, text: codecs.cluster.encode(object) },
    ...volumes.flatMap(({ value, at = 10 }) => [
      { key: keys.volume(value.id), revision: at, text: codecs.volume.encode(value) },
      {
        key: keys.volumeName(value.name),
        revision: at,
        text: codecs.volumeName.encode({ format: 1, volumeId: value.id }),
      },
    ]),
    ...leaderships.map(({ value, at = 20 }) => ({
      key: keys.leadership(value.volumeId),
      revision: at,
      text: codecs.leadership.encode(value),
    })),
    ...more,
  ];
  return { cluster, generation, revision, disk: disk(n), node: `n${n}`, objects };
}

function note(
  inSync: readonly number[],
  at: { epoch?: number; revision: number; coming?: readonly number[] },
): SetNote {
  const members = inSync.map((n) => ({ replica: replica(n), incarnation: `i${n}` }));
  const { epoch = 3, revision, coming = [] } = at;
  return { volumeId: v1, leg: 0, epoch, revision, inSync: members, coming: coming.map(replica) };
}

function lvol(n: number, kept: SetNote | null, over: Partial<SurveyedLvol> = {}): SurveyedLvol {
  const found = kept === null ? ({ is: 'none' } as const) : ({ is: 'note', note: kept } as const);
  return { name: replica(n), isSnapshot: false, epoch: 3, note: found, ...over };
}

function seen(n: number, said: Said | null, lvols: readonly SurveyedLvol[]): SurveyedDisk {
  const path = `/dev/${n}`;
  return { node: `n${n}`, path, id: disk(n), cluster, copy: said === null ? null : copy(n, said), problems: [], lvols };
}

const both = { volumes: [{ value: volume([1, 2]) }], leaderships: [{ value: led([1, 2]) }] };

function leadershipIn(plan: RebuildPlan): Leadership | null {
  const key = keys.leadership(v1);
  const found = plan.objects.find((object) => object.key === key);
  return found === undefined ? null : codecs.leadership.decode(found.text, key);
}

const inSyncIn = (plan: RebuildPlan): string[] | undefined =>
  leadershipIn(plan)?.legs[0]?.inSync.map(({ replica: id }) => id);
const verdict = (plan: RebuildPlan): string | undefined => plan.volumes[0]?.is;

describe('a store that is rebuilt', () => {
  it('has what was in the one that was lost, of the next generation, the cluster last', () => {
    const set = note([1, 2], { revision: 20 });
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [lvol(2, set)])], none);
    expect(plan).toMatchObject({ cluster, generation: 1, obstacles: [], problems: [], gone: [] });
    expect(plan.volumes).toEqual([{ id: v1, name: 'v1', sizeBytes: 2 ** 24, is: 'whole', problems: [] }]);
    expect(leadershipIn(plan)).toEqual({
      ...led([1, 2]),
      epoch: firstEpoch(1) + 1,
      controller: null,
      instance: null,
      rebuilt: [{ epoch: 3, revision: 20 }],
    });
    const last = plan.objects.at(-1);
    expect(last?.key).toBe(keys.cluster);
    expect(JSON.parse(last?.text ?? '')).toEqual({ format: 1, id: cluster, createdAtMs: 7, generation: 1 });
    expect(plan.objects.map(({ key }) => key)).toContain(keys.volumeName('v1'));
  });

  it('is the same when the disks are asked again, in any order', () => {
    const set = note([1, 2], { revision: 20 });
    const disks = [seen(1, both, [lvol(1, set)]), seen(2, both, [lvol(2, set)])];
    expect(planStoreRebuild([...disks].reverse(), none)).toEqual(planStoreRebuild(disks, none));
  });

  it('is above every generation that any disk has seen', () => {
    const set = note([1, 2], { revision: 20 });
    const late = lvol(2, set, { epoch: firstEpoch(4) + 9 });
    expect(planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [late])], none).generation).toBe(5);
    const last = lvol(2, set, { epoch: firstEpoch(generationMax) + 1 });
    expect(() => planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [last])], none)).toThrow('no later');
  });
});

describe('the set of a leg', () => {
  it('is the newest that any member keeps, whatever the copies say', () => {
    const old = note([1, 2], { revision: 20 });
    const shrunk = note([1], { revision: 30 });
    const plan = planStoreRebuild([seen(1, both, [lvol(1, shrunk)]), seen(2, both, [lvol(2, old)])], none);
    expect([verdict(plan), inSyncIn(plan)]).toEqual(['whole', [replica(1)]]);
  });

  it('is one of a copy when that is newer than what members keep', () => {
    const old = note([1, 2], { revision: 20 });
    const later = { ...both, leaderships: [{ value: led([1]), at: 33 }] };
    const plan = planStoreRebuild([seen(1, both, [lvol(1, old)]), seen(2, later, [lvol(2, old)])], none);
    expect([verdict(plan), inSyncIn(plan)]).toEqual(['whole', [replica(1)]]);
  });

  it('is not known while a member of the newest one was not seen, which may have gone on alone', () => {
    const set = note([1, 2], { revision: 20 });
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)])], none);
    expect(verdict(plan)).toBe('waits');
    expect(plan.obstacles).toEqual([`volume v1: leg 0 needs replica ${replica(2)}, on disk ${disk(2)} of n2`]);
    expect(leadershipIn(plan)).toBeNull();
  });

  it('is not known while one that was about to join was not seen', () => {
    const placed = { ...both, volumes: [{ value: volume([1, 2, 3]) }] };
    const set = note([1, 2], { revision: 20 });
    const announced = note([1, 2], { revision: 20, coming: [3] });
    const disks = [seen(1, placed, [lvol(1, announced)]), seen(2, placed, [lvol(2, set)])];
    expect(verdict(planStoreRebuild(disks, none))).toBe('waits');
    const plan = planStoreRebuild([...disks, seen(3, placed, [lvol(3, null)])], none);
    expect([verdict(plan), inSyncIn(plan)]).toEqual(['whole', [replica(1), replica(2)]]);
  });

  it('is not known when no description names one of its members', () => {
    const set = note([1, 4], { revision: 30 });
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(4, both, [lvol(4, set)])], none);
    expect(verdict(plan)).toBe('waits');
    expect(plan.obstacles[0]).toContain(`no copy of the volume's description names ${replica(4)}`);
  });

  it('is not taken from a disk that was seen without its replica', () => {
    const set = note([1, 2], { revision: 20 });
    expect(verdict(planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [])], none))).toBe('waits');
  });

  it('counts by generations first: revisions of a rebuilt store begin anew', () => {
    const old = note([1, 2], { revision: 900 });
    const young = note([1], { epoch: firstEpoch(1) + 2, revision: 4 });
    const again = {
      ...both,
      generation: 1,
      revision: 5,
      leaderships: [{ value: led([1], { epoch: firstEpoch(1) + 2 }), at: 3 }],
    };
    const plan = planStoreRebuild([seen(1, again, [lvol(1, young)]), seen(2, both, [lvol(2, old)])], none);
    expect([plan.generation, verdict(plan), inSyncIn(plan)]).toEqual([2, 'whole', [replica(1)]]);
  });

  it('is what it was of a volume that nobody has driven, also before its replicas are made', () => {
    const fresh = {
      ...both,
      leaderships: [{ value: led([1, 2], { epoch: 0, controller: null, instance: null, clean: true }) }],
    };
    const plan = planStoreRebuild([seen(1, fresh, [lvol(1, null, { epoch: 0 })]), seen(2, fresh, [])], none);
    expect(leadershipIn(plan)).toMatchObject({ epoch: firstEpoch(1), clean: true });
    expect(inSyncIn(plan)).toEqual([replica(1), replica(2)]);
  });

  it('does not come from a note that nobody of the cluster has signed', () => {
    const set = note([1, 2], { revision: 20 });
    const forged = {
      name: replica(2),
      isSnapshot: false,
      epoch: 3,
      note: { is: 'refused', problem: 'it is not signed' },
    } as const;
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [forged])], none);
    expect([verdict(plan), inSyncIn(plan)]).toEqual(['whole', [replica(1), replica(2)]]);
    expect(plan.problems).toEqual([`n2:/dev/2: the note of ${replica(2)} does not count: it is not signed`]);
  });

  it('tells the size too, where the copies are behind', () => {
    const size = { servedBytes: 2 ** 24, wantedBytes: 2 ** 25, growing: true };
    const set = { ...note([1, 2], { revision: 25 }), size };
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, both, [lvol(2, set)])], none);
    expect(leadershipIn(plan)?.size).toEqual(size);
  });
});

describe('a loss', () => {
  const set = note([1, 2], { revision: 20 });
  const disks = [seen(1, both, [lvol(1, set)])];

  it('is accepted by volume, in so many words, and then the seen members of the newest set count', () => {
    const plan = planStoreRebuild(disks, { ...none, acceptLoss: new Set(['v1']) });
    expect([verdict(plan), inSyncIn(plan), plan.obstacles]).toEqual(['accepted', [replica(1)], []]);
  });

  it('is not accepted for a volume that there is not', () => {
    expect(() => planStoreRebuild(disks, { ...none, acceptLoss: new Set(['v9']) })).toThrow('v9');
  });

  it('cannot be accepted where too few members of any set were seen', () => {
    const coded = volume([1, 2, 3], { erasure: { data: 2, parity: 1 }, copies: 1 });
    const said = { volumes: [{ value: coded }], leaderships: [{ value: led([1, 2, 3], { needs: 2 }) }] };
    const plan = planStoreRebuild([seen(1, said, [lvol(1, note([1, 2, 3], { revision: 20 }))])], {
      ...none,
      acceptLoss: new Set(['v1']),
    });
    expect([verdict(plan), plan.obstacles.length]).toEqual(['lost', 1]);
  });

  it('is avoided by leaving the volume out, with all that is its own', () => {
    const plan = planStoreRebuild(disks, { ...none, leaveOut: new Set([v1]) });
    expect([verdict(plan), plan.obstacles]).toEqual(['left out', []]);
    expect(plan.objects.map(({ key }) => key)).toEqual([keys.cluster]);
  });
});

describe('copies that do not agree', () => {
  const set = note([1, 2], { revision: 20 });

  it('let the newest account of a volume count', () => {
    const later = { ...both, volumes: [{ value: volume([1, 2], { hosts: ['nqn.2026-01.io.host:1'] }), at: 40 }] };
    const plan = planStoreRebuild([seen(1, later, [lvol(1, set)]), seen(2, both, [lvol(2, set)])], none);
    const text = plan.objects.find(({ key }) => key === keys.volume(v1))?.text ?? '';
    expect(codecs.volume.decode(text, '').hosts).toEqual(['nqn.2026-01.io.host:1']);
  });

  it('keep a volume gone that a later copy of one of its disks does not have', () => {
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, { revision: 60 }, [])], none);
    expect(plan.volumes).toEqual([]);
    expect(plan.gone).toMatchObject([
      { key: keys.volume(v1), why: `disk ${disk(2)} on n2 knew later that it is there no more` },
    ]);
    expect(plan.objects.map(({ key }) => key)).toEqual([keys.cluster]);
  });

  it('keep one that a copy from before it does not have', () => {
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, { revision: 5 }, [lvol(2, set)])], none);
    expect(verdict(plan)).toBe('whole');
  });

  it('follow a replica to where it was moved', () => {
    const moved = { volumes: [{ value: volume([1, 3]), at: 45 }], leaderships: [{ value: led([1, 3]), at: 46 }] };
    const now = note([1, 3], { revision: 46 });
    const disks = [seen(1, moved, [lvol(1, now)]), seen(2, both, [lvol(2, set)]), seen(3, moved, [lvol(3, now)])];
    const plan = planStoreRebuild(disks, none);
    expect([verdict(plan), inSyncIn(plan)]).toEqual(['whole', [replica(1), replica(3)]]);
  });

  it('give everybody what the newest copy has, and nothing that it lacks', () => {
    const token = (name: string) => ({
      key: keys.token(name),
      revision: 8,
      text: codecs.token.encode({
        format: 1,
        name,
        role: 'viewer',
        digest: 'a'.repeat(64),
        createdAtMs: 1,
        expiresAtMs: null,
      }),
    });
    const older = { ...both, revision: 50, more: [token('revoked')] };
    const newer = { ...both, revision: 51, more: [token('valid')] };
    const plan = planStoreRebuild([seen(1, older, [lvol(1, set)]), seen(2, newer, [lvol(2, set)])], none);
    const found = plan.objects.map(({ key }) => key).filter((key) => key.startsWith(keys.tokens));
    expect(found).toEqual([keys.token('valid')]);
  });

  it('do without a disk whose copy is damaged', () => {
    const plan = planStoreRebuild([seen(1, both, [lvol(1, set)]), seen(2, null, [lvol(2, set)])], none);
    expect(verdict(plan)).toBe('whole');
    expect(() => planStoreRebuild([seen(1, null, [])], none)).toThrow('no disk has a copy');
  });

  it('free a volume from a job that is lost', () => {
    const held = { ...both, volumes: [{ value: volume([1, 2], { suspended: v2 }) }] };
    const plan = planStoreRebuild([seen(1, held, [lvol(1, set)]), seen(2, held, [lvol(2, set)])], none);
    expect(plan.objects.find(({ key }) => key === keys.volume(v1))?.text).not.toContain('suspended');
  });
});

describe('a volume with several active controllers', () => {
  const [top, front] = [uuid(20), uuid(21)];
  const parts = [v1, v2];
  const part = (id: string) => volume(id === v1 ? [1, 2] : [2, 3], { id, name: 'm.part', partOf: top });
  const { legs: _, ...plain } = volume([1]);
  const multi: VolumeObject = { ...plain, id: top, name: 'm', legs: [], parts, fronts: [front, uuid(22)] };
  const ledFront = (id: string) => led([9], { volumeId: id, epoch: 7 });
  const said = {
    volumes: [{ value: multi }, ...parts.map((id) => ({ value: part(id) }))],
    leaderships: [
      ...[led([1, 2]), led([2, 3], { volumeId: v2 })].map((value) => ({ value })),
      ...[front, uuid(22)].map((id) => ({ value: ledFront(id) })),
    ],
  };
  const two = note([1, 2], { revision: 20 });
  const three = { ...note([2, 3], { revision: 20 }), volumeId: v2 };
  const disks = [seen(1, said, [lvol(1, two)]), seen(2, said, [lvol(2, two)]), seen(3, said, [lvol(3, three)])];

  it('is there with its parts and fronts, under the new generation', () => {
    const plan = planStoreRebuild(disks, none);
    expect(plan.volumes).toMatchObject([{ name: 'm', is: 'whole' }]);
    const found = new Map(plan.objects.map(({ key, text }) => [key, text]));
    expect(found.size).toBe(plan.objects.length);
    for (const id of [top, ...parts]) expect(found.has(keys.volume(id))).toBe(true);
    const epochs = [...parts, front, uuid(22)].map((id) => JSON.parse(found.get(keys.leadership(id)) ?? '{}').epoch);
    expect(epochs).toEqual(Array.from({ length: 4 }, () => firstEpoch(1) + 1));
  });

  it('waits when one of its parts does, and goes or is accepted as a whole', () => {
    const plan = planStoreRebuild(disks.slice(0, 2), none);
    expect(plan.volumes).toMatchObject([{ name: 'm', is: 'waits' }]);
    expect(plan.objects.map(({ key }) => key)).toEqual([keys.cluster]);
    const accepted = planStoreRebuild(disks.slice(0, 2), { ...none, acceptLoss: new Set(['m']) });
    expect([accepted.volumes[0]?.is, accepted.obstacles]).toEqual(['accepted', []]);
    const without = planStoreRebuild(disks, { ...none, leaveOut: new Set(['m']) });
    expect(without.objects.map(({ key }) => key)).toEqual([keys.cluster]);
  });
});

describe('parts that are being deleted', () => {
  const going = volume([1, 2], { name: 'm.part', partOf: uuid(20), phase: 'deleting' });
  const said = {
    volumes: [{ value: going }],
    leaderships: [{ value: { ...led([1, 2]), epoch: 4, controller: null } }],
  };

  it('go on being deleted, under an epoch that their replicas obey', () => {
    const set = note([1, 2], { revision: 20 });
    // Of one of them a replica has gone already, and nothing is left to be asked about it.
    for (const lvols of [[lvol(1, set)], []]) {
      const plan = planStoreRebuild([seen(1, said, lvols), seen(2, said, [lvol(2, set)])], none);
      expect([plan.volumes, plan.obstacles]).toEqual([[], []]);
      const found = new Map(plan.objects.map(({ key, text }) => [key, text]));
      expect(JSON.parse(found.get(keys.volume(v1)) ?? '{}')).toMatchObject({ id: v1, phase: 'deleting' });
      const { epoch } = codecs.leadership.decode(found.get(keys.leadership(v1)) ?? '', 'found');
      expect(epoch).toBe(firstEpoch(1) + 1);
      expect(found.has(keys.volumeName('m.part'))).toBe(false);
    }
  });
});

describe('disks of two clusters', () => {
  it('are never mixed', () => {
    const set = note([1, 2], { revision: 20 });
    const other = { ...seen(2, null, []), cluster: uuid(2) };
    expect(() => planStoreRebuild([seen(1, both, [lvol(1, set)]), other], none)).toThrow('more than one cluster');
  });
});
