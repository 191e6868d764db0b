// SPDX-License-Identifier: Apache-2.0
//
// Drives one volume from this process: takes the right to, assembles it in the engine, keeps its in-sync sets true, and
// gives it away. Daemons and embedding programs use the same class.
//
//   idle → promoting → active → (closing →) idle        active → promoting when every replica of a leg failed
//                                                       closing → active when giving it away takes too long
//
// Invariants:  - fence, then serve: nothing is served under an epoch before that epoch is in the store, the members were
//                taken over, those that were not have left by swap, and old read leases have run out
//              - what this class does not know for sure (an unknown outcome) it finds out before it goes on
//              - nobody takes the right to drive an encrypted volume without its key in hand
//              - a volume is taken back only under an epoch that its members may still obey, and only where what the store
//                says, or may come to say, does not promise that nothing was written since
//              - one transition at a time; `stop` ends whichever is under way

import { unwrapDataKey } from '../model/cluster-key.js';
import { BasaltError, isBasaltError } from '../model/errors.js';
import type { Leadership, MemberState, VolumeObject } from '../model/objects.js';
import { volumeSize } from '../reconcile/growth.js';
import {
  type Holder,
  holds,
  isGranted,
  isTakenAsIs,
  planAccept,
  planDirectGrant,
  planGrant,
  planHandOver,
  planNewEpoch,
  planTakeover,
} from '../reconcile/membership.js';
import { Assembly, type AssemblyShape, ensureSlot } from './assembly.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { GrowthWorker } from './growth-worker.js';
import { type LeadershipPort, LeadershipRegister, type Versioned } from './leadership-register.js';
import { MembershipWorker } from './membership-worker.js';
import { noIdentity } from './node-identity.js';
import { type ScrubPort, ScrubWorker } from './scrub-worker.js';
import { SetKeeper } from './set-keeper.js';
import { Backoff, pause, whenAborted } from './signal.js';
import type { SnapshotPort } from './snapshot-port.js';
import { SnapshotWorker } from './snapshot-worker.js';
import { type AttachedMember, type ResolveReplica, takeOver } from './takeover.js';

export type ControllerState = 'idle' | 'promoting' | 'active' | 'closing';

export interface VolumeControllerOptions {
  readonly context: AgentContext;
  readonly volume: VolumeObject;
  readonly name: string;
  readonly leadership: LeadershipPort;
  readonly resolve: ResolveReplica;
  /**
   * The right to drive the volume was taken: what others may have changed before can be read now. Awaited before serving
   * begins. `granted`: the leadership that gave it, when the last holder did so.
   */
  readonly onRight?: (granted: Versioned<Leadership> | null, signal: AbortSignal) => Promise<void>;
  /** Called before serving begins, and before it ends; what it does is awaited. */
  readonly onServing: (serving: boolean) => Promise<void>;
  /** Puts the size that is served now into the volume's object, where it is larger than what that says. */
  readonly publishSize: (servedBytes: number, signal: AbortSignal) => Promise<void>;
  /** Whether another one may reach replicas that this one does not. Absent: nobody else drives the volume. */
  readonly othersMayTry?: () => boolean;
  /** Absent: nobody asks this controller for snapshots. */
  readonly snapshots?: SnapshotPort;
  /** Absent: nobody asks this controller for scrubs. */
  readonly scrubs?: ScrubPort;
  /** Something that `view` shows is different. */
  readonly onChange: () => void;
  readonly timing?: Partial<ControllerTiming>;
}

export interface ControllerTiming {
  readonly attachTimeoutMs: number;
  readonly attachRetryMs: number;
  /** How long members are waited for when none of a leg is known to have kept its cache. */
  readonly graceMs: number;
  /** How long one that cannot be done without is waited for, the first time, when another controller may reach it. */
  readonly elsewhereMs: number;
  readonly rejoinMs: number;
  readonly quiesceTimeoutMs: number;
  /** How long hosts wait while a volume is given away; then it is served on from here. */
  readonly takeBackMs: number;
  /** How long a host's reservation command waits for the store. */
  readonly reservationMs: number;
}

export const controllerTiming: ControllerTiming = Object.freeze({
  attachTimeoutMs: 800,
  attachRetryMs: 200,
  graceMs: 10_000,
  elsewhereMs: 1_500,
  rejoinMs: 500,
  quiesceTimeoutMs: 5_000,
  takeBackMs: 1_000,
  reservationMs: 8_000,
});

/** Another controller may have what this one lacks. */
const keyErrors = ['CLUSTER_KEY_MISSING', 'CLUSTER_KEY_FILE', 'VOLUME_KEY_DAMAGED'] as const;

/** That another one has the volume is nothing that is wrong with this one. */
const lostErrors = ['VOLUME_LED', 'VOLUME_FENCED'] as const;

