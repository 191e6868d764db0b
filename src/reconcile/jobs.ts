// SPDX-License-Identifier: Apache-2.0
//
// The next step of a job, as a pure function of what the store holds: what it changes and the job as it is afterwards go
// into the store together. So a job can be gone on with by anybody, from wherever its last runner ended.
//
// Invariants:  - a step and the job's next state are one transaction, on the job's present revision
//              - planned again on what it led to, a job that waits gives nothing

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { hasEnded, type JobObject, type JobState, jobEventsMax } from '../model/jobs.js';
import { codecs } from '../model/objects.js';
import { type PoolChange, planCallOffChange, planChangePool, restOfChange } from './change-pool.js';
import { type DrainTarget, planVacating, restOf, waitingFor } from './drain.js';
import { planMoveController } from './move-controller.js';
import { planCallOff, planMoveReplica, type ReplicaMove, restOfMove } from './move-replica.js';
import { planResume, planRollback } from './rollback.js';
import { planScrub, removeScrub, scrubSoFar } from './scrub.js';
import { both, noStep, removal, replace, type StoreStep } from './store-step.js';

export interface JobMoment {
  readonly state: ClusterState;
  /** For people: what the job's events say. */
  readonly wallMs: number;
  /** For how long its present runner has had it. */
  readonly ageMs: number;
  readonly runner: { readonly node: string; readonly incarnation: string };
  /** For what a step names for the first time. */
  readonly newUuid: () => string;
}

/** How long a controller may take to be where it was sent to. */
export const moveTimeoutMs = 60_000;

/** Null: there is nothing to do before something changes. */
export function planJob(moment: JobMoment, stored: Stored<JobObject>): StoreStep | null {
  const job = stored.value;
  if (hasEnded(job)) return null;
  const outcome = stepOf(moment, job);
  if (outcome === null) return null;
  const next = { ...outcome.job, runner: outcome.job.endedAtMs === null ? moment.runner : null };
  const step = outcome.step ?? noStep;
  const text = codecs.job.encode(next);
  if (step === noStep && text === codecs.job.encode(job)) return null;
  return both(replace(stored, text), step);
}

interface Outcome {
  readonly job: JobObject;
  readonly step?: StoreStep;
}

function stepOf(moment: JobMoment, queued: JobObject): Outcome | null {
  const job = started(moment, queued);
  switch (job.kind) {
    case 'volume.move-controller':
      return moveStep(moment, job);
    case 'volume.move-replica':
      return replicaStep(moment, job);
    case 'volume.change-pool':
      return poolStep(moment, job);
    case 'volume.rollback':
      return rollbackStep(moment, job);
    case 'volume.scrub':
      return scrubStep(moment, job);
    case 'disk.drain':
      return drainStep(moment, job, { kind: 'disk', name: job.arguments['disk'] ?? '' });
    case 'node.drain':
      return drainStep(moment, job, { kind: 'node', name: job.arguments['node'] ?? '' });
    default:
      return null;
  }
}

function started(moment: JobMoment, job: JobObject): JobObject {
  const at = Math.floor(moment.wallMs);
  const { runner } = job;
  const same = runner?.node === moment.runner.node && runner.incarnation === moment.runner.incarnation;
  const running = { ...job, state: 'running' as const, startedAtMs: job.startedAtMs ?? at };
  if (same) return running;
  return noted(running, moment, runner === null ? `run by ${moment.runner.node}` : `taken on by ${moment.runner.node}`);
}

function noted(job: JobObject, moment: JobMoment, text: string): JobObject {
  const events = [...job.events, { atMs: Math.floor(moment.wallMs), text }];
  return { ...job, events: events.slice(-jobEventsMax) };
}

function ended(job: JobObject, moment: JobMoment, at: { state: JobState; text: string; code?: string }): JobObject {
  const error = at.code === undefined ? null : { code: at.code, message: at.text };
  const last = { ...noted(job, moment, at.text), state: at.state, endedAtMs: Math.floor(moment.wallMs) };
  return { ...last, waitsFor: null, error };
}

