// SPDX-License-Identifier: Apache-2.0
// The thread in which WorkerPlanner solves one problem.

import { parentPort, workerData } from 'node:worker_threads';
import { loadHighs } from './linear-program.js';
import type { PgProblem } from './pg-problem.js';
import { planPgs } from './plan-pgs.js';
import { answerOf } from './planner.js';

const solve = await loadHighs();
parentPort?.postMessage(answerOf(() => planPgs(workerData as PgProblem, solve)));
