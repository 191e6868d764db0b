// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of a volume that is served from here: one instant over all its legs. One worker per assembly.
//
//   the try is written down → requests are held, every in-sync member cuts, requests go on (one call of the engine) →
//   the snapshot is recorded, if neither the in-sync sets nor the epoch have changed since before the cut
//
// Those that are to be one instant with others' are cut by a GroupCutter.
//
// Invariants:  - recorded means: every member of the sets of that instant has it, on stable media
//              - a try that is not known to be recorded is given up in the store before the next one begins
//              - requests are held by the engine, for a bounded time, whatever happens here

import { isEngineError } from '../engine/engine.js';
import type { Timer } from '../env/clock.js';
import type { Stored } from '../model/cluster-state.js';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { type SnapshotObject, snapshotLvol } from '../model/snapshots.js';
import { type Holder, holds } from '../reconcile/membership.js';
import { type FailedTry, holdFor, planCut, planReady, planTryFailed } from '../reconcile/snapshots.js';
import { type Assembly, slotName } from './assembly.js';
import { type AgentContext, reason } from './context.js';
import { GroupCutter } from './group-cutter.js';
import type { LeadershipRegister, Versioned } from './leadership-register.js';
import { Backoff, pause, Wakeup } from './signal.js';
import type { SnapshotPort } from './snapshot-port.js';

export interface SnapshotWorkerOptions {
  readonly context: AgentContext;
  readonly volume: () => VolumeObject;
  readonly assembly: Assembly;
  readonly register: LeadershipRegister;
  readonly holder: Holder;
  readonly snapshots: SnapshotPort;
}

/** A member as the engine knows it, and what its snapshot is called. */
export interface CutMember {
  readonly name: string;
  readonly snapshot_name: string;
}

const retryMinMs = 50;
const retryMaxMs = 2_000;
/** How long the store's watch may take to show what was just written. */
const shownMs = 2_000;

