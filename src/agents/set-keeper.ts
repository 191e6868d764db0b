// SPDX-License-Identifier: Apache-2.0
//
// Has the members of a volume's legs keep the in-sync set that is in force (decision 015). One for each assembly.
//
// Invariants:  - no write is acknowledged under a set that one of its members does not keep: callers wait for `keep` after the
//                swap and before the engine is told, and before the volume is served
//              - who is about to be let in is announced to the members before the swap that lets it in: else a set of which no
//                earlier member is left might be in force unknown to all who are found later
//              - nothing is written while nothing changes

import { isEngineError } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import { generationOf } from '../model/generation.js';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { compareRanks, decodeSetNote, encodeSetNote, type FoundNote, type SetNote } from '../model/set-note.js';
import type { MemberRef } from '../reconcile/membership.js';
import type { Assembly } from './assembly.js';
import { type AgentContext, reason } from './context.js';
import type { Versioned } from './leadership-register.js';
import { noIdentity } from './node-identity.js';

export interface KeeperOptions {
  readonly context: AgentContext;
  readonly volume: () => VolumeObject;
  readonly assembly: Assembly;
}

export interface KeepOutcome {
  /** Members that do not keep it: they have to leave. */
  readonly failed: readonly MemberRef[];
  /** One obeys a later epoch. */
  readonly fenced: boolean;
}

const writeTimeoutMs = 5_000;
const done: KeepOutcome = Object.freeze({ failed: [], fenced: false });

/** What of the leadership object members keep, of one leg. */
function keptOf(value: Leadership, leg: number): string {
  const members = (value.legs[leg]?.inSync ?? []).map((member) => `${member.replica}@${member.incarnation ?? ''}`);
  return JSON.stringify([members.sort(), value.size ?? null]);
}

export class SetKeeper {
  readonly #options: KeeperOptions;
  /** By leg: what all members of the set are known to keep. */
  readonly #kept = new Map<number, string>();

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /**
   * Finds out what the members keep, and has them keep what is in force.
   * @throws STORE_OUTDATED when one keeps a set of the store that this one was rebuilt after, newer than what was found then
   */
  async begin(present: Versioned<Leadership>, signal: AbortSignal): Promise<KeepOutcome> {
    await Promise.all(
      present.value.legs.map(async ({ inSync }, leg) => {
        const notes = await Promise.all(inSync.map(({ replica }) => this.#read(replica, signal)));
        const found = notes.flatMap((entry) => (entry?.is === 'note' ? [entry.note] : []));
        this.#refuseLateOnes(present.value, leg, found);
        const [first] = found;
        const same = (note: SetNote): boolean =>
          first !== undefined && compareRanks(note, first) === 0 && noteIsOf(note, present.value, leg);
        if (found.length === inSync.length && found.every(same)) this.#kept.set(leg, keptOf(present.value, leg));
      }),
    );
    return this.keep(present, signal);
  }

  /** After a swap. */
  async keep(present: Versioned<Leadership>, signal: AbortSignal): Promise<KeepOutcome> {
    const { value } = present;
    const changed = value.legs.map((_, leg) => leg).filter((leg) => this.#kept.get(leg) !== keptOf(value, leg));
    if (changed.length === 0) return done;
    const outcomes = await Promise.all(
      changed.flatMap((leg) => this.#write(leg, this.#noteOf(present, leg, []), value, signal)),
    );
    const outcome = together(outcomes);
    if (!outcome.fenced)
      for (const leg of changed)
        if (!outcome.failed.some((member) => member.leg === leg)) this.#kept.set(leg, keptOf(value, leg));
    return outcome;
  }

  /** Before the swap that lets it in. One member that keeps it is enough: without it the old set is not whole. */
  async announce(present: Versioned<Leadership>, coming: MemberRef, signal: AbortSignal): Promise<KeepOutcome> {
    const { leg, replica } = coming;
    this.#kept.delete(leg);
    const note = this.#noteOf(present, leg, [replica]);
    return together(await Promise.all(this.#write(leg, note, present.value, signal)));
  }

  #noteOf({ value, revision }: Versioned<Leadership>, leg: number, coming: readonly string[]): SetNote {
    const { size, epoch, volumeId } = value;
    const inSync = value.legs[leg]?.inSync ?? [];
    return { volumeId, leg, epoch, revision, inSync, coming, ...(size === undefined ? {} : { size }) };
  }

  #write(leg: number, note: SetNote, value: Leadership, signal: AbortSignal): Promise<KeepOutcome>[] {
    const text = encodeSetNote(note, this.#signer);
    return (value.legs[leg]?.inSync ?? []).map(({ replica }) => this.#writeTo({ leg, replica }, text, signal));
  }

  async #writeTo(member: MemberRef, note: string, signal: AbortSignal): Promise<KeepOutcome> {
    const { assembly, context } = this.#options;
    const name = assembly.nameOfMember(member.replica);
    if (name === null) return { failed: [member], fenced: false };
    try {
      await context.engine.rpc('basalt_member_write_note', { name, note }, { signal, timeoutMs: writeTimeoutMs });
      return done;
    } catch (error) {
      signal.throwIfAborted();
      // Its node is of a version that keeps none: as everywhere before there were notes.
      if (isEngineError(error, 'unsupported') || isEngineError(error, 'methodNotFound')) return done;
      context.log.warn({ replica: member.replica, error: reason(error) }, 'a member does not keep the in-sync set');
      return { failed: [member], fenced: isEngineError(error, 'fenced') };
    }
  }

  /** Null: it cannot be asked. */
  async #read(replica: string, signal: AbortSignal): Promise<FoundNote | null> {
    const { assembly, context } = this.#options;
    const name = assembly.nameOfMember(replica);
    if (name === null) return null;
    try {
      const { note } = await context.engine.rpc(
        'basalt_member_read_note',
        { name },
        { signal, timeoutMs: writeTimeoutMs },
      );
      return decodeSetNote(note, this.#signer);
    } catch {
      signal.throwIfAborted();
      return null;
    }
  }

  /** The old store came back after the disks were asked, and went on without some member: that one is behind. */
  #refuseLateOnes(present: Leadership, leg: number, found: readonly SetNote[]): void {
    const seen = present.rebuilt?.[leg];
    if (seen === undefined) return;
    const late = found.find(
      (note) =>
        note.volumeId === present.volumeId &&
        generationOf(note.epoch) < generationOf(present.epoch) &&
        compareRanks(note, seen) > 0,
    );
    if (late === undefined) return;
    const { name } = this.#options.volume();
    throw new BasaltError('STORE_OUTDATED', {
      name,
      detail: `leg ${leg} was driven under the old store after its disks were asked`,
    });
  }

  get #signer() {
    return (this.#options.context.identity ?? noIdentity).signer;
  }
}

function noteIsOf(note: SetNote, value: Leadership, leg: number): boolean {
  if (note.volumeId !== value.volumeId || note.leg !== leg || note.coming.length > 0) return false;
  const { size } = note;
  const said = {
    ...value,
    size,
    legs: value.legs.map((each, at) => (at === leg ? { inSync: [...note.inSync] } : each)),
  };
  return keptOf(said as Leadership, leg) === keptOf(value, leg);
}

function together(outcomes: readonly KeepOutcome[]): KeepOutcome {
  const failed = outcomes.flatMap((outcome) => outcome.failed);
  return { failed, fenced: outcomes.some((outcome) => outcome.fenced) };
}
