// SPDX-License-Identifier: Apache-2.0
//
// Operations that take a while, as they live in the store: jobs, cordons, the wish to hand a volume over, and scrubs of
// volumes.
//
// Invariants:  - a job is one object under one key; whoever runs it changes it by compare-and-swap together with what it does
//              - a job that has ended never changes again
//              - a hand-over counts for the epoch that it names, and for no later one
//              - a volume's scrub is written by its job, which makes and removes it, and by who drives the volume

import Type, { type Static } from 'typebox';

const strict = { additionalProperties: false } as const;
const Uuid = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const Name = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' });
const Format = Type.Literal(1);
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const jobKinds = [
  'volume.move-controller',
  'volume.move-replica',
  'volume.change-pool',
  'volume.rollback',
  'volume.scrub',
  'disk.drain',
  'node.drain',
] as const;
export type JobKind = (typeof jobKinds)[number];

export const JobState = Type.Union([
  Type.Literal('queued'),
  Type.Literal('running'),
  Type.Literal('done'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
]);
export type JobState = Static<typeof JobState>;

export const JobProgress = Type.Object({ done: Count, total: Count, unit: Type.String({ maxLength: 32 }) }, strict);
export type JobProgress = Static<typeof JobProgress>;

export const JobEvent = Type.Object({ atMs: Count, text: Type.String() }, strict);
export type JobEvent = Static<typeof JobEvent>;

/** The oldest go first. */
export const jobEventsMax = 32;

export const JobObject = Type.Object(
  {
    format: Format,
    id: Uuid,
    /** One of `jobKinds`; one that is unknown here is left to nodes that know it. */
    kind: Type.String({ maxLength: 64 }),
    /** By the names that the kind gives them. */
    arguments: Type.Record(Type.String(), Type.String()),
    state: JobState,
    /** Somebody asked for its end; whoever runs it brings it about. */
    cancelling: Type.Boolean(),
    progress: JobProgress,
    /** What it waits for now. */
    waitsFor: Type.Union([Type.String(), Type.Null()]),
    createdAtMs: Count,
    startedAtMs: Type.Union([Count, Type.Null()]),
    endedAtMs: Type.Union([Count, Type.Null()]),
    error: Type.Union([Type.Object({ code: Type.String(), message: Type.String() }, strict), Type.Null()]),
    /** Runs it for as long as that process's lease is alive; then another takes it on. */
    runner: Type.Union([Type.Object({ node: Name, incarnation: Type.String() }, strict), Type.Null()]),
    events: Type.Array(JobEvent, { maxItems: jobEventsMax }),
    /** What it has found so far, of jobs that find something. */
    result: Type.Optional(Type.Record(Type.String(), Count)),
  },
  strict,
);
export type JobObject = Static<typeof JobObject>;

export function hasEnded(job: JobObject | JobView): boolean {
  return job.state === 'done' || job.state === 'failed' || job.state === 'cancelled';
}

export const CordonKind = Type.Union([Type.Literal('disk'), Type.Literal('node')]);
export type CordonKind = Static<typeof CordonKind>;

export const CordonMode = Type.Union([
  /** Nothing new comes; what is there stays. */
  Type.Literal('cordon'),
  /** What is there goes. */
  Type.Literal('drain'),
  /** A disk that holds nothing and is no part of the cluster any more. */
  Type.Literal('removed'),
]);
export type CordonMode = Static<typeof CordonMode>;

export const CordonObject = Type.Object(
  { format: Format, kind: CordonKind, name: Name, mode: CordonMode, sinceMs: Count },
  strict,
);
export type CordonObject = Static<typeof CordonObject>;

export const HandOverObject = Type.Object({ format: Format, volumeId: Uuid, to: Name, epoch: Count }, strict);
export type HandOverObject = Static<typeof HandOverObject>;

export const ScrubCounts = Type.Object(
  { comparedBlocks: Count, differentBlocks: Count, unreadableBlocks: Count, repairedBlocks: Count },
  strict,
);
export type ScrubCounts = Static<typeof ScrubCounts>;

export const ScrubbedLeg = Type.Object(
  {
    /** Not: it was looked at up to `percent`, or its controller went. */
    done: Type.Boolean(),
    percent: Type.Integer({ minimum: 0, maximum: 100 }),
    counts: ScrubCounts,
  },
  strict,
);
export type ScrubbedLeg = Static<typeof ScrubbedLeg>;

/** All members of each leg are to be compared, one leg after the other, by who drives the volume. */
export const ScrubObject = Type.Object(
  {
    format: Format,
    volumeId: Uuid,
    jobId: Uuid,
    /** 0: as fast as it goes. */
    bytesPerS: Count,
    repair: Type.Boolean(),
    legs: Type.Array(ScrubbedLeg),
    /** Why the next leg is not looked at yet. */
    waitsFor: Type.Union([Type.String(), Type.Null()]),
  },
  strict,
);
export type ScrubObject = Static<typeof ScrubObject>;

/** What the API shows. */
export const JobView = Type.Omit(JobObject, ['format']);
export type JobView = Static<typeof JobView>;