export class SnapshotWorker {
  readonly #options: SnapshotWorkerOptions;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  readonly #groups: GroupCutter;
  #unsubscribe: (() => void) | null = null;
  #again: { readonly timer: Timer; readonly atMs: number } | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(options: SnapshotWorkerOptions) {
    this.#options = options;
    const { clock } = options.context;
    this.#backoff = new Backoff({ clock, minMs: retryMinMs, maxMs: retryMaxMs });
    this.#groups = new GroupCutter({
      ...options,
      membersOf: (planned) => this.#membersOf(planned),
      shown: (planned, after, signal) => this.#shown(planned, after, signal),
      lookAgain: (afterMs) => this.#lookAgain(afterMs),
    });
  }

  start(): void {
    // Others wait for this one while their requests are held: it does not wait for its volume's turn.
    this.#unsubscribe = this.#options.snapshots.onChange(() => this.#wakeup.wake());
    this.#running = this.#work();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    this.#stop.abort(new Error('snapshot worker stopped'));
    await this.#running;
    this.#again?.timer.cancel();
  }

  /** Of several times the first: then all are looked at, and say anew when they are due. */
  #lookAgain(afterMs: number): void {
    const { clock } = this.#options.context;
    const atMs = clock.now() + afterMs;
    if (this.#again !== null && this.#again.atMs <= atMs) return;
    this.#again?.timer.cancel();
    const timer = clock.setTimer(afterMs, () => {
      this.#again = null;
      this.#wakeup.wake();
    });
    this.#again = { timer, atMs };
  }

  /** The store changed. */
  poke(): void {
    this.#wakeup.wake();
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (await this.#advance(signal)) this.#backoff.reset();
        else await this.#wakeup.wait(signal);
      } catch (error) {
        if (signal.aborted) return;
        const { context, volume } = this.#options;
        context.log.debug({ volume: volume().name, error: reason(error) }, 'a snapshot waits');
        await this.#backoff.wait(signal).catch(() => {});
      }
    }
  }

  /** False: nothing is to be done until the store changes. */
  async #advance(signal: AbortSignal): Promise<boolean> {
    const { register, holder, assembly, snapshots } = this.#options;
    if (!holds(register.known, holder) || register.known.epoch !== assembly.epoch) return false;
    for (const next of snapshots.all()) {
      if (next.value.phase !== 'wanted' && next.value.phase !== 'cutting') continue;
      if (next.value.group === undefined) return this.#advanceOne(next, signal);
      if (await this.#groups.advance(next, signal)) return true;
    }
    return false;
  }

  async #advanceOne(next: Stored<SnapshotObject>, signal: AbortSignal): Promise<true> {
    if (next.value.phase === 'cutting') {
      // Of an earlier controller, or of a try of this one's whose end is not known: recorded it was not.
      await this.#giveUp(next, { problem: 'its controller ended' }, signal);
      return true;
    }
    await this.#tryOnce(next, signal);
    return true;
  }

  async #tryOnce(wanted: Stored<SnapshotObject>, signal: AbortSignal): Promise<void> {
    const { context, register, volume, assembly } = this.#options;
    // A failover may have left much to be made equal: that is waited for, without a word to the store.
    if (!(await assembly.isClean())) throw new Error('members are not equal yet');
    const leadership = register.versioned;
    const attempt = context.random.bytes(4).toString('hex');
    const sets = context.planted?.resyncHeadOnly === true ? this.#withJoining(leadership.value) : leadership.value;
    const places = volume().erasure === undefined ? undefined : await assembly.places();
    const planned = planCut(wanted.value, volume(), { leadership: sets, attempt, places });
    if (planned === null) throw new Error(`volume ${volume().name} is growing or being moved`);
    const members = this.#membersOf(planned);
    await this.#committed(wanted, { next: planned }, signal);
    const cutting = await this.#shown(planned, wanted.revision, signal);
    try {
      await this.#cut(cutting, { leadership, members }, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      context.log.info({ volume: volume().name, snapshot: wanted.value.name, error: reason(error) }, 'snapshot failed');
      await this.#giveUp(cutting, failedBy(error), signal);
      await this.#backoff.wait(signal);
      throw error;
    }
  }

  /** Only with a bug planted: members that are being copied are taken for members in sync. */
  #withJoining(leadership: Leadership): Leadership {
    const { volume, assembly } = this.#options;
    const legs = volume().legs.map(({ replicas }, leg) => {
      const known = leadership.legs[leg]?.inSync ?? [];
      const joining = replicas
        .map(({ replica }) => replica)
        .filter((id) => assembly.nameOfMember(id) !== null && !known.some(({ replica }) => replica === id));
      return { inSync: [...known, ...joining.map((replica) => ({ replica, incarnation: null }))] };
    });
    return { ...leadership, legs };
  }

  #membersOf(planned: SnapshotObject): CutMember[] {
    const { assembly } = this.#options;
    const { id, cut } = planned;
    return (cut?.copies ?? []).map(({ replica }) => {
      const name = assembly.nameOfMember(replica);
      if (name === null) throw new Error(`replica ${replica} is not connected`);
      return { name, snapshot_name: snapshotLvol(id, cut?.attempt ?? '', replica) };
    });
  }

  async #cut(
    cutting: Stored<SnapshotObject>,
    at: { leadership: Versioned<Leadership>; members: CutMember[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { context, volume } = this.#options;
    const cut = await context.engine.rpc('basalt_slot_snapshot', {
      name: slotName(volume().id),
      members: at.members,
      hold_ms: holdFor(cutting.value),
    });
    await this.#record(cutting, { ...at, cutAtMs: context.clock.wallMs(), heldUs: cut.held_us }, signal);
    const { name } = cutting.value;
    context.log.info({ volume: volume().name, snapshot: name, heldUs: cut.held_us }, 'snapshot made');
  }

  /** Disk nodes may change the object meanwhile: what earlier tries left over. */
  async #record(
    cutting: Stored<SnapshotObject>,
    at: { leadership: Versioned<Leadership>; cutAtMs: number; heldUs: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { register, snapshots, volume } = this.#options;
    const { revision } = at.leadership;
    for (let present = cutting; ; ) {
      const next = planReady(present.value, volume(), at);
      if (await snapshots.swap(present, { next, leadershipRevision: revision }, signal)) return;
      await register.refresh(signal);
      if (String(register.versioned.revision) !== String(revision)) throw changed(cutting.value);
      present = await this.#shown(cutting.value, present.revision, signal);
    }
  }

  #giveUp(present: Stored<SnapshotObject>, failed: FailedTry, signal: AbortSignal): Promise<void> {
    return this.#committed(present, { next: planTryFailed(present.value, failed) }, signal);
  }

  async #committed(
    present: Stored<SnapshotObject>,
    to: { next: SnapshotObject; leadershipRevision?: number },
    signal: AbortSignal,
  ): Promise<void> {
    if (!(await this.#options.snapshots.swap(present, to, signal))) throw changed(present.value);
  }

  /** The object of this try, as it is after that revision. @throws when the try is over */
  async #shown(cutting: SnapshotObject, after: number, signal: AbortSignal): Promise<Stored<SnapshotObject>> {
    const { snapshots, context } = this.#options;
    const untilMs = context.clock.now() + shownMs;
    while (context.clock.now() < untilMs) {
      const found = snapshots.all().find(({ value }) => value.id === cutting.id);
      const newer = found !== undefined && String(found.revision) !== String(after);
      if (newer && found.value.phase === 'cutting' && found.value.cut?.attempt === cutting.cut?.attempt) return found;
      if (newer && found.value.phase !== 'wanted') throw changed(cutting);
      await pause(context.clock, 2, signal);
      signal.throwIfAborted();
    }
    throw new Error('the store does not show what was written');
  }
}

function changed(snapshot: SnapshotObject): Error {
  return new Error(`snapshot ${snapshot.name}, or its volume's in-sync set, changed meanwhile`);
}

function failedBy(error: unknown): FailedTry {
  const unasked = isEngineError(error) && error.data?.['cut'] === false;
  const is = (code: 'unsupported' | 'busy'): boolean => unasked && isEngineError(error, code);
  return { problem: reason(error), unasked, hopeless: is('unsupported'), early: is('busy') };
}