function moveStep(moment: JobMoment, job: JobObject): Outcome {
  const { state } = moment;
  const volumeId = job.arguments['volumeId'] ?? '';
  const to = job.arguments['to'] ?? '';
  const wish = removal(state.stored('handOvers', volumeId));
  const end = (at: Parameters<typeof ended>[2]): Outcome => ({ job: ended(job, moment, at), step: wish });
  const plan = planMoveController(state, { volumeId, to });
  if (plan.do === 'done') {
    const done = end({ state: 'done', text: `${to} drives it` });
    return { ...done, job: { ...done.job, progress: { ...job.progress, done: job.progress.total } } };
  }
  if (job.cancelling) return end({ state: 'cancelled', text: 'cancelled' });
  if (plan.do === 'fail') return end({ state: 'failed', text: plan.why, code: 'JOB_FAILED' });
  if (moment.ageMs >= moveTimeoutMs)
    return end({
      state: 'failed',
      text: `not done within ${moveTimeoutMs} ms: ${plan.why}`,
      code: 'DEADLINE_EXCEEDED',
    });
  if (plan.do === 'wait') return { job: { ...job, waitsFor: plan.why } };
  return { job: noted({ ...job, waitsFor: null }, moment, plan.why), step: plan.step };
}

function rollbackStep(moment: JobMoment, job: JobObject): Outcome {
  const { state, newUuid } = moment;
  const { volumeId = '', snapshotId = '', snapshot = '' } = job.arguments;
  const swapped = job.progress.done > 0;
  const end = (at: Parameters<typeof ended>[2]): Outcome => ({
    job: ended(job, moment, at),
    step: planResume(state, { jobId: job.id, volumeId }),
  });
  const plan = planRollback(state, { jobId: job.id, volumeId, snapshotId, swapped, newUuid });
  if (plan.do === 'done') {
    const done = end({ state: 'done', text: `it holds what ${snapshot} does` });
    return { ...done, job: { ...done.job, progress: { ...job.progress, done: job.progress.total } } };
  }
  if (job.cancelling && !swapped) return end({ state: 'cancelled', text: 'cancelled: nothing has changed' });
  if (plan.do === 'fail') return end({ state: 'failed', text: plan.why, code: 'JOB_FAILED' });
  if (!swapped && moment.ageMs >= moveTimeoutMs && plan.do === 'wait')
    return end({
      state: 'failed',
      text: `not done within ${moveTimeoutMs} ms: ${plan.why}`,
      code: 'DEADLINE_EXCEEDED',
    });
  if (plan.do === 'wait') return { job: { ...job, waitsFor: plan.why } };
  const next = noted({ ...job, waitsFor: null }, moment, plan.why);
  const done = plan.do === 'swap' ? 1 : 0;
  return { job: { ...next, progress: { ...next.progress, done } }, step: plan.step };
}

function moveOf(job: JobObject): ReplicaMove {
  const { volumeId = '', legs = '', from = '', to = '' } = job.arguments;
  return { volumeId, legs: legs.split(',').map(Number), from, to };
}

function replicaStep(moment: JobMoment, job: JobObject): Outcome {
  const { state, newUuid } = moment;
  const move = moveOf(job);
  const rest = restOfMove(state, move);
  const left = rest.replicas + rest.snapshotCopies;
  const total = Math.max(job.progress.total, left);
  const counted = { ...job, progress: { ...job.progress, total, done: total - left } };
  const plan = planMoveReplica(state, { ...move, newUuid });
  if (plan.do === 'done')
    return { job: ended(counted, moment, { state: 'done', text: `disk ${move.from} holds nothing of it any more` }) };
  const step = plan.do === 'fail' || job.cancelling ? planCallOff(state, move) : noStep;
  if (job.cancelling) {
    const end = step === noStep ? 'what has begun to leave goes' : 'the old replica stays, and the new one goes';
    return { job: ended(counted, moment, { state: 'cancelled', text: `cancelled: ${end}` }), step };
  }
  if (plan.do === 'fail')
    return { job: ended(counted, moment, { state: 'failed', text: plan.why, code: 'JOB_FAILED' }), step };
  if (plan.do === 'wait') return { job: { ...counted, waitsFor: plan.why } };
  return { job: noted({ ...counted, waitsFor: null }, moment, plan.why), step: plan.step };
}

