// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of a volume that is served from here: one instant over all its legs. One worker per assembly.
//
//   the try is written down → requests are held, every in-sync member cuts, requests go on (one call of the engine) →
//   the snapshot is recorded, if neither the in-sync sets nor the epoch have changed since before the cut
//
// Invariants:  - recorded means: every member of the sets of that instant has it, on stable media
//              - a try that is not known to be recorded is given up in the store before the next one begins
//              - requests are held by the engine, for a bounded time, whatever happens here

import { isEngineError } from '../engine/engine.js';
import type { Stored } from '../model/cluster-state.js';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { type SnapshotObject, snapshotLvol } from '../model/snapshots.js';
import { type Holder, holds } from '../reconcile/membership.js';
import { type FailedTry, holdFor, planCut, planReady, planTryFailed } from '../reconcile/snapshots.js';
import { type Assembly, slotName } from './assembly.js';
import { type AgentContext, reason } from './context.js';
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

const retryMinMs = 50;
const retryMaxMs = 2_000;
/** How long the store's watch may take to show what was just written. */
const shownMs = 2_000;

export class SnapshotWorker {
  readonly #options: SnapshotWorkerOptions;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  #running: Promise<void> = Promise.resolve();

  constructor(options: SnapshotWorkerOptions) {
    this.#options = options;
    this.#backoff = new Backoff({ clock: options.context.clock, minMs: retryMinMs, maxMs: retryMaxMs });
  }

  start(): void {
    this.#running = this.#work();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('snapshot worker stopped'));
    await this.#running;
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
    const next = snapshots.all().find(({ value }) => value.phase === 'wanted' || value.phase === 'cutting');
    if (next === undefined) return false;
    if (next.value.phase === 'cutting') {
      // Of an earlier controller, or of a try of this one's whose end is not known: recorded it was not.
      await this.#giveUp(next, { problem: 'its controller ended' }, signal);
      return true;
    }
    await this.#tryOnce(next, signal);
    return true;
  }

  async #tryOnce(wanted: Stored<SnapshotObject>, signal: AbortSignal): Promise<void> {
    const { context, register, volume } = this.#options;
    const leadership = register.versioned;
    const attempt = context.random.bytes(4).toString('hex');
    const planned = planCut(wanted.value, volume(), { leadership: leadership.value, attempt });
    if (planned === null) throw new Error(`volume ${volume().name} is growing or being moved`);
    const members = this.#membersOf(planned);
    await this.#committed(wanted, { next: planned }, signal);
    const cutting = await this.#shown(wanted.value.id, attempt, signal);
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

  #membersOf(planned: SnapshotObject): { name: string; snapshot_name: string }[] {
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
    at: { leadership: Versioned<Leadership>; members: { name: string; snapshot_name: string }[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { context, volume } = this.#options;
    const cut = await context.engine.rpc('basalt_slot_snapshot', {
      name: slotName(volume().id),
      members: at.members,
      hold_ms: holdFor(cutting.value),
    });
    const next = planReady(cutting.value, volume(), { cutAtMs: context.clock.wallMs(), heldUs: cut.held_us });
    await this.#committed(cutting, { next, leadershipRevision: at.leadership.revision }, signal);
    context.log.info({ volume: volume().name, snapshot: next.name, heldUs: cut.held_us }, 'snapshot made');
  }

  #giveUp(present: Stored<SnapshotObject>, failed: FailedTry, signal: AbortSignal): Promise<void> {
    return this.#committed(present, { next: planTryFailed(present.value, failed) }, signal);
  }

  async #committed(
    present: Stored<SnapshotObject>,
    to: { next: SnapshotObject; leadershipRevision?: number },
    signal: AbortSignal,
  ): Promise<void> {
    if (!(await this.#options.snapshots.swap(present, to, signal)))
      throw new Error(`snapshot ${present.value.name}, or its volume's in-sync set, changed meanwhile`);
  }

  /** The object as it was just written, with the revision that the next change expects. */
  async #shown(id: string, attempt: string, signal: AbortSignal): Promise<Stored<SnapshotObject>> {
    const { snapshots, context } = this.#options;
    const untilMs = context.clock.now() + shownMs;
    while (context.clock.now() < untilMs) {
      const found = snapshots.all().find(({ value }) => value.id === id && value.cut?.attempt === attempt);
      if (found !== undefined) return found;
      await pause(context.clock, 2, signal);
      signal.throwIfAborted();
    }
    throw new Error('the store does not show what was written');
  }
}

function failedBy(error: unknown): FailedTry {
  const unasked = isEngineError(error) && error.data?.['cut'] === false;
  return { problem: reason(error), unasked, hopeless: unasked && isEngineError(error, 'unsupported') };
}