/** Another store is in force: nothing that happens in this one changes that. */
const lastingErrors = [...keyErrors, 'STORE_OUTDATED'] as const;

/** Why this controller does not serve. */
interface Problem {
  readonly text: string;
  /** The volume's, when it was found. */
  readonly epoch: number;
  /** It does not end because somebody else drives the volume. */
  readonly lasts: boolean;
}

/** How long a disk node may take to learn that this controller is admitted. */
const admissionMs = 2_000;
/** From one look at a leg that waits for a member to be let go to the next one. */
const consentLookMs = 5;

export interface ControllerView {
  readonly state: ControllerState;
  readonly epoch: number;
  readonly resyncing: boolean;
  readonly legs: { replica: string; state: MemberState }[][];
  readonly problem: string | null;
  /** What growing waits for. */
  readonly growth: string | null;
}

export interface HandOverOptions {
  /** The instance that the successor has for an epoch that is granted to it; null: it draws one when it accepts it. */
  readonly instance?: (epoch: number) => string | null;
  /** Whether another one is known to have gone on with the epoch that was granted; false when the signal aborts before. */
  readonly followed?: (epoch: number, signal: AbortSignal) => Promise<boolean>;
}

interface HandOverRecord {
  /** Null: as it was recorded before. */
  readonly clean: boolean | null;
  readonly to: string | null;
  readonly instanceFor?: (epoch: number) => string | null;
  /** It may be taken back yet: nothing is promised about what is written. */
  readonly mayReturn?: boolean;
}

/** What becomes of a volume that was to be given away. */
type GivenAway = 'clean' | 'unclean' | 'taken back';

export interface PromoteOptions {
  readonly takeover: boolean;
  readonly seenEpoch?: number;
  /** An epoch that the last holder drew for this controller, as it stands in the store: it is used as it is. */
  readonly granted?: Versioned<Leadership> | null;
  /** As the watch showed it: the swap for a new epoch expects just that, without asking the store first. */
  readonly seen?: Versioned<Leadership> | null;
  readonly signal?: AbortSignal;
}

export class VolumeController {
  readonly #options: VolumeControllerOptions;
  readonly #timing: ControllerTiming;
  readonly #register: LeadershipRegister;
  readonly #log: RateLimitedLog;
  #volume: VolumeObject;
  #state: ControllerState = 'idle';
  #assembly: Assembly | null = null;
  #worker: MembershipWorker | null = null;
  #growth: GrowthWorker | null = null;
  #snapshots: SnapshotWorker | null = null;
  #scrubs: ScrubWorker | null = null;
  /** As the watch last showed it. */
  #seen: Leadership | null = null;
  #holder: Holder | null = null;
  /** The object that the present epoch was made from. */
  #before: Leadership | null = null;
  #unsubscribe: (() => void) | null = null;
  #life = new AbortController();
  #transition: Promise<unknown> = Promise.resolve();
  #problem: Problem | null = null;
  #dirty = false;
  #fencedBy = 0;
  /** The epoch that this one granted to another, or may have, and goes on without. */
  #lent: number | null = null;
  /** How often in a row it gave the right back, since it reaches too few replicas. */
  #yields = 0;
  #yieldedAt: number | null = null;
  /** What was adopted of the last holder, for the present epoch. */
  #granted: Versioned<Leadership> | null = null;
  /** Of `onRight`, for the present epoch. */
  #ready: Promise<void> = Promise.resolve();
  #takesRight = false;
  #sequence = 0;

