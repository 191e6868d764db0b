// SPDX-License-Identifier: Apache-2.0
//
// One volume's part in snapshots of several volumes of one instant: beside the SnapshotWorker of each controller, with
// nobody above them. What they tell each other goes through the store; whoever sees that a step of all is due takes it.
//
//   prepared → a round is drawn → requests are held; that is told; the members cut → all are known to be held: requests go on
//   → the vote is recorded, if neither epoch nor in-sync sets have changed since before the cut → all votes: ready
//
// Invariants:  - requests are held by the engine, for a bounded time, whatever happens here or to the others
//              - a vote is given only when the engine says that its hold lasted until this process knew of all the others'
//              - a round whose end is not known is given up for all, never for one
//              - nobody takes part twice in one round: what was announced in it is said of one hold

import { isEngineError } from '../engine/engine.js';
import type { Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type Leadership } from '../model/objects.js';
import type { SnapshotGroupObject, SnapshotObject } from '../model/snapshots.js';
import {
  allHeld,
  groupOf,
  hasVoted,
  membersOf,
  planGroupFailed,
  planGroupReady,
  planRound,
  planUnprepared,
  planVote,
} from '../reconcile/snapshot-groups.js';
import { holdFor, planCut } from '../reconcile/snapshots.js';
import { servedToSome } from '../reconcile/whole-growth.js';
import { slotName } from './assembly.js';
import { reason } from './context.js';
import type { Versioned } from './leadership-register.js';
import { Wakeup } from './signal.js';
import type { CutMember, SnapshotWorkerOptions } from './snapshot-worker.js';

/** How long the votes of a round may take to come: flushing what was cut is part of it. */
const votesMs = 10_000;
const retryMinMs = 50;
const retryMaxMs = 2_000;

export interface GroupCutterOptions extends SnapshotWorkerOptions {
  /** Of that try, as the engine knows them. */
  readonly membersOf: (planned: SnapshotObject) => CutMember[];
  /** The object as the watch shows it after that revision. */
  readonly shown: (planned: SnapshotObject, after: number, signal: AbortSignal) => Promise<Stored<SnapshotObject>>;
  /** Looks again after a while. */
  readonly lookAgain: (afterMs: number) => void;
}

interface Prepared {
  readonly attempt: string;
  readonly leadership: Versioned<Leadership>;
  /** Members may have been asked to cut for it. */
  asked: boolean;
}

interface Round {
  readonly name: string;
  readonly sinceMs: number;
  /** What came of this one's part in it. */
  problem: string | null;
}

export class GroupCutter {
  readonly #options: GroupCutterOptions;
  /** Tries of this assembly, by snapshot. */
  readonly #prepared = new Map<string, Prepared>();
  /** When a group is prepared for again, by its id, after so many rounds that failed. */
  readonly #due = new Map<string, { readonly failedCount: number; readonly atMs: number }>();
  /** The last round of each group that was seen here, by the group's id: a volume may be in several. */
  readonly #rounds = new Map<string, Round>();

  constructor(options: GroupCutterOptions) {
    this.#options = options;
  }

  /** False: nothing is to be done until the store changes, or it is looked at again. */
  async advance(member: Stored<SnapshotObject>, signal: AbortSignal): Promise<boolean> {
    const group = groupOf(this.#options.snapshots.state(), member.value);
    if (group?.value.phase === 'wanted') return this.#beforeRound(group, member, signal);
    if (group?.value.phase === 'cutting') return this.#inRound(group, member, signal);
    return false;
  }

  async #beforeRound(
    group: Stored<SnapshotGroupObject>,
    member: Stored<SnapshotObject>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { snapshots, context, register } = this.#options;
    if (member.value.phase === 'wanted') {
      try {
        return await this.#prepare(group.value, member, signal);
      } catch (error) {
        if (!isEngineError(error, 'unsupported')) throw error;
        return this.#giveUp(group, { problem: reason(error), hopeless: true }, signal);
      }
    }
    const prepared = this.#preparedAs(member.value);
    // Of an earlier controller, or for sets that are others by now: as long as there is no round, nobody was asked for it.
    if (prepared === null || String(prepared.leadership.revision) !== String(register.versioned.revision))
      return snapshots.commit(planUnprepared(group, member), signal);
    const step = planRound(snapshots.state(), group, context.random.bytes(4).toString('hex'));
    if (step !== null) await snapshots.commit(step, signal);
    return false;
  }