function poolStep(moment: JobMoment, job: JobObject): Outcome {
  const { state } = moment;
  const { volumeId = '', from = '', to = '', pool = '' } = job.arguments;
  const change: PoolChange = { volumeId, from, to };
  const rest = restOfChange(state, change);
  const left = rest.replicas + rest.snapshotCopies;
  const total = Math.max(job.progress.total, left);
  const counted = { ...job, progress: { ...job.progress, total, done: total - left } };
  const plan = planChangePool(state, change);
  if (plan.do === 'done')
    return { job: ended(counted, moment, { state: 'done', text: `all of it is in pool ${pool}` }) };
  if (job.cancelling) {
    const { step, text } = planCallOffChange(state, change);
    return { job: ended(counted, moment, { state: 'cancelled', text: `cancelled: ${text}` }), step };
  }
  if (plan.do === 'fail')
    return { job: ended(counted, moment, { state: 'failed', text: plan.why, code: 'JOB_FAILED' }) };
  if (plan.do === 'wait') return { job: { ...counted, waitsFor: plan.why } };
  return { job: noted({ ...counted, waitsFor: null }, moment, plan.why), step: plan.step };
}

function scrubStep(moment: JobMoment, job: JobObject): Outcome {
  const { state } = moment;
  const { volumeId = '', bytesPerS = '0', repair = 'true' } = job.arguments;
  const wish = { jobId: job.id, volumeId, bytesPerS: Number(bytesPerS), repair: repair === 'true' };
  const soFar = scrubSoFar(state, wish);
  const counted =
    soFar === null ? job : { ...job, progress: { ...job.progress, done: soFar.percent }, result: soFar.counts };
  const end = (at: Parameters<typeof ended>[2]): Outcome => ({
    job: ended(counted, moment, at),
    step: removeScrub(state, wish),
  });
  const plan = planScrub(state, wish);
  if (plan.do === 'done') return end({ state: 'done', text: scrubText(counted) });
  if (job.cancelling) return end({ state: 'cancelled', text: `cancelled: ${scrubText(counted)}` });
  if (plan.do === 'fail') return end({ state: 'failed', text: plan.why, code: 'JOB_FAILED' });
  if (plan.do === 'wait') return { job: { ...counted, waitsFor: plan.why } };
  return { job: noted({ ...job, waitsFor: null }, moment, plan.why), step: plan.step };
}

function scrubText({ result = {} }: JobObject): string {
  const { differentBlocks = 0, unreadableBlocks = 0, repairedBlocks = 0 } = result;
  if (differentBlocks + unreadableBlocks === 0) return 'nothing is wrong in what was compared';
  return `blocks that differ: ${differentBlocks}, unreadable: ${unreadableBlocks}, rewritten: ${repairedBlocks}`;
}

function drainStep(moment: JobMoment, job: JobObject, target: DrainTarget): Outcome {
  const { state } = moment;
  const cordon = state.stored('cordons', `${target.kind}/${target.name}`);
  if (cordon?.value.mode !== 'drain')
    return { job: ended(job, moment, { state: 'cancelled', text: `the ${target.kind} is to be drained no more` }) };
  if (job.cancelling) {
    const step = replace(cordon, codecs.cordon.encode({ ...cordon.value, mode: 'cordon' }));
    const text = `cancelled: the ${target.kind} stays cordoned, and what is under way is brought to an end`;
    return { job: ended(job, moment, { state: 'cancelled', text }), step };
  }
  const rest = restOf(state, target);
  const left = rest.replicas + rest.controllers + rest.snapshotCopies;
  const total = Math.max(job.progress.total, left);
  const counted = { ...job, progress: { ...job.progress, total, done: total - left } };
  if (left + rest.maps + rest.tombstones === 0) {
    return { job: ended(counted, moment, { state: 'done', text: `the ${target.kind} holds nothing` }) };
  }
  const vacating = target.kind === 'node' ? planVacating(state, target.name) : { change: null, why: null };
  if (vacating.change !== null)
    return { job: noted({ ...counted, waitsFor: null }, moment, vacating.change.why), step: vacating.change.step };
  return { job: { ...counted, waitsFor: waitingFor(state, target) ?? vacating.why } };
}
