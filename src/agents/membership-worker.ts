// SPDX-License-Identifier: Apache-2.0
//
// Changes of the in-sync sets while a volume is served: shrinking after failures, joining after copies. One worker per
// assembly; its steps run one after the other, so every swap starts from what the last one left.
//
// Invariants:  - the engine is told to go on without a member only after the swap that removed it is known to be in the store
//              - all members keep the set that is in force themselves before anything is acknowledged under it (set-keeper.ts)
//              - a set that nobody is there to keep is swapped back to the one before: the one who left may be the only one who
//                has everything
//              - a copied member counts only after its swap; one that fails meanwhile is swapped out before it is given up
//              - a member of a leg with parity that has a successor is let go after the swap that exchanged the two, and when
//                the engine knows of it and the successor has not failed by then
//              - a successor never stands in the set beside a member of its own node that it could have taken over from
//              - failures go first: they are what makes writes wait

import { type EngineEvent, isEngineError } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import type { InSyncMember, Leadership, VolumeObject } from '../model/objects.js';
import {
  type Holder,
  holds,
  type MemberRef,
  outOfSync,
  planJoin,
  planRestore,
  planRetire,
  planShrink,
} from '../reconcile/membership.js';
import type { Assembly } from './assembly.js';
import { type AgentContext, reason } from './context.js';
import type { LeadershipRegister } from './leadership-register.js';
import { noIdentity } from './node-identity.js';
import type { KeepOutcome, SetKeeper } from './set-keeper.js';
import { pause, Wakeup } from './signal.js';
import { type AttachedMember, attachMember, type ResolveReplica } from './takeover.js';

export interface WorkerOptions {
  readonly context: AgentContext;
  readonly volume: () => VolumeObject;
  readonly assembly: Assembly;
  readonly register: LeadershipRegister;
  readonly keeper: SetKeeper;
  readonly holder: Holder;
  /** Of the last holder: nothing was acknowledged under another set yet. */
  readonly setsBefore: Leadership['legs'];
  readonly resolve: ResolveReplica;
  readonly attachTimeoutMs: number;
  readonly rejoinMs: number;
  /** The right to drive the volume is gone. Called once. */
  readonly onFenced: (why: string) => void;
  /** Every in-sync member of a leg failed: only a new takeover can go on. Called once. */
  readonly onStuck: (why: string) => void;
  readonly onChange: () => void;
}

/** The member whose place a joining one takes over. */
interface Replaced extends InSyncMember {
  /** In the engine. */
  readonly name: string;
}

interface Joining {
  readonly member: AttachedMember;
  /** Null: there is a place for it. */
  readonly insteadOf: Replaced | null;
  state: 'copying' | 'copied' | 'failed';
  /** The swap that lets it in is in the store, or may be. */
  swapped: boolean;
  /** The engine knows that it is in the set. */
  committed: boolean;
}

type ReleaseMethod = 'basalt_leg_remove_member' | 'basalt_leg_abandon_member';

