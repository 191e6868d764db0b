// SPDX-License-Identifier: Apache-2.0
//
// Growth of a volume that is served from here. One worker per assembly; each step begins from what the store holds, so
// that whoever drives the volume next goes on where this one ended.
//
// Invariants:  - a leg is lengthened only after the store says that legs may be
//              - hosts are shown a size only after the store says that it is served
//              - what stands in the way is told and tried again; the volume is served as it is meanwhile

import type { Leadership, VolumeObject } from '../model/objects.js';
import { type GrowthStep, planGrowing, planGrowth, planServed } from '../reconcile/growth.js';
import { type Holder, holds } from '../reconcile/membership.js';
import { type Assembly, ensureSlot } from './assembly.js';
import { type AgentContext, reason } from './context.js';
import type { LeadershipRegister } from './leadership-register.js';
import type { SetKeeper } from './set-keeper.js';
import { pause, Wakeup } from './signal.js';

export interface GrowthOptions {
  readonly context: AgentContext;
  readonly volume: () => VolumeObject;
  /** The leadership object as the watch last showed it: the wish is put there by others. */
  readonly seen: () => Leadership | null;
  readonly assembly: Assembly;
  readonly register: LeadershipRegister;
  readonly keeper: SetKeeper;
  readonly holder: Holder;
  readonly retryMs: number;
  /** Puts the size that is served now into the volume's object. */
  readonly publish: (servedBytes: number, signal: AbortSignal) => Promise<void>;
  readonly onChange: () => void;
}

export class GrowthWorker {
  readonly #options: GrowthOptions;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #problem: string | null = null;

  constructor(options: GrowthOptions) {
    this.#options = options;
  }

  /** What the growth waits for. */
  get problem(): string | null {
    return this.#problem;
  }

  start(): void {
    this.#running = this.#work();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('growth worker stopped'));
    await this.#running;
  }

  /** The wish or a replica may have changed. */
  poke(): void {
    this.#wakeup.wake();
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    const { context, retryMs } = this.#options;
    while (!signal.aborted) {
      try {
        if ((await this.#advance(signal)) === 'again') continue;
        this.#note(null);
        await this.#wakeup.wait(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#note(reason(error));
        await pause(context.clock, retryMs, signal);
      }
    }
  }

  #note(problem: string | null): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#options.onChange();
  }

  async #advance(signal: AbortSignal): Promise<'done' | 'again'> {
    const { register, holder, assembly, volume, seen } = this.#options;
    if (JSON.stringify(seen()?.size) !== JSON.stringify(register.known.size)) await register.refresh(signal);
    // Another one drives it: this assembly ends without this worker's doing.
    if (!holds(register.known, holder) || register.known.epoch !== assembly.epoch) return 'done';
    const step = planGrowth(volume(), register.known);
    if (step.do === 'nothing') return 'done';
    await this.#carryOut(step, signal);
    return step.do === 'publish' ? 'done' : 'again';
  }

  async #carryOut(step: Exclude<GrowthStep, { do: 'nothing' }>, signal: AbortSignal): Promise<void> {
    const { assembly, context, publish, volume } = this.#options;
    if (step.do === 'publish') {
      await ensureSlot(context.engine, volume(), step.servedBytes);
      await publish(step.servedBytes, signal);
      context.log.info({ volume: volume().name, sizeBytes: step.servedBytes }, 'volume has grown');
      return;
    }
    if (step.do === 'pin') {
      const lacking = await assembly.lacksRoomFor(step.wantedBytes);
      if (lacking !== null) throw new Error(lacking);
      await this.#swap((present) => planGrowing(present, step.wantedBytes), signal);
      await this.#keep(signal);
      return;
    }
    await assembly.lengthenLegs(step.wantedBytes);
    await this.#swap(planServed, signal);
  }

  /** Members say themselves how long their leg may be: where its end is looked for when the store is lost. */
  async #keep(signal: AbortSignal): Promise<void> {
    const { keeper, register } = this.#options;
    const { failed } = await keeper.keep(register.versioned, signal);
    if (failed.length > 0) throw new Error(`replica ${failed[0]?.replica} does not keep how large the volume is`);
  }

  /** Someone else's change in between is no matter: the next step is planned on it. */
  async #swap(plan: (present: Leadership) => Leadership | null, signal: AbortSignal): Promise<void> {
    const { register, holder, assembly } = this.#options;
    const mine = (present: Leadership): boolean => holds(present, holder) && present.epoch === assembly.epoch;
    await register.swap((present) => (mine(present) ? plan(present) : null), signal);
  }
}
