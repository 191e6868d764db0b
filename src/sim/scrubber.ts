// SPDX-License-Identifier: Apache-2.0
//
// Somebody who has the volume that hosts use scrubbed while everything else goes wrong, and calls that off; and who
// afterwards compares all members once more, damages blocks on one disk, and has them mended.
//
// Rules:  - as long as no disk was damaged, no scrub finds members that differ, or anything that cannot be read
//         - a scrub that nobody called off ends when everything is up (Drainer.unrest: it is a job)
//         - what was damaged on one disk is mended by one scrub: it rewrites every block that a member holds there, hosts
//           read what they wrote, and the next one finds nothing

import { cancelJob, type JobDeps, scrubVolume, showJob } from '../api/jobs.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { ScrubVolumeRequest } from '../model/api.js';
import { hasEnded, type JobView } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { askUntilAnswered } from './asking.js';
import type { RareEvents } from './rare-events.js';

const lastWords = ['BUSY', 'JOB_ENDED', 'NOT_FOUND'];
const pollMs = 50;

export interface Damage {
  /** How many blocks, wherever the disk had them: also what nothing refers to any more. */
  readonly blocks: number;
  /** Those of them that a member surely holds there. */
  readonly held: number;
}

export interface ScrubJudging {
  /** Damages blocks of one disk. Null: disks are left as they are. */
  readonly damage: (() => Damage) | null;
  /** A host reads everything, and its history judges it. */
  readonly read: () => Promise<void>;
}

export interface ScrubberOptions {
  readonly deps: JobDeps;
  readonly clock: VirtualClock;
  /** The volume that hosts use. */
  readonly volume: string;
  readonly rareEvents: RareEvents;
}

export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #counted = new Set<string>();
  #pending: string | null = null;
  #isDamaged = false;
  #violation: string | null = null;

  constructor(options: ScrubberOptions) {
    this.#options = { ...options, deps: { ...options.deps, clock: options.clock } };
  }

  /** One thing after the other. */
  get isBusy(): boolean {
    return this.#pending !== null;
  }

  get violation(): string | null {
    return this.#violation;
  }

  get unrest(): string | null {
    return this.#pending === null ? null : `no answer about the ${this.#pending}`;
  }

  scrub(request: ScrubVolumeRequest): void {
    const { deps, volume } = this.#options;
    this.#ask(`scrub of ${volume}`, async () => {
      await scrubVolume(deps, volume, request);
    });
  }

  callOff(jobId: string): void {
    this.#ask(`end of job ${jobId}`, async () => {
      await cancelJob(this.#options.deps, jobId);
    });
  }

  /** Every object that the store takes. */
  saw(key: string, text: string): void {
    if (!key.startsWith(keys.jobs)) return;
    const job = codecs.job.decode(text, key);
    if (job.kind !== 'volume.scrub') return;
    const problem = problemOf(job);
    if (problem !== null && !this.#isDamaged) this.#violation ??= `scrub: ${problem}, and no disk was damaged`;
    if (!hasEnded(job) || this.#counted.has(job.id)) return;
    this.#counted.add(job.id);
    const { rareEvents } = this.#options;
    if (job.state === 'done') rareEvents.reach('volume_scrubbed');
    if (job.state === 'cancelled') rareEvents.reach('scrub_called_off');
    if (job.events.some(({ text: event }) => event.startsWith('taken on by'))) rareEvents.reach('scrub_taken_on');
  }

  /** What is wrong with what the members hold, or null. Everything is up, and nobody writes. */
  async judge({ damage, read }: ScrubJudging): Promise<string | null> {
    await this.#done({ repair: false });
    if (this.#violation !== null || damage === null) return this.#violation;
    this.#isDamaged = true;
    const { blocks, held } = damage();
    // Before hosts read: without checksums a read may return what is damaged, and one that notices mends it.
    const mended = await this.#done({});
    const repaired = mended.result?.['repairedBlocks'] ?? 0;
    if (repaired > 0) this.#options.rareEvents.reach('scrub_mended');
    if (repaired < held) return `scrub: job ${mended.id} rewrote ${repaired} blocks, and ${held} were damaged`;
    const problem = problemOf(await this.#done({ repair: false }));
    if (problem !== null) return `scrub: ${problem}, after ${blocks} damaged blocks of one disk had been mended`;
    await read();
    return null;
  }

  /** @throws {Error} when it does not come to its end */
  async #done(request: ScrubVolumeRequest): Promise<JobView> {
    const { deps, clock, volume } = this.#options;
    let job = await scrubVolume(deps, volume, request);
    while (!hasEnded(job)) {
      await clock.sleep(pollMs);
      job = await showJob(deps, job.id);
    }
    if (job.state !== 'done') throw new Error(`a scrub is ${job.state}: ${job.events.at(-1)?.text}`);
    return job;
  }

  #ask(what: string, act: () => Promise<void>): void {
    this.#pending = what;
    void askUntilAnswered(this.#options.clock, { last: lastWords }, act).then(() => {
      this.#pending = null;
    });
  }
}

function problemOf({ id, result = {} }: Pick<JobView, 'id' | 'result'>): string | null {
  const { differentBlocks = 0, unreadableBlocks = 0, repairedBlocks = 0 } = result;
  if (differentBlocks + unreadableBlocks + repairedBlocks === 0) return null;
  return `job ${id} found ${differentBlocks} blocks that differ and ${unreadableBlocks} that cannot be read, and rewrote ${repairedBlocks}`;
}
