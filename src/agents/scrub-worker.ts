// SPDX-License-Identifier: Apache-2.0
//
// Compares the members of a volume's legs, one leg after the other, while a scrub of the volume stands in the store. One
// worker per assembly; whoever drives the volume next goes on with the leg that this one did not finish.
//
// Invariants:  - a leg is looked at while all of its members are in sync and nothing of it waits to be made equal
//              - when the scrub is taken away, or this worker ends, the engine's ends as well
//              - a leg is compared once, however late the watch is
//              - with no scrub in the store nothing is asked and nothing is waited for

import { scrubBdev } from '../engine/scrub.js';
import type { Stored } from '../model/cluster-state.js';
import type { ScrubbedLeg, ScrubCounts, ScrubObject } from '../model/jobs.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import { nextLeg, withLeg } from '../reconcile/scrub.js';
import { replace } from '../reconcile/store-step.js';
import type { Assembly } from './assembly.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, reason } from './context.js';
import { pause, Wakeup } from './signal.js';

export interface ScrubPort {
  /** As the watch last showed it; null: there is none. */
  wish(): Stored<ScrubObject> | null;
  /** False: it is another one by now. */
  swap(present: Stored<ScrubObject>, next: ScrubObject, signal: AbortSignal): Promise<boolean>;
}

export function scrubPort(link: ClusterLink, volumeId: string): ScrubPort {
  return {
    wish: () => link.state.stored('scrubs', volumeId),
    swap: (present, next, signal) => link.commit(replace(present, codecs.scrub.encode(next)), signal),
  };
}

export interface ScrubWorkerOptions {
  readonly context: AgentContext;
  readonly volume: () => VolumeObject;
  readonly assembly: Assembly;
  readonly scrubs: ScrubPort;
  readonly retryMs: number;
}

/** Of the engine's progress; the store hears of each twentieth. */
const pollMs = 250;
const toldPercent = 5;
const swapAgainMs = 20;

export class ScrubWorker {
  readonly #options: ScrubWorkerOptions;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  /** The leg that is under way, and for which job. */
  #present: { readonly jobId: string; readonly end: AbortController } | null = null;

  constructor(options: ScrubWorkerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#work();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('scrub worker stopped'));
    this.#present?.end.abort();
    await this.#running;
  }

  /** The store or the members may have changed. */
  poke(): void {
    if (this.#present !== null && this.#options.scrubs.wish()?.value.jobId !== this.#present.jobId)
      this.#present.end.abort();
    this.#wakeup.wake();
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    const { context, retryMs, scrubs } = this.#options;
    while (!signal.aborted) {
      const wish = scrubs.wish();
      const leg = wish === null ? null : nextLeg(wish.value);
      try {
        if (wish === null || leg === null) {
          await this.#wakeup.wait(signal);
          continue;
        }
        const why = (await this.#notReady(leg)) ?? (await this.#scrub(wish.value, leg));
        if (why === null || signal.aborted) continue;
        await this.#tell(wish.value.jobId, { leg, waitsFor: why });
        await pause(context.clock, retryMs, signal);
      } catch (error) {
        if (signal.aborted) return;
        context.log.warn({ volume: this.#options.volume().name, leg, error: reason(error) }, 'a leg is not scrubbed');
        if (wish !== null && leg !== null)
          await this.#tell(wish.value.jobId, { leg, waitsFor: `leg ${leg}: ${reason(error)}` });
        await pause(context.clock, retryMs, signal);
      }
    }
  }

  async #notReady(leg: number): Promise<string | null> {
    const { context, assembly, volume } = this.#options;
    const { members, dirty_regions } = await context.engine.rpc('basalt_leg_get', { name: assembly.legName(leg) });
    const count = members.filter(({ state }) => state === 'in_sync').length;
    const wanted = volume().legs[leg]?.replicas.length ?? 0;
    if (count < wanted || count < members.length) return `leg ${leg} has ${count} of ${wanted} members in sync`;
    return dirty_regions > 0 ? `leg ${leg} is being made equal after a takeover` : null;
  }

  /** Null: the leg is done, or nobody wants it any more. */
  async #scrub({ jobId, bytesPerS, repair }: ScrubObject, leg: number): Promise<string | null> {
    const { context, assembly } = this.#options;
    const end = new AbortController();
    this.#present = { jobId, end };
    if (this.#stop.signal.aborted) end.abort();
    try {
      let told = 0;
      const result = await scrubBdev(
        context.engine,
        { name: assembly.legName(leg), bytesPerS, fromBytes: 0, repair },
        {
          clock: context.clock,
          signal: end.signal,
          pollMs,
          progress: async (percent, counts) => {
            if (percent < told + toldPercent || percent === 100) return;
            told = percent;
            await this.#tell(jobId, { leg, found: foundIn(percent, counts), waitsFor: null });
          },
        },
      );
      if (end.signal.aborted) return null;
      if (!result.finished) return `the scrub of leg ${leg} was ended by its engine`;
      await this.#tell(jobId, { leg, found: { ...foundIn(100, result.counts), done: true }, waitsFor: null });
      await this.#shown(jobId, leg);
      return null;
    } finally {
      this.#present = null;
    }
  }

  /** Until the watch shows that the leg is done: before that it would be compared again. */
  async #shown(jobId: string, leg: number): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const wish = this.#options.scrubs.wish()?.value;
      if (wish?.jobId !== jobId || wish.legs[leg]?.done !== false) return;
      await this.#wakeup.wait(signal);
    }
  }

  /** Whatever the watch has shown meanwhile: it is the job's wish still, or there is nobody to tell. */
  async #tell(
    jobId: string,
    { leg, found, waitsFor }: { leg: number; found?: ScrubbedLeg; waitsFor: string | null },
  ): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const present = this.#options.scrubs.wish();
      const known = present?.value.legs[leg];
      if (present === null || known === undefined || present.value.jobId !== jobId || known.done) return;
      const next = withLeg(present.value, { leg, found: found ?? known, waitsFor });
      if (next === null) return;
      const { context, scrubs, retryMs } = this.#options;
      // A store that is away is no reason to compare a leg anew.
      const swapped = await scrubs.swap(present, next, signal).catch(() => null);
      if (swapped === true) return;
      await pause(context.clock, swapped === null ? retryMs : swapAgainMs, signal);
    }
  }
}

function foundIn(percent: number, counts: Readonly<Record<string, number>>): ScrubbedLeg {
  const of = (name: keyof ScrubCounts): number => counts[name] ?? 0;
  return {
    done: false,
    percent,
    counts: {
      comparedBlocks: of('comparedBlocks'),
      differentBlocks: of('differentBlocks'),
      unreadableBlocks: of('unreadableBlocks'),
      repairedBlocks: of('repairedBlocks'),
    },
  };
}