  constructor(options: VolumeControllerOptions) {
    this.#options = options;
    this.#timing = { ...controllerTiming, ...options.timing };
    this.#volume = options.volume;
    this.#log = new RateLimitedLog(options.context.log, options.context.clock);
    const { clock } = options.context;
    this.#register = new LeadershipRegister({
      port: options.leadership,
      clock,
      log: this.#log,
      volumeId: options.volume.id,
    });
  }

  get state(): ControllerState {
    return this.#state;
  }

  /** Serves under an earlier epoch than the one which it granted, or may have granted, to somebody who did not come. */
  get lentEpoch(): number | null {
    return this.#lent;
  }

  /** The epoch that it had when it left the volume to others: it lets these try first. Null: it has not, or somebody serves it. */
  get yieldedAt(): number | null {
    return this.#yieldedAt;
  }

  /** Somebody serves it. */
  forgetYields(): void {
    this.#yields = 0;
    this.#yieldedAt = null;
  }

  /** Of the leadership object that names this controller; null: it names none, or another one, as far as is known. */
  get rightRevision(): number | null {
    const drives = this.#state === 'active' || this.#state === 'promoting';
    if (!drives || this.#holder === null || !this.#register.isKnown) return null;
    return holds(this.#register.known, this.#holder) ? this.#register.versioned.revision : null;
  }

  /** The same, after asking the store; waits for it as long as the signal lets it. */
  async confirmRight(signal: AbortSignal): Promise<number | null> {
    if (this.rightRevision !== null) await this.#register.refresh(signal);
    return this.rightRevision;
  }

  /** It is on the way to an epoch of its own, and still serves under the old one. */
  get takesRight(): boolean {
    return this.#takesRight;
  }

  get view(): ControllerView {
    const known = this.#register.isKnown ? this.#register.known : null;
    const joining = this.#worker?.joining ?? new Set<string>();
    const stateOf = (replica: string, leg: number): MemberState => {
      if (known?.legs[leg]?.inSync.some((entry) => entry.replica === replica) === true) return 'in_sync';
      return joining.has(replica) ? 'joining' : 'out';
    };
    return {
      state: this.#state,
      epoch: this.#assembly?.epoch ?? known?.epoch ?? 0,
      resyncing: this.#state === 'active' && this.#dirty,
      legs: this.#volume.legs.map(({ replicas }, leg) =>
        replicas.map(({ replica }) => ({ replica, state: stateOf(replica, leg) })),
      ),
      problem: this.#problem?.text ?? null,
      growth: this.#growth?.problem ?? null,
    };
  }

  /** Hosts and wishes may change; placement of a volume that is served does not. */
  update(volume: VolumeObject, leadership: Leadership | null): void {
    this.#seen = leadership;
    if (this.#isOver(this.#problem)) {
      this.#problem = null;
      this.#options.onChange();
    }
    const replaced = JSON.stringify(volume.legs) !== JSON.stringify(this.#volume.legs);
    this.#volume = volume;
    if (replaced && this.#state === 'active') void this.#assembly?.keepMarks(volume);
  }

  /** A replica's node may have come back. */
  poke(): void {
    this.#worker?.poke();
    this.#growth?.poke();
    this.#snapshots?.poke();
    this.#scrubs?.poke();
  }

  /**
   * Resolves when the volume is served from here. `seenEpoch`: the epoch that the wish to promote was made under; a
   * volume that changed hands since is left alone.
   * @throws VOLUME_LED when someone else holds it and `takeover` is not set or its epoch is not `seenEpoch`, VOLUME_FENCED when another one won,
   *         VOLUME_UNAVAILABLE when a leg has no member that can be reached; for an encrypted volume CLUSTER_KEY_MISSING,
   *         CLUSTER_KEY_FILE and VOLUME_KEY_DAMAGED, with nothing changed
   */
  promote(options: PromoteOptions): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#state === 'active' && this.#lent === null) return;
      // What is served without the right goes on until there is a right to more: the store may be away again.
      const isRightful = this.#state === 'active';
      if (isRightful) await this.#takeRightWhileServing(options);
      await this.#disassemble();
      this.#takesRight = false;
      this.#life = new AbortController();
      const signal =
        options.signal === undefined ? this.#life.signal : AbortSignal.any([this.#life.signal, options.signal]);
      this.#setState('promoting');
      try {
        await this.#withKey(async (dataKey) => {
          if (!isRightful && !this.#adopt(options.granted ?? null)) await this.#takeRight(options, signal);
          await this.#assemble(dataKey, signal);
        });
      } catch (error) {
        await this.#disassemble();
        this.#note(error);
        if (lacksKey(error)) await this.#passOn(signal);
        else if (this.#reachesTooFew(error, signal)) await this.#yield(signal);
        this.#setState('idle');
        throw error;
      }
    });
  }

  async #takeRightWhileServing(options: PromoteOptions): Promise<void> {
    const life = this.#life.signal;
    const signal = options.signal === undefined ? life : AbortSignal.any([life, options.signal]);
    this.#takesRight = true;
    try {
      await this.#withKey(async () => {
        if (!this.#adopt(options.granted ?? null)) await this.#takeRight(options, signal);
      });
      signal.throwIfAborted();
    } catch (error) {
      this.#takesRight = false;
      throw error;
    }
  }

  #reachesTooFew(error: unknown, signal: AbortSignal): boolean {
    return isBasaltError(error, 'VOLUME_UNAVAILABLE') && !signal.aborted && this.#othersMayTry;
  }

  get #othersMayTry(): boolean {
    return this.#options.othersMayTry?.() ?? false;
  }

  /**
   * Whoever reaches the store and too few replicas stands in nobody's way who reaches more. Each time in a row it waits twice
   * as long for them: when nobody reaches them, the right goes round slowly.
   */
  async #yield(during: AbortSignal): Promise<void> {
    await this.#release(during);
    const { controller, epoch } = this.#register.known;
    if (controller !== null) return;
    this.#yields += 1;
    this.#yieldedAt = epoch;
    this.#holder = null;
    const { name } = this.#volume;
    this.#options.context.log.warn(
      { volume: name, epoch },
      'too few replicas are reached: the volume is left to others',
    );
  }

  /** Whoever is on record from an earlier life and has lost the key since stands in nobody's way who has it. */
  async #passOn(signal: AbortSignal): Promise<void> {
    try {
      const present = await this.#register.refresh(signal);
      if (present.controller !== this.#options.name) return;
      await this.#takeRight({ takeover: true, seenEpoch: present.epoch }, signal);
      await this.#release();
      this.#holder = null;
    } catch (error) {
      this.#log.warn('pass on', { volume: this.#volume.name, error: reason(error) }, 'the right was not given back');
    }
  }

  /**
   * Gives the volume away in good order, to `to` when one is named. Resolves with whether it was left clean. A promotion that is under way, or waits
   * for replicas, ends first. With `followed` it is taken back when nobody goes on with it in time: it is active then.
   */
  handOver(to: string | null = null, options: HandOverOptions = {}): Promise<boolean> {
    if (this.#state === 'promoting') this.#life.abort(new Error('the volume is handed over'));
    return this.#exclusive(async () => {
      if (this.#state !== 'active' || this.#assembly === null) {
        await this.#release();
        return false;
      }
      this.#setState('closing');
      // It holds requests and lets them go, as what follows does.
      await this.#snapshots?.stop();
      const given = await this.#giveAway(this.#assembly, to, options);
      if (given === 'taken back') return false;
      await this.#disassemble();
      this.#setState('idle');
      return given === 'clean';
    });
  }

  async #giveAway(assembly: Assembly, to: string | null, options: HandOverOptions): Promise<GivenAway> {
    const { clean, unmarked } = await this.#settle(assembly);
    const instanceFor = (epoch: number): string | null => (unmarked ? (options.instance?.(epoch) ?? null) : null);
    const granted = assembly.epoch + 1;
    const direct = this.#heir(to) !== null && instanceFor(granted) !== null;
    if (options.followed === undefined || (clean && !direct)) {
      await this.#worker?.stop();
      const recorded = await this.#recordUnlessFailed({ clean, to, instanceFor }, this.#life.signal);
      return recorded && clean ? 'clean' : 'unclean';
    }
    // The worker goes on: it is needed when the volume is taken back.
    const { clock } = this.#options.context;
    const ending = new AbortController();
    const timer = clock.setTimer(this.#timing.takeBackMs, () => ending.abort(new Error('nobody went on in time')));
    const signal = AbortSignal.any([this.#life.signal, ending.signal]);
    try {
      const recording = this.#recordUnlessFailed({ clean, to, instanceFor, mayReturn: true }, signal);
      const recorded = await Promise.race([recording, whenAborted(signal).then(() => false)]);
      if (recorded && !direct) return 'unclean';
      if (recorded && (await options.followed(granted, signal))) return 'clean';
    } finally {
      timer.cancel();
    }
    return (await this.#takeBack(assembly, granted)) ? 'taken back' : 'unclean';
  }

  /** Under the same epoch, with everything that it had. False: somebody else has it, or it is to be given up at once. */
  async #takeBack(assembly: Assembly, granted: number): Promise<boolean> {
    const { context, onServing } = this.#options;
    try {
      // By asking the members: whoever has begun to take them over has fenced this one.
      await assembly.settle();
      const holder = this.#holder;
      if (holder === null || this.#life.signal.aborted || (await assembly.isFenced())) return false;
      this.#lent = granted;
      // Where it is placed may have changed meanwhile.
      await assembly.keepMarks(this.#volume);
      await onServing(true);
      await context.engine.rpc('basalt_slot_resume', { name: await ensureSlot(context.engine, this.#volume) });
      this.#snapshots = this.#snapshotWorker(assembly, holder);
      this.#snapshots?.start();
    } catch (error) {
      this.#log.warn('take back', { volume: this.#volume.name, error: reason(error) }, 'volume was not taken back');
      return false;
    }
    context.log.warn({ volume: this.#volume.name, epoch: assembly.epoch }, 'nobody went on in time: volume taken back');
    this.#setState('active');
    return true;
  }

  /** It may have left the controllers while I/O was being settled. */
  #heir(to: string | null): string | null {
    return to !== null && this.#volume.controllers.includes(to) ? to : null;
  }

  /** Gives back a right under which nothing is served from here. */
  async #release(during?: AbortSignal): Promise<void> {
    if (this.#holder === null || !this.#register.isKnown || this.#assembly !== null) return;
    this.#life = new AbortController();
    const { signal } = this.#life;
    const both = during === undefined ? signal : AbortSignal.any([signal, during]);
    await this.#recordUnlessFailed({ clean: null, to: null }, both);
  }

  async #recordUnlessFailed(record: HandOverRecord, signal: AbortSignal): Promise<boolean> {
    try {
      return await this.#recordHandOver(record, signal);
    } catch (error) {
      this.#log.warn('hand-over', { volume: this.#volume.name, error: reason(error) }, 'hand-over was not recorded');
      return false;
    }
  }

  async #recordHandOver(record: HandOverRecord, signal: AbortSignal): Promise<boolean> {
    const holder = this.#holder;
    const plan = (present: Leadership): Leadership => {
      const { clean, instanceFor, mayReturn = false } = record;
      const heir = this.#heir(record.to);
      const instance = instanceFor?.(present.epoch + 1) ?? null;
      if (mayReturn && (heir === null || instance === null)) return planHandOver(present, false);
      if (clean !== true || heir === null) return planHandOver(present, clean ?? present.clean);
      return instance === null ? planGrant(present, heir) : planDirectGrant(present, { controller: heir, instance });
    };
    while (holder !== null && holds(this.#register.known, holder)) {
      let mine = true;
      const swapped = await this.#register.swap((present) => {
        mine = holds(present, holder);
        return mine ? plan(present) : null;
      }, signal);
      if (swapped) return mine;
    }
    return false;
  }

  /** Ends serving at once, without giving the right away: what another controller's takeover calls for. */
  demote(why: string): Promise<void> {
    this.#life.abort(new Error(why));
    // At once, not after the transition that is under way: that one may be waiting for I/O that only fencing ends.
    this.#fence(this.#assembly);
    return this.#exclusive(async () => {
      this.#holder = null;
      if (this.#state === 'idle' && this.#assembly === null) return;
      this.#options.context.log.info({ volume: this.#volume.name, why }, 'controller demoted');
      await this.#disassemble();
      this.#problem = null;
      this.#setState('idle');
    });
  }

  #exclusive<T>(run: () => Promise<T>): Promise<T> {
    const next = this.#transition.then(run, run);
    this.#transition = next.catch(() => {});
    return next;
  }

  #note(error: unknown): void {
    const is = (code: (typeof lostErrors | typeof lastingErrors)[number]): boolean => isBasaltError(error, code);
    const epoch = this.#register.isKnown ? this.#register.known.epoch : 0;
    const problem = { text: reason(error), epoch, lasts: lastingErrors.some(is) };
    this.#problem = lostErrors.some(is) || this.#isOver(problem) ? null : problem;
  }

  /** Somebody else took the volume since, and what stood in this one's way then may stand in nobody's now. */
  #isOver(problem: Problem | null): boolean {
    if (problem === null || problem.lasts || this.#seen === null) return false;
    return this.#seen.controller !== this.#options.name && this.#seen.epoch > problem.epoch;
  }

  #setState(state: ControllerState): void {
    this.#state = state;
    if (state === 'active') this.#problem = null;
    this.#options.onChange();
  }

  /** The data key, of an encrypted volume, for the time of `run` only. */
  async #withKey(run: (dataKey: Buffer | null) => Promise<void>): Promise<void> {
    const { id, name, encryption } = this.#volume;
    if (encryption === undefined) return run(null);
    const ring = (await this.#options.context.keys?.ring()) ?? null;
    const dataKey = unwrapDataKey(ring, { id, name, encryption });
    try {
      await run(dataKey);
    } finally {
      dataKey.fill(0);
    }
  }

  /** Step 1, when the last holder did it for this one. A swap after it, or the members, find out whether it still holds. */
  #adopt(granted: Versioned<Leadership> | null): boolean {
    const { name, context } = this.#options;
    this.#granted = null;
    if (granted === null || granted.value.controller !== name || granted.value.epoch <= this.#fencedBy) return false;
    if (granted.value.instance === null && !isGranted(granted.value, name)) return false;
    this.#register.assume(granted);
    this.#granted = granted;
    this.#before = granted.value;
    this.#holder = { controller: name, instance: granted.value.instance ?? context.random.uuid() };
    return true;
  }

  /** Step 1: a new epoch by swap, which gives the in-sync sets. */
  async #takeRight(wish: PromoteOptions, signal: AbortSignal): Promise<void> {
    const present = this.#assumed(wish.seen ?? null) ?? (await this.#register.refresh(signal));
    const { name } = this.#options;
    const { takeover, seenEpoch = present.epoch } = wish;
    if (present.epoch !== seenEpoch && present.controller !== null && present.controller !== name)
      throw this.#led(present);
    if (!takeover && present.controller !== null && present.controller !== name) throw this.#led(present);
    const holder = { controller: name, instance: this.#options.context.random.uuid() };
    this.#granted = null;
    for (let before = present; ; before = this.#register.known) {
      this.#before = before;
      if (await this.#register.swap((now) => planNewEpoch(now, holder, this.#fencedBy), signal)) break;
      // A wish about the volume's size is no reason to leave it alone.
      const now = this.#register.known;
      if (now.epoch !== before.epoch || now.controller !== before.controller || now.instance !== before.instance)
        throw this.#led(now);
    }
    this.#holder = holder;
  }

  /** Null: the store has to be asked. Whatever is newer than what was seen makes the swap fail. */
  #assumed(seen: Versioned<Leadership> | null): Leadership | null {
    if (seen === null || this.#lent !== null) return null;
    if (this.#register.isKnown && this.#register.versioned.revision > seen.revision) return null;
    this.#register.assume(seen);
    return seen.value;
  }

  #led(present: Leadership): BasaltError {
    const fields = { name: this.#volume.name, controller: present.controller ?? 'nobody', epoch: present.epoch };
    return new BasaltError('VOLUME_LED', fields);
  }

  /** Steps 2 to 5: members, sets, old leases, legs. */
  async #assemble(dataKey: Buffer | null, signal: AbortSignal): Promise<void> {
    const { context } = this.#options;
    const { epoch } = this.#register.known;
    const sequence = `${epoch}.${++this.#sequence}`;
    const assembly = new Assembly({ engine: context.engine, log: context.log, volume: this.#volume, epoch, sequence });
    this.#assembly = assembly;
    this.#ready = this.#options.onRight?.(this.#granted, signal) ?? Promise.resolve();
    // Whoever fails before it is awaited has a reason of its own.
    this.#ready.catch(() => {});
    const before = this.#register.known;
    const size = volumeSize(this.#volume, before);
    await ensureSlot(context.engine, this.#volume, size.servedBytes);
    const taken = await this.#takeMembers(assembly, before, signal);
    const plan = planTakeover(before, taken);
    const takenAtMs = context.clock.now();
    const { leaseMs, begun } = before;
    const shape = { allDirty: !before.clean, leaseMs, size, begun, dataKey };
    if (context.planted?.promoteBeforeTakeover === true && plan.empty.length === 0) {
      await this.#swapAsHolder((present) => ({ ...present, clean: false }), signal);
      await this.#serve(assembly, { ...shape, members: taken }, { sets: before.legs, someLeft: false, signal });
      return;
    }
    if (plan.next === null) throw this.#unavailable(plan.empty);
    if (isGranted(before, this.#options.name)) await this.#accept(before.epoch, taken, signal);
    else
      await this.#swapAsHolder((present) => {
        const { next } = planTakeover(present, taken);
        return next === null || isTakenAsIs(present, next) ? null : next;
      }, signal);
    for (const member of taken) {
      if (plan.left.some((entry) => entry.replica === member.replica)) await assembly.detach(member.name);
    }
    const signedStop = before.clean && (this.#before?.controller === null || isGranted(before, this.#options.name));
    const ignore = context.planted?.ignoreLeftoverLease === true;
    if (!plan.allTaken && !signedStop && !ignore) await this.#outwaitLeases(before, takenAtMs, signal);
    const stay = taken.filter((member) => !plan.left.some((entry) => entry.replica === member.replica));
    const someLeft = plan.left.length > 0;
    await this.#serve(assembly, { ...shape, members: stay }, { sets: before.legs, someLeft, signal });
  }

  async #takeMembers(assembly: Assembly, leadership: Leadership, signal: AbortSignal): Promise<AttachedMember[]> {
    const { context, resolve, name } = this.#options;
    const { graceMs, elsewhereMs } = this.#timing;
    const giveUpAtMs = context.clock.now() + graceMs;
    const emptyMs = this.#othersMayTry ? Math.min(graceMs, elsewhereMs * 2 ** this.#yields) : graceMs;
    const emptyUntilMs = context.clock.now() + emptyMs;
    const admittedByMs = context.clock.now() + Math.min(admissionMs, this.#timing.graceMs);
    const { engine, clock, log, identity = noIdentity } = context;
    const attacher = { engine, clock, log, resolve, controller: name, identity };
    let attempt = 0;
    const outcome = await takeOver(
      attacher,
      {
        leadership,
        nameOf: (member) => assembly.memberName(member, `t${++attempt}`),
        timeoutMs: this.#timing.attachTimeoutMs,
        retryMs: this.#timing.attachRetryMs,
        onTaken: (member) => assembly.adopt(member),
        again: (taken, refused) => {
          const plan = planTakeover(leadership, taken);
          if (context.planted?.promoteBeforeTakeover === true && plan.empty.length === 0) return false;
          if (refused && context.clock.now() < admittedByMs) return true;
          if (plan.empty.length > 0) return context.clock.now() < emptyUntilMs;
          return plan.doubtful.length > 0 && context.clock.now() < giveUpAtMs;
        },
      },
      signal,
    );
    if (outcome.fencedBy === 0) return outcome.taken;
    this.#fencedBy = Math.max(this.#fencedBy, outcome.fencedBy);
    const now = await this.#register.refresh(signal);
    throw new BasaltError('VOLUME_FENCED', { name: this.#volume.name, epoch: Math.max(now.epoch, outcome.fencedBy) });
  }

  /** Makes a granted epoch this instance's own. */
  async #accept(epoch: number, taken: readonly AttachedMember[], signal: AbortSignal): Promise<void> {
    const holder = this.#holder;
    while (holder !== null) {
      const swapped = await this.#register.swap((present) => planAccept(present, { epoch, holder, taken }), signal);
      if (holds(this.#register.known, holder)) return;
      if (swapped || !isGranted(this.#register.known, holder.controller)) break;
    }
    throw new BasaltError('VOLUME_FENCED', { name: this.#volume.name, epoch: this.#register.known.epoch });
  }

  async #swapAsHolder(plan: (present: Leadership) => Leadership | null, signal: AbortSignal): Promise<void> {
    const holder = this.#holder;
    while (holder !== null) {
      const swapped = await this.#register.swap(plan, signal);
      if (!holds(this.#register.known, holder)) break;
      if (swapped) return;
    }
    throw new BasaltError('VOLUME_FENCED', { name: this.#volume.name, epoch: this.#register.known.epoch });
  }

  /** A controller that was not reached answers reads until its leases end; the margin covers the two clocks' rates. */
  async #outwaitLeases(before: Leadership, takenAtMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.context;
    const endMs = takenAtMs + before.leaseMs * 1.1 + 10;
    while (clock.now() < endMs) await clock.sleep(endMs - clock.now(), signal);
  }

  async #serve(
    assembly: Assembly,
    shape: AssemblyShape,
    before: { sets: Leadership['legs']; someLeft: boolean; signal: AbortSignal },
  ): Promise<void> {
    const { context, resolve } = this.#options;
    const holder = this.#holder;
    if (holder === null) throw new BasaltError('INTERNAL', { detail: 'serving without holding' });
    const keeper = new SetKeeper({ context, volume: () => this.#volume, assembly });
    const worker = new MembershipWorker({
      context,
      volume: () => this.#volume,
      assembly,
      keeper,
      register: this.#register,
      holder,
      setsBefore: before.sets,
      resolve,
      attachTimeoutMs: this.#timing.attachTimeoutMs,
      rejoinMs: this.#timing.rejoinMs,
      onFenced: (why) => this.#lost(why),
      onStuck: (why) => this.#reassemble(worker, why),
      onChange: () => this.#refreshDirty(assembly),
    });
    this.#worker = worker;
    const growth = new GrowthWorker({
      context,
      volume: () => this.#volume,
      seen: () => this.#seen,
      assembly,
      keeper,
      register: this.#register,
      holder,
      retryMs: this.#timing.rejoinMs,
      publish: this.#options.publishSize,
      onChange: () => this.#options.onChange(),
    });
    this.#growth = growth;
    const snapshots = this.#snapshotWorker(assembly, holder);
    this.#snapshots = snapshots;
    const scrubs = this.#scrubWorker(assembly);
    this.#scrubs = scrubs;
    this.#unsubscribe = context.engine.on('event', (event) => worker.handle(event));
    // Where the last one settled everything for this one, the exception is that something may differ.
    const granted = this.#before?.instance === holder.instance;
    this.#dirty = shape.allDirty && !granted && shape.members.length > this.#volume.legs.length;
    if (before.someLeft) {
      await worker.begin(before.signal);
      await assembly.build(shape);
    } else await bothEnd(assembly.build(shape), worker.begin(before.signal));
    await this.#ready;
    await this.#options.onServing(true);
    this.forgetYields();
    this.#setState('active');
    worker.start();
    growth.start();
    snapshots?.start();
    scrubs?.start();
    // What the legs said before all of them were there was lost.
    if (shape.allDirty) this.#refreshDirty(assembly);
    context.log.info({ volume: this.#volume.name, epoch: assembly.epoch }, 'controller serves the volume');
  }

  #snapshotWorker(assembly: Assembly, holder: Holder): SnapshotWorker | null {
    const { context, snapshots } = this.#options;
    if (snapshots === undefined) return null;
    return new SnapshotWorker({
      context,
      volume: () => this.#volume,
      assembly,
      register: this.#register,
      holder,
      snapshots,
    });
  }

  #scrubWorker(assembly: Assembly): ScrubWorker | null {
    const { context, scrubs } = this.#options;
    if (scrubs === undefined) return null;
    return new ScrubWorker({
      context,
      volume: () => this.#volume,
      assembly,
      scrubs,
      retryMs: this.#timing.rejoinMs,
    });
  }

  #refreshDirty(assembly: Assembly): void {
    assembly
      .isClean()
      .then((clean) => {
        this.#dirty = !clean;
      })
      .catch(() => {})
      .finally(() => this.#options.onChange());
  }

  /** No request is in flight afterwards, and none comes: whoever is served from here has been told to look elsewhere. */
  async #settle(assembly: Assembly): Promise<{ clean: boolean; unmarked: boolean }> {
    const { engine, log, clock } = this.#options.context;
    try {
      await this.#options.onServing(false);
      const name = await ensureSlot(engine, this.#volume);
      await engine.rpc('basalt_slot_quiesce', { name, timeout_ms: this.#timing.quiesceTimeoutMs });
      const endMs = clock.now() + this.#timing.quiesceTimeoutMs;
      let settled = await assembly.settle();
      // A member that failed is about to leave: what is written is stable on those that stay.
      while (!settled.clean && !this.#life.signal.aborted && clock.now() < endMs && (await assembly.isWaiting())) {
        await pause(clock, consentLookMs, this.#life.signal);
        settled = await assembly.settle();
      }
      return settled;
    } catch (error) {
      log.warn({ volume: this.#volume.name, error: reason(error) }, 'volume is given away unclean');
      return { clean: false, unmarked: false };
    }
  }

  #fence(assembly: Assembly | null): void {
    assembly?.fence().catch((error) => this.#log.warn('fence', { error: reason(error) }, 'fencing failed'));
  }

  #lost(why: string): void {
    this.demote(why).catch((error) => this.#log.warn('demote', { error: reason(error) }, 'demotion failed'));
  }

  /** I/O waits while no member of a leg can be had; the volume goes on under a new epoch as soon as one is back. */
  #reassemble(of: MembershipWorker, why: string): void {
    const signal = this.#life.signal;
    if (this.#state === 'closing') this.#fence(this.#assembly);
    const run = async (): Promise<void> => {
      // What could not begin to serve was told so by its own promotion, and is followed by another one.
      if (this.#state !== 'active' || signal.aborted || this.#worker !== of) return;
      this.#options.context.log.warn({ volume: this.#volume.name, why }, 'volume waits for its replicas');
      this.#setState('promoting');
      this.#note(new Error(why));
      const backoff = new Backoff({ clock: this.#options.context.clock, minMs: 50, maxMs: 2_000 });
      while (!signal.aborted) {
        await this.#disassemble();
        try {
          await this.#withKey(async (dataKey) => {
            await this.#takeRight({ takeover: false }, signal);
            await this.#assemble(dataKey, signal);
          });
          return;
        } catch (error) {
          this.#note(error);
          if (isBasaltError(error, 'VOLUME_LED') || isBasaltError(error, 'NOT_FOUND')) break;
          if (lacksKey(error)) {
            await this.#passOn(signal);
            break;
          }
          this.#log.warn('reassemble', { volume: this.#volume.name, error: reason(error) }, 'volume still waits');
          if (this.#reachesTooFew(error, signal)) {
            await this.#disassemble();
            if (!signal.aborted) await this.#yield(signal);
            break;
          }
        }
        this.#options.onChange();
        await backoff.wait(signal).catch(() => {});
      }
      await this.#disassemble();
      this.#setState('idle');
    };
    this.#exclusive(run).catch((error) => this.#log.warn('reassemble', { error: reason(error) }, 'reassembly failed'));
  }

  /** Fence first: what is in flight ends with path errors, then everything of the epoch goes. */
  async #disassemble(): Promise<void> {
    const assembly = this.#assembly;
    this.#assembly = null;
    this.#lent = null;
    this.#unsubscribe?.();
    this.#unsubscribe = null;
    const worker = this.#worker;
    this.#worker = null;
    const growth = this.#growth;
    this.#growth = null;
    const snapshots = this.#snapshots;
    this.#snapshots = null;
    const scrubs = this.#scrubs;
    this.#scrubs = null;
    if (assembly === null) return;
    await assembly.fence();
    await this.#options
      .onServing(false)
      .catch((error) => this.#log.warn('serving', { error: reason(error) }, 'paths could not be closed'));
    await worker?.stop();
    await growth?.stop();
    await snapshots?.stop();
    await scrubs?.stop();
    await assembly.tearDown();
    const { engine } = this.#options.context;
    await engine.rpc('basalt_slot_resume', { name: await ensureSlot(engine, this.#volume) }).catch(() => {});
  }

  #unavailable(legs: readonly number[]): BasaltError {
    const { erasure } = this.#volume;
    const few = erasure === undefined ? 'no replica' : `fewer than ${erasure.data} replicas`;
    const detail = `${few} of leg ${legs.join(', ')} can be reached`;
    return new BasaltError('VOLUME_UNAVAILABLE', { name: this.#volume.name, detail });
  }
}

function lacksKey(error: unknown): boolean {
  return keyErrors.some((code) => isBasaltError(error, code));
}

/** Both have ended, also when one of them failed: what is torn down then is all there is. */
async function bothEnd(...both: Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(both)) if (outcome.status === 'rejected') throw outcome.reason;
}
