// SPDX-License-Identifier: Apache-2.0
//
// Plans PGs off the event loop: HiGHS blocks its thread, and a large map takes a second or two. A worker per plan, gone
// afterwards: plans are rare, and an idle cluster keeps no solver in memory.

import { Worker } from 'node:worker_threads';
import { BasaltError, type ErrorCode, type ErrorFields, isBasaltError } from '../model/errors.js';
import { loadHighs, type SolveLinear } from './linear-program.js';
import type { PgPlan, PgProblem } from './pg-problem.js';
import { planPgs } from './plan-pgs.js';

export interface PgPlanner {
  /** @throws PLACEMENT_IMPOSSIBLE, PLANNER_FAILED, or the signal's reason */
  plan(problem: PgProblem, signal?: AbortSignal): Promise<PgPlan>;
}

/** What the worker answers. */
export type WorkerAnswer =
  | { readonly plan: PgPlan }
  | { readonly refused: { readonly code: ErrorCode; readonly fields: ErrorFields } }
  | { readonly failed: string };

export function answerOf(run: () => PgPlan): WorkerAnswer {
  try {
    return { plan: run() };
  } catch (error) {
    if (isBasaltError(error)) return { refused: { code: error.code, fields: error.fields } };
    return { failed: error instanceof Error ? error.message : String(error) };
  }
}

export class WorkerPlanner implements PgPlanner {
  async plan(problem: PgProblem, signal?: AbortSignal): Promise<PgPlan> {
    signal?.throwIfAborted();
    const worker = startWorker(problem);
    try {
      return planOf(await answer(worker, signal));
    } finally {
      await worker.terminate();
    }
  }
}

function startWorker(problem: PgProblem): Worker {
  const compiled = new URL('./planner-worker.js', import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return new Worker(compiled, { workerData: problem });
  // Run from source, as tests are: the thread needs what compiles it first.
  const source = JSON.stringify(new URL('./planner-worker.ts', import.meta.url).href);
  const text = `import('tsx/esm/api').then((tsx) => { tsx.register(); return import(${source}); });`;
  return new Worker(text, { eval: true, workerData: problem });
}

function answer(worker: Worker, signal: AbortSignal | undefined): Promise<WorkerAnswer> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(signal?.reason);
    signal?.addEventListener('abort', aborted, { once: true });
    worker.once('message', (message: WorkerAnswer) => {
      signal?.removeEventListener('abort', aborted);
      resolve(message);
    });
    worker.once('error', (error) => resolve({ failed: error.message }));
    worker.once('exit', (code) => resolve({ failed: `the planner's thread ended with code ${code}` }));
  });
}

function planOf(message: WorkerAnswer): PgPlan {
  if ('plan' in message) return message.plan;
  if ('refused' in message) throw new BasaltError(message.refused.code, message.refused.fields);
  throw new BasaltError('PLANNER_FAILED', { detail: message.failed });
}

/** On the caller's thread: for tests, simulation, and programs that do nothing else. */
export class InlinePlanner implements PgPlanner {
  #solve: Promise<SolveLinear> | SolveLinear | null = null;

  /** With the solver in memory already: plans then wait for nothing outside this process's JavaScript. */
  static async load(): Promise<InlinePlanner> {
    const planner = new InlinePlanner();
    planner.#solve = await loadHighs();
    return planner;
  }

  async plan(problem: PgProblem): Promise<PgPlan> {
    this.#solve ??= loadHighs();
    return planPgs(problem, await this.#solve);
  }
}
