// SPDX-License-Identifier: Apache-2.0
//
// Runs jobs: takes on those that nobody runs, and brings each on by one step after every change of the store. Every node
// has one; the first of the live nodes by name takes on what is new or was left behind.
//
// Invariants:  - what a step changes and the job's next state are one transaction on what the step was planned on: two
//                runners, or one that was away for a while, do no harm
//              - a job's runner is a process that is live; when its lease runs out, another one goes on
//              - with no job to run, nothing is written and nothing is waited for

import { hasEnded, type JobObject } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, type LiveObject } from '../model/objects.js';
import { moveTimeoutMs, planJob } from '../reconcile/jobs.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, RateLimitedLog } from './context.js';
import { ReconcileLoop } from './reconcile-loop.js';

export interface JobAgentOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  /** What this process says of itself; null: it is not live yet. */
  readonly live: () => LiveObject | null;
}

/** Jobs that ended are shown until there are so many younger ones. */
export const endedJobsMax = 200;
const removedAtOnceMax = 100;
const restMs = 20;

export class JobAgent {
  readonly #options: JobAgentOptions;
  readonly #loop: ReconcileLoop;
  /** Since when this process runs each of its jobs. */
  readonly #sinceMs = new Map<string, number>();
  #unsubscribe: (() => void) | null = null;
  #timer: { cancel(): void } | null = null;
  #seenJobs = -1;
  #someOpen = false;

  constructor(options: JobAgentOptions) {
    this.#options = options;
    const { clock, log } = options.context;
    this.#loop = new ReconcileLoop({
      name: 'job agent',
      clock,
      log: new RateLimitedLog(log, clock),
      pass: (signal) => this.#pass(signal),
      restMs,
    });
  }

  start(): void {
    this.#unsubscribe = this.#options.link.onChange(() => this.#changed());
    this.#loop.start();
  }

  /** Lets go of what it runs: another node goes on at once. */
  async release(signal: AbortSignal): Promise<void> {
    await this.stop();
    const { link } = this.#options;
    for (const job of link.state.all('jobs').filter((each) => !hasEnded(each) && this.#isMine(each))) {
      const stored = link.state.stored('jobs', job.id);
      // It may have ended, or gone to another node, while others were let go.
      if (stored === null || hasEnded(stored.value) || !this.#isMine(stored.value)) continue;
      const put = [{ key: stored.key, text: codecs.job.encode({ ...stored.value, runner: null }) }];
      await link.commit({ expect: [{ key: stored.key, revision: stored.revision }], put }, signal);
    }
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    this.#timer?.cancel();
  }

  /** Whatever changed may be what a job waits for; with no job there is nothing to look at. */
  #changed(): void {
    const { state } = this.#options.link;
    const version = state.version('jobs');
    const same = version === this.#seenJobs;
    if (!same) this.#someOpen = state.all('jobs').some((job) => !hasEnded(job));
    this.#seenJobs = version;
    if (same && !this.#someOpen) return;
    this.#loop.wake();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const { state } = this.#options.link;
    const jobs = state.all('jobs');
    const open = jobs.filter((job) => !hasEnded(job));
    for (const id of [...this.#sinceMs.keys()])
      if (!open.some((job) => job.id === id && this.#isMine(job))) this.#sinceMs.delete(id);
    for (const job of open) {
      if (this.#isMine(job) || (this.#acts() && !this.#isRun(job))) await this.#advance(job, signal);
    }
    if (this.#acts()) await this.#forget(jobs.filter(hasEnded), signal);
    this.#wakeForTimeouts();
  }

  #isMine(job: JobObject): boolean {
    const live = this.#options.live();
    return live !== null && job.runner?.node === live.name && job.runner.incarnation === live.incarnation;
  }

  #isRun(job: JobObject): boolean {
    if (job.runner === null) return false;
    const live = this.#options.link.state.get('lives', job.runner.node);
    return live !== null && live.incarnation === job.runner.incarnation;
  }

  #acts(): boolean {
    const me = this.#options.live();
    const lives = this.#options.link.state.all('lives');
    return me !== null && lives.find((live) => live.kind === 'node' && !live.draining)?.name === me.name;
  }

  async #advance(job: JobObject, signal: AbortSignal): Promise<void> {
    const { link, context, live } = this.#options;
    const me = live();
    const stored = link.state.stored('jobs', job.id);
    if (me === null || stored === null) return;
    const sinceMs = this.#sinceMs.get(job.id) ?? context.clock.now();
    if (this.#isMine(job)) this.#sinceMs.set(job.id, sinceMs);
    const step = planJob(
      {
        state: link.state,
        wallMs: context.clock.wallMs(),
        ageMs: context.clock.now() - sinceMs,
        runner: { node: me.name, incarnation: me.incarnation },
        newUuid: () => context.random.uuid(),
      },
      stored,
    );
    // When something changed meanwhile, the watch says so, and the next pass plans on that.
    if (step !== null && (await link.commit(step, signal)))
      context.log.debug({ job: job.id, kind: job.kind }, 'job went on');
  }

  /** The oldest of those that ended. */
  async #forget(ended: readonly JobObject[], signal: AbortSignal): Promise<void> {
    const old = [...ended]
      .sort((a, b) => (a.endedAtMs ?? 0) - (b.endedAtMs ?? 0) || (a.id < b.id ? -1 : 1))
      .slice(0, Math.min(removedAtOnceMax, Math.max(0, ended.length - endedJobsMax)));
    if (old.length > 0) await this.#options.link.commit({ remove: old.map((job) => keys.job(job.id)) }, signal);
  }

  #wakeForTimeouts(): void {
    this.#timer?.cancel();
    this.#timer = null;
    if (this.#sinceMs.size === 0) return;
    const { clock } = this.#options.context;
    const rests = [...this.#sinceMs.values()].map((sinceMs) => sinceMs + moveTimeoutMs - clock.now());
    const due = rests.filter((leftMs) => leftMs > 0);
    if (due.length > 0) this.#timer = clock.setTimer(Math.min(...due) + 1, () => this.#loop.wake());
  }
}