  async #inRound(
    group: Stored<SnapshotGroupObject>,
    member: Stored<SnapshotObject>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { snapshots, context } = this.#options;
    const now = context.clock.now();
    const name = group.value.round ?? '';
    const prepared = this.#preparedAs(member.value);
    const known = this.#rounds.get(group.value.id);
    const round = known?.name === name ? known : this.#begin(group.value, { name, sinceMs: now, problem: null });
    if (hasVoted(group.value, member.value)) {
      const ready = planGroupReady(snapshots.state(), group);
      if (ready !== null) {
        const done = await snapshots.commit(ready, signal);
        if (done)
          context.log.info({ group: group.value.name, volumes: group.value.members.length }, 'group of snapshots made');
        return false;
      }
    } else if (prepared === null) {
      return this.#giveUp(group, { problem: 'a controller ended' }, signal);
    } else if (round !== known) {
      await this.#takePart(group, { member, prepared, round }, signal);
      return true;
    }
    if (round.problem !== null && !hasVoted(group.value, member.value))
      return this.#giveUp(group, { problem: round.problem }, signal);
    const leftMs = round.sinceMs + votesMs - now;
    if (leftMs <= 0) return this.#giveUp(group, { problem: `no word of ${this.#silent(group.value)}` }, signal);
    this.#options.lookAgain(leftMs + 1);
    return false;
  }

  /** Rounds of groups that are gone are forgotten. */
  #begin(group: SnapshotGroupObject, round: Round): Round {
    const ids = new Set(
      this.#options.snapshots
        .state()
        .all('snapshotGroups')
        .map(({ id }) => id),
    );
    for (const id of [...this.#rounds.keys()]) if (!ids.has(id)) this.#rounds.delete(id);
    for (const id of [...this.#due.keys()]) if (!ids.has(id)) this.#due.delete(id);
    this.#rounds.set(group.id, round);
    return round;
  }

  async #giveUp(
    group: Stored<SnapshotGroupObject>,
    failed: { problem: string; hopeless?: boolean },
    signal: AbortSignal,
  ): Promise<false> {
    const { snapshots, context } = this.#options;
    const step = planGroupFailed(snapshots.state(), group, failed);
    // When it is not carried out something has changed, and the watch says so.
    if (step !== null && (await snapshots.commit(step, signal)))
      context.log.info({ group: group.value.name, error: failed.problem }, 'a try to make a group of snapshots failed');
    return false;
  }

  /** Volumes whose votes are missing. */
  #silent(group: SnapshotGroupObject): string {
    const state = this.#options.snapshots.state();
    const missing = membersOf(state, group).filter(({ value }) => !hasVoted(group, value));
    return missing.map(({ value }) => state.get('volumes', value.volumeId)?.name ?? value.volumeId).join(', ');
  }

  #preparedAs(member: SnapshotObject): Prepared | null {
    const known = this.#prepared.get(member.id);
    return known !== undefined && known.attempt === member.cut?.attempt ? known : null;
  }

  /** False: the object has changed meanwhile. */
  async #prepare(group: SnapshotGroupObject, member: Stored<SnapshotObject>, signal: AbortSignal): Promise<boolean> {
    const { context, register, volume, assembly, snapshots } = this.#options;
    const restMs = this.#restMs(group);
    if (restMs > 0) {
      // Not by sleeping: the volume may be in another group's round meanwhile.
      this.#options.lookAgain(restMs + 1);
      return false;
    }
    if (!(await assembly.isClean())) throw new Error('members are not equal yet');
    const leadership = register.versioned;
    const attempt = context.random.bytes(4).toString('hex');
    const places = volume().erasure === undefined ? undefined : await assembly.places();
    const sets = { leadership: leadership.value, attempt, places };
    const planned = planCut(this.#withoutUnasked(member.value), volume(), sets);
    if (planned === null) throw new Error(`volume ${volume().name} is growing or being moved`);
    const members = this.#options.membersOf(planned);
    await context.engine.rpc('basalt_slot_snapshot_prepare', { name: slotName(volume().id), members });
    this.#prepared.set(member.value.id, { attempt, leadership, asked: false });
    if (!(await snapshots.swap(member, { next: planned }, signal))) return false;
    await this.#options.shown(planned, member.revision, signal);
    return true;
  }

  /** Until it is prepared for again. */
  #restMs({ id, failedCount }: SnapshotGroupObject): number {
    if (failedCount === 0) return 0;
    const now = this.#options.context.clock.now();
    const known = this.#due.get(id);
    if (known?.failedCount === failedCount) return known.atMs - now;
    const delayMs = Math.min(retryMaxMs, retryMinMs * 2 ** (failedCount - 1));
    this.#due.set(id, { failedCount, atMs: now + delayMs });
    return delayMs;
  }

  /** A round was over before this volume's turn came: nothing of its try can be on any disk, and nobody has to look for it. */
  #withoutUnasked(member: SnapshotObject): SnapshotObject {
    const known = this.#prepared.get(member.id);
    if (known === undefined || known.asked) return member;
    const leftovers = member.leftovers.filter(({ lvol }) => !lvol.startsWith(`${member.id}.${known.attempt}.`));
    return { ...member, leftovers };
  }

  async #takePart(
    group: Stored<SnapshotGroupObject>,
    at: { member: Stored<SnapshotObject>; prepared: Prepared; round: Round },
    signal: AbortSignal,
  ): Promise<void> {
    const { context, volume } = this.#options;
    const askedBefore = at.prepared.asked;
    try {
      const heldUs = await this.#cutHeld(group, at, signal);
      await this.#vote(group.value, { ...at, heldUs }, signal);
      context.log.info({ volume: volume().name, group: group.value.name, heldUs }, 'snapshot of a group cut');
    } catch (error) {
      // Said of this call alone.
      if (!askedBefore && isEngineError(error) && error.data?.['cut'] === false) at.prepared.asked = false;
      if (signal.aborted) throw error;
      at.round.problem = `volume ${volume().name}: ${reason(error)}`;
    }
  }

  /** For how long requests were held. @throws when not all of the group were held at one instant, as far as is known here */
  async #cutHeld(
    stored: Stored<SnapshotGroupObject>,
    at: { member: Stored<SnapshotObject>; prepared: Prepared },
    signal: AbortSignal,
  ): Promise<number> {
    const { context, volume } = this.#options;
    const { engine, planted } = context;
    const { value: group } = stored;
    const name = slotName(volume().id);
    const round = group.round ?? '';
    const over = new AbortController();
    const ending = AbortSignal.any([over.signal, signal]);
    const apart = planted?.cutVolumesApart === true;
    if (apart) await this.#until(() => this.#cutBefore(group, at.member.value.id), ending);
    const letGo = async (): Promise<void> => {
      await this.#announce(stored, ending);
      if (!apart) await this.#until(() => allHeld(this.#options.snapshots.state(), group), ending);
      await engine.rpc('basalt_slot_release', { name, group: round });
    };
    const unsubscribe = engine.on('event', (event) => {
      if (event.method !== 'slot_held' || event.params.name !== name || event.params.group !== round) return;
      letGo().catch((error) => context.log.debug({ volume: volume().name, error: reason(error) }, 'a hold runs out'));
    });
    try {
      const members = this.#options.membersOf(at.member.value);
      at.prepared.asked = true;
      const made = await engine.rpc('basalt_slot_snapshot', { name, members, hold_ms: holdFor(group), group: round });
      return made.held_us;
    } finally {
      unsubscribe();
      over.abort(new Error('the hold has ended'));
    }
  }

  /** Only with a bug planted: the volumes before this one in the group have been cut. */
  #cutBefore(group: SnapshotGroupObject, id: string): boolean {
    const state = this.#options.snapshots.state();
    const before = group.members.slice(
      0,
      group.members.findIndex(({ snapshotId }) => snapshotId === id),
    );
    return before.every(({ snapshotId }) => state.get('snapshots', snapshotId)?.voted === group.round);
  }

  /** Only while the round lasts: nothing of it is left behind. */
  async #announce(group: Stored<SnapshotGroupObject>, signal: AbortSignal): Promise<void> {
    const { id, round = '' } = group.value;
    const key = keys.snapshotHold(id, this.#options.volume().id);
    const text = codecs.snapshotHold.encode({ format: formatVersion, round });
    const expect = [{ key: group.key, revision: group.revision }];
    await this.#options.snapshots.commit({ expect, put: [{ key, text }] }, signal);
  }

  /** @throws when the signal aborts before */
  async #until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    const wakeup = new Wakeup();
    const unsubscribe = this.#options.snapshots.onChange(() => wakeup.wake());
    try {
      while (!holds()) {
        await wakeup.wait(signal);
        signal.throwIfAborted();
      }
    } finally {
      unsubscribe();
    }
  }

  /**
   * Of a part: how large its volume is for hosts. All holds have begun as far as the watch has come, so it has shown every
   * size under which something was acknowledged before. And whoever serves more stands on longer parts: this one had
   * been as long before its cut, or has another leadership now, and the vote does not count.
   */
  #whole(): { wholeBytes?: number } {
    const state = this.#options.snapshots.state();
    const { partOf } = this.#options.volume();
    const whole = partOf === undefined ? null : state.get('volumes', partOf);
    return whole === null ? {} : { wholeBytes: servedToSome(state, whole) };
  }

  /** Disk nodes may change the object meanwhile: what earlier tries left over. */
  async #vote(
    group: SnapshotGroupObject,
    at: { member: Stored<SnapshotObject>; prepared: Prepared; heldUs: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { register, snapshots, volume, context } = this.#options;
    const leadershipRevision = at.prepared.leadership.revision;
    const cut = { round: group.round ?? '', cutAtMs: context.clock.wallMs(), heldUs: at.heldUs, ...this.#whole() };
    for (let present = at.member; ; ) {
      const next = planVote(present.value, volume(), cut);
      if (await snapshots.swap(present, { next, leadershipRevision }, signal)) return;
      await register.refresh(signal);
      if (String(register.versioned.revision) !== String(leadershipRevision))
        throw new Error('its in-sync sets changed meanwhile');
      present = await this.#options.shown(at.member.value, present.revision, signal);
    }
  }
}