export class MembershipWorker {
  readonly #options: WorkerOptions;
  readonly #failed = new Map<string, { readonly name: string; readonly member: MemberRef }>();
  readonly #joining = new Map<string, Joining>();
  /** Replicas that are being attached. */
  readonly #attaching = new Map<string, { readonly leg: number; readonly insteadOf: Replaced | null }>();
  readonly #notBeforeMs = new Map<string, number>();
  readonly #releasing = new Set<Promise<void>>();
  readonly #wakeup = new Wakeup();
  readonly #rejoinWakeup = new Wakeup();
  readonly #stop = new AbortController();
  #setsInForce: Leadership['legs'];
  #attempts = 0;
  #ended = false;
  #running: Promise<void>[] = [];

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#setsInForce = options.setsBefore;
  }

  /**
   * Before the volume is served: the members keep who is in sync; those that cannot have left.
   * Where the takeover swapped somebody out, the legs are made afterwards: then nothing was written under a set that goes back.
   * @throws VOLUME_UNAVAILABLE when too few do, STORE_OUTDATED
   */
  async begin(given: AbortSignal): Promise<void> {
    const { keeper, register, context, volume } = this.#options;
    const signal = AbortSignal.any([given, this.#stop.signal]);
    const { failed } = await keeper.begin(register.versioned, signal);
    const planted = context.planted?.promoteBeforeTakeover === true;
    if (failed.length === 0 || planted || (await this.#keep(this.#isMine, signal))) {
      this.#setsInForce = register.known.legs;
      return;
    }
    const detail = `replica ${failed[0]?.replica} of leg ${failed[0]?.leg} does not keep who is in sync`;
    throw new BasaltError('VOLUME_UNAVAILABLE', { name: volume().name, detail });
  }

  start(): void {
    this.#running = [this.#guard(() => this.#work()), this.#guard(() => this.#rejoin())];
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('membership worker stopped'));
    await Promise.all(this.#running);
    await Promise.all(this.#releasing);
  }

  /** Replicas that are being copied. */
  get joining(): ReadonlySet<string> {
    return new Set([...this.#joining.values()].map((entry) => entry.member.replica));
  }

  /** A replica's node may have come back, or a replica was given a successor. */
  poke(): void {
    this.#notBeforeMs.clear();
    this.#rejoinWakeup.wake();
    this.#wakeup.wake();
  }

  handle(event: EngineEvent): void {
    const { assembly } = this.#options;
    if (!('leg' in event.params) || assembly.legIndex(event.params.leg) === null) return;
    if (event.method === 'leg_fenced') return this.#end('fenced', `a replica obeys epoch ${event.params.epoch}`);
    if (event.method === 'leg_clean' || event.method === 'leg_resync') return this.#options.onChange();
    if (event.method === 'leg_repaired' || event.method === 'leg_scrub') return;
    if (!('member' in event.params)) return;
    const name = event.params.member;
    const member = assembly.memberNamed(name);
    if (member === null) return;
    const joining = this.#joining.get(name);
    if (event.method === 'leg_member_copied' && joining?.state === 'copying') joining.state = 'copied';
    else if (event.method === 'leg_member_copied') return;
    else if (joining !== undefined) joining.state = 'failed';
    else this.#failed.set(name, { name, member });
    this.#options.context.log.info(
      {
        volume: this.#options.volume().name,
        event: event.method,
        replica: member.replica,
        ...('reason' in event.params ? { reason: event.params.reason } : {}),
      },
      'member changed',
    );
    this.#wakeup.wake();
  }

  #end(how: 'fenced' | 'stuck', why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stop.abort(new Error(why));
    if (how === 'fenced') this.#options.onFenced(why);
    else this.#options.onStuck(why);
  }

  async #guard(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#end('stuck', reason(error));
    }
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const failedJoin = [...this.#joining.values()].find((entry) => entry.state === 'failed');
      const copied = [...this.#joining.values()].find((entry) => entry.state === 'copied');
      // One swap instead of two, and no moment with fewer members.
      const inTime = [...this.#joining.values()].find((entry) => this.#canReplaceFailed(entry));
      const unwanted = [...this.#joining.values()].find((entry) => !entry.swapped && !this.#isWanted(entry.member));
      if (inTime !== undefined) await this.#join(inTime);
      else if (this.#failed.size > 0 || failedJoin?.swapped === true) await this.#shrink();
      else if (failedJoin !== undefined) this.#giveUp(failedJoin.member);
      else if (unwanted !== undefined) this.#giveUp(unwanted.member);
      else if (copied !== undefined) await this.#join(copied);
      else if (this.#leaving().length > 0) await this.#retire();
      else await this.#wakeup.wait(signal);
    }
  }

  /** A move that was called off leaves a replica that is copied for nothing. */
  #isWanted({ leg, replica }: MemberRef): boolean {
    const placed = this.#options.volume().legs[leg]?.replicas.find((entry) => entry.replica === replica);
    return placed !== undefined && placed.leaving !== true;
  }

  #canReplaceFailed({ member, insteadOf, state, swapped }: Joining): boolean {
    if (insteadOf === null || state !== 'copied' || swapped) return false;
    return this.#failed.has(insteadOf.name) && this.#isWanted(member);
  }

  /** Everything that failed by now, over all legs, in one swap. */
  async #shrink(): Promise<void> {
    const { register } = this.#options;
    const failed = [...this.#failed.values()];
    const joins = [...this.#joining.values()].filter((entry) => entry.state === 'failed' && entry.swapped);
    const refs = [...failed.map((entry) => entry.member), ...joins.map((entry) => entry.member)];
    // The engine has let go of nothing yet: whom a failed one took over from has everything.
    const restored = (present: Leadership): Leadership =>
      joins.reduce((next, { member: { leg, replica }, insteadOf }) => {
        if (insteadOf === null || this.#failed.has(insteadOf.name) || !this.#isPlaced(leg, insteadOf.replica))
          return next;
        return planJoin(next, { leg, replica: insteadOf.replica, incarnation: insteadOf.incarnation }, replica) ?? next;
      }, present);
    const plan = (present: Leadership): Leadership | null => {
      const back = restored(present);
      return planShrink(back, refs).next ?? (back === present ? null : back);
    };
    const { last } = planShrink(restored(register.known), refs);
    const goOn = (): void => {
      for (const { name, member } of failed) {
        const stays = last.some((entry) => entry.replica === member.replica);
        if (this.#failed.delete(name) && !stays) this.#release({ name, member }, 'basalt_leg_remove_member');
      }
    };
    if (this.#options.context.planted?.shrinkWithoutConsent === true) goOn();
    if (!(await this.#swap(plan))) return;
    goOn();
    if (last.length > 0) return this.#end('stuck', `the last replica of leg ${last[0]?.leg} failed`);
    for (const { member, insteadOf, committed } of joins) {
      this.#giveUp(member, committed ? 'basalt_leg_remove_member' : 'basalt_leg_abandon_member');
      // It could not be taken back, as it is being deleted.
      if (
        insteadOf !== null &&
        !failed.some(({ name }) => name === insteadOf.name) &&
        !this.#isInSync(insteadOf, member)
      )
        this.#letGo(member.leg, insteadOf);
    }
    this.#options.onChange();
    this.#rejoinWakeup.wake();
  }

  async #join(joining: Joining): Promise<void> {
    const { member, insteadOf } = joining;
    // Whoever could not be told has failed: that goes first.
    if (!joining.swapped && !(await this.#announce(member)))
      return this.#stop.signal.aborted ? undefined : this.#shrink();
    if ((joining.state as string) === 'failed') return;
    joining.swapped = true;
    if (!(await this.#swap((present) => planJoin(present, member, insteadOf?.replica)))) return;
    // It may have failed while the outcome was open: then #shrink swaps it out again.
    if ((joining.state as string) === 'failed') return;
    const { assembly, context } = this.#options;
    try {
      await context.engine.rpc('basalt_leg_commit_member', { name: assembly.legName(member.leg), member: member.name });
    } catch (error) {
      context.log.warn({ replica: member.replica, error: reason(error) }, 'engine did not commit a copied member');
      joining.state = 'failed';
      return;
    }
    joining.committed = true;
    // Whom it took over from has everything still: #shrink takes that one back.
    if ((joining.state as string) === 'failed' && insteadOf !== null) return;
    this.#joining.delete(member.name);
    if ((joining.state as string) === 'failed') this.#failed.set(member.name, { name: member.name, member });
    if (insteadOf !== null) this.#letGo(member.leg, insteadOf);
    this.#options.onChange();
    this.#rejoinWakeup.wake();
  }

  #isInSync({ replica }: InSyncMember, { leg }: MemberRef): boolean {
    return this.#options.register.known.legs[leg]?.inSync.some((entry) => entry.replica === replica) === true;
  }

  /** What is placed no more is being deleted, or has been. */
  #isPlaced(leg: number, replica: string): boolean {
    return this.#options.volume().legs[leg]?.replicas.some((entry) => entry.replica === replica) === true;
  }

  /** It is in the set no more, and nobody waits for it, whatever became of it meanwhile. */
  #letGo(leg: number, { name, replica }: Replaced): void {
    this.#failed.delete(name);
    if (this.#options.assembly.nameOfMember(replica) === name)
      this.#release({ name, member: { leg, replica } }, 'basalt_leg_remove_member');
  }

  #leaving(): MemberRef[] {
    return planRetire(this.#options.register.known, this.#options.volume().legs);
  }

  /** Members whose successors are in sync leave, all legs in one swap. */
  async #retire(): Promise<void> {
    const { assembly, volume } = this.#options;
    const leaving = this.#leaving();
    if (!(await this.#swap((present) => planShrink(present, planRetire(present, volume().legs)).next))) return;
    for (const member of leaving) {
      const name = assembly.nameOfMember(member.replica);
      if (name !== null) this.#release({ name, member }, 'basalt_leg_remove_member');
    }
    this.#options.onChange();
  }

  #giveUp(member: AttachedMember, method: ReleaseMethod = 'basalt_leg_abandon_member'): void {
    this.#joining.delete(member.name);
    this.#release({ name: member.name, member }, method);
    this.#options.onChange();
  }

  /**
   * Tells the engine to go on without the member, which takes effect at once. That the member is free takes as long as
   * its last I/O: nothing else waits for that.
   */
  #release(at: { name: string; member: MemberRef }, method: ReleaseMethod): void {
    const { assembly, context } = this.#options;
    const run = async (): Promise<void> => {
      try {
        await context.engine.rpc(method, { name: assembly.legName(at.member.leg), member: at.name });
      } catch (error) {
        context.log.warn({ replica: at.member.replica, error: reason(error) }, 'engine did not let go of a member');
      }
      await assembly.detach(at.name);
      this.#delayRejoin(at.member.replica);
      this.#rejoinWakeup.wake();
    };
    const running = run().finally(() => this.#releasing.delete(running));
    this.#releasing.add(running);
  }

  /** Also while it waits for its turn the volume may have been given away. */
  readonly #isMine = (present: Leadership): boolean => {
    const { holder, assembly } = this.#options;
    return holds(present, holder) && present.epoch === assembly.epoch;
  };

  /** All members keep the set that is in force; those that cannot leave it. False: as with #swap. */
  async #keep(mine: (present: Leadership) => boolean, signal: AbortSignal): Promise<boolean> {
    const { register, keeper } = this.#options;
    for (;;) {
      const outcome = await keeper.keep(register.versioned, signal);
      if (!this.#noteFailures(outcome)) return false;
      if (outcome.failed.length === 0) {
        this.#setsInForce = register.known.legs;
        return true;
      }
      const { last } = planShrink(register.known, outcome.failed);
      if (last.length > 0) {
        await this.#restore(mine, [...new Set(last.map(({ leg }) => leg))], signal);
        this.#end('stuck', `the last replica of leg ${last[0]?.leg} does not keep who is in sync`);
        return false;
      }
      const shrink = (present: Leadership): Leadership | null =>
        mine(present) ? planShrink(present, outcome.failed).next : null;
      await register.swap(shrink, signal);
      if (mine(register.known)) continue;
      this.#end('fenced', `epoch ${register.known.epoch} belongs to ${register.known.controller ?? 'nobody'}`);
      return false;
    }
  }

  /** The engine has let go of nobody under the sets that are not kept. */
  async #restore(mine: (present: Leadership) => boolean, legs: readonly number[], signal: AbortSignal): Promise<void> {
    const { register } = this.#options;
    const isPlaced = ({ leg, replica }: MemberRef): boolean => this.#isPlaced(leg, replica);
    const wish = { inForce: this.#setsInForce, legs, isPlaced };
    const plan = (present: Leadership): Leadership | null => (mine(present) ? planRestore(present, wish) : null);
    while (plan(register.known) !== null && !(await register.swap(plan, signal)));
  }

  /** The engine may not know yet. False: a later epoch is obeyed, and the worker has ended. */
  #noteFailures({ failed, fenced }: KeepOutcome): boolean {
    for (const member of failed) {
      const name = this.#options.assembly.nameOfMember(member.replica);
      const joining = name === null ? undefined : this.#joining.get(name);
      if (joining !== undefined) joining.state = 'failed';
      else this.#failed.set(name ?? member.replica, { name: name ?? member.replica, member });
    }
    if (fenced) this.#end('fenced', 'a replica obeys a later epoch');
    return !fenced;
  }

  /** False: none of them can be told, or a later epoch is obeyed. */
  async #announce(member: MemberRef): Promise<boolean> {
    const { register, keeper } = this.#options;
    const outcome = await keeper.announce(register.versioned, member, this.#stop.signal);
    const count = register.known.legs[member.leg]?.inSync.length ?? 0;
    if (!outcome.fenced && outcome.failed.length < count) return true;
    this.#noteFailures(outcome);
    return false;
  }

  /** False: this controller holds the volume no more, and the worker has ended. */
  async #swap(plan: Parameters<LeadershipRegister['swap']>[0]): Promise<boolean> {
    const { register } = this.#options;
    const mine = this.#isMine;
    for (;;) {
      const swapped = await register.swap((present) => (mine(present) ? plan(present) : null), this.#stop.signal);
      if (swapped && mine(register.known)) return this.#keep(mine, this.#stop.signal);
      if (!mine(register.known)) {
        const { epoch, controller } = register.known;
        this.#end('fenced', `epoch ${epoch} belongs to ${controller ?? 'nobody'}`);
        return false;
      }
    }
  }

  #delayRejoin(replica: string): void {
    const { context, rejoinMs } = this.#options;
    this.#notBeforeMs.set(replica, context.clock.now() + rejoinMs);
  }

  /** Sleeps for good while everything is in sync: an idle volume costs nothing. */
  async #rejoin(): Promise<void> {
    const { signal } = this.#stop;
    const { context, rejoinMs } = this.#options;
    while (!signal.aborted) {
      const missing = this.#missing();
      const now = context.clock.now();
      const isDue = ({ replica }: MemberRef): boolean => (this.#notBeforeMs.get(replica) ?? 0) <= now;
      const due = missing.filter((member) => isDue(member) && this.#placeFor(member) !== undefined);
      if (missing.length === 0) await this.#rejoinWakeup.wait(signal);
      else if (due.length === 0) await pause(context.clock, rejoinMs, signal);
      else await Promise.all(due.map((member) => this.#rejoinMember(member)));
    }
  }

  #missing(): MemberRef[] {
    const joining = this.joining;
    return outOfSync(this.#options.register.known, this.#options.volume().legs).filter(
      (member) => !joining.has(member.replica) && this.#options.assembly.nameOfMember(member.replica) === null,
    );
  }

  /**
   * Whom it would take over from; null: nobody, there is room for it; undefined: not now. A leg with parity has as many places as
   * members, and one of them can be exchanged at a time. Where one that leaves stands on the node of this one it is that one,
   * lest one node's loss takes two members while the other moves are under way; so there is always one that can go first.
   */
  #placeFor({ leg, replica }: MemberRef): Replaced | null | undefined {
    const { assembly, register, volume } = this.#options;
    const { erasure, legs } = volume();
    if (erasure === undefined) return null;
    const inSync = register.known.legs[leg]?.inSync ?? [];
    const isInSync = (replica: string): boolean => inSync.some((entry) => entry.replica === replica);
    const coming = new Map(this.#attaching);
    for (const { member, insteadOf } of this.#joining.values())
      coming.set(member.replica, { leg: member.leg, insteadOf });
    const here = [...coming].filter(([replica, entry]) => entry.leg === leg && !isInSync(replica));
    const taken = here.filter(([, { insteadOf }]) => insteadOf === null || !isInSync(insteadOf.replica));
    const placed = new Map(legs[leg]?.replicas.map((entry) => [entry.replica, entry]));
    // What is placed no more is being deleted, and leaves as well.
    const leaving = inSync.filter(
      (entry) => placed.get(entry.replica)?.leaving !== undefined || !placed.has(entry.replica),
    );
    const neighbours = leaving.filter((entry) => placed.get(entry.replica)?.node === placed.get(replica)?.node);
    if (neighbours.length === 0 && inSync.length + taken.length < erasure.data + erasure.parity) return null;
    if (here.length > taken.length) return undefined;
    for (const entry of neighbours.length > 0 ? neighbours : leaving) {
      const name = assembly.nameOfMember(entry.replica);
      if (name !== null) return { ...entry, name };
    }
    return undefined;
  }

  async #rejoinMember(member: MemberRef): Promise<void> {
    const insteadOf = this.#placeFor(member);
    if (insteadOf === undefined) return;
    this.#delayRejoin(member.replica);
    this.#attaching.set(member.replica, { leg: member.leg, insteadOf });
    try {
      await this.#attach(member, insteadOf);
    } finally {
      this.#attaching.delete(member.replica);
    }
  }

  async #attach(member: MemberRef, insteadOf: Replaced | null): Promise<void> {
    const { assembly, context, holder, resolve, attachTimeoutMs } = this.#options;
    const request = {
      member,
      epoch: assembly.epoch,
      name: assembly.memberName(member, `r${++this.#attempts}`),
      timeoutMs: attachTimeoutMs,
    };
    const attacher = {
      engine: context.engine,
      clock: context.clock,
      log: context.log,
      resolve,
      controller: holder.controller,
      identity: context.identity ?? noIdentity,
    };
    const outcome = await attachMember(attacher, request, this.#stop.signal);
    if (outcome.kind === 'fenced') return this.#end('fenced', `a replica obeys epoch ${outcome.epoch}`);
    if (outcome.kind !== 'taken') return;
    assembly.adopt(outcome.member);
    const joining: Joining = { member: outcome.member, insteadOf, state: 'copying', swapped: false, committed: false };
    this.#joining.set(request.name, joining);
    const instead = insteadOf === null ? {} : { instead_of: insteadOf.name };
    try {
      const added = { name: assembly.legName(member.leg), member: request.name, ...instead };
      await context.engine.rpc('basalt_leg_add_member', added);
      if (insteadOf !== null && context.planted?.exchangeBeforeEqual === true) await this.#exchangeEarly(joining);
      this.#options.onChange();
      // It may have been called off while it was being attached: nobody knew of it then.
      this.#wakeup.wake();
    } catch (error) {
      context.log.warn({ replica: member.replica, error: reason(error) }, 'returning replica could not be added');
      this.#joining.delete(request.name);
      await assembly.detach(request.name);
      if (isEngineError(error, 'fenced')) this.#end('fenced', reason(error));
    }
  }

  /** Only with a bug planted: the old member is freed before the new one is equal. */
  async #exchangeEarly({ member, insteadOf }: Joining): Promise<void> {
    if (insteadOf === null || !(await this.#swap((present) => planJoin(present, member, insteadOf.replica)))) return;
    this.#letGo(member.leg, insteadOf);
  }
}
