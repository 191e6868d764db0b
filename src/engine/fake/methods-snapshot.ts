// SPDX-License-Identifier: Apache-2.0
//
// The fake's instant over all legs of a volume.

import { engineErrorCodes } from '../engine.js';
import type { SlotIo } from './bdev.js';
import { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { IoStatus, Refused } from './refusal.js';
import type { EngineState } from './state.js';

const membersMax = 1024;

interface Making {
  readonly name: string;
  readonly of: readonly SnapshotOf[];
  readonly holdMs: number;
  /** '': it is alone. */
  readonly group: string;
  readonly io: SlotIo | undefined;
  /** From now on members may have theirs. */
  readonly ask: () => void;
}

interface SnapshotOf {
  readonly member: string;
  readonly name: string;
}

function readMembers(fields: Fields): SnapshotOf[] {
  return fields.array('members', 1, membersMax).map((item, index): SnapshotOf => {
    const each = new Fields(item, `params.members[${index}]`);
    const one = { member: each.string('name'), name: each.string('snapshot_name') };
    each.end();
    return one;
  });
}

async function prepareSlot(state: EngineState, fields: Fields): Promise<true> {
  const name = fields.string('name');
  const of = readMembers(fields);
  fields.end();
  state.bdev(name, 'slot');
  check(state, name, of);
  await onAll(of, (one) => flush(state, one));
  return true;
}

function releaseSlot(state: EngineState, fields: Fields): true {
  const [name, group] = [fields.string('name'), fields.string('group')];
  fields.end();
  const hold = state.holds.get(name);
  if (hold?.group !== group) throw new Refused('notFound', `slot ${name} is not held for ${group}`);
  hold.release();
  return true;
}

async function snapshotSlot(state: EngineState, fields: Fields): Promise<unknown> {
  const name = fields.string('name');
  const of = readMembers(fields);
  const holdMs = fields.natural('hold_ms', 1, 1000);
  const group = fields.stringOr('group', '');
  fields.end();
  const io = state.slots.get(state.bdev(name, 'slot').name);
  let asked = false;
  try {
    return await make(state, {
      name,
      of,
      holdMs,
      group,
      io,
      ask: () => {
        asked = true;
      },
    });
  } catch (error) {
    if (error instanceof Refused) error.data = { cut: asked };
    throw error;
  }
}

async function make(state: EngineState, at: Making): Promise<{ held_us: number }> {
  const { name, of, holdMs, group, io } = at;
  const { clock } = state.network;
  check(state, name, of);
  if (group === '') await onAll(of, (one) => flush(state, one));
  const beganMs = clock.now();
  let late = false;
  let released = false;
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const timer = clock.setTimer(holdMs, () => {
    late = true;
    state.holds.delete(name);
    io?.resume();
    end();
  });
  try {
    const drained = io?.quiesce() ?? Promise.resolve();
    await Promise.race([drained, clock.sleep(holdMs)]);
    if (late) throw new Refused('timedOut', `${name}: requests are still in flight below`);
    check(state, name, of);
    at.ask();
    if (group !== '') {
      const release = (): void => {
        released = true;
        end();
      };
      state.holds.set(name, { group, release });
      state.emit({ method: 'slot_held', params: { name, group } });
    }
    await onAll(of, (one) => cut(state, one));
    if (group !== '') await ended;
    if (late && (released || group === ''))
      throw new Refused('timedOut', `${name}: not every member had its snapshot in time`);
    if (late) throw new Refused('timedOut', `${name}: it was not told in time that all of its group are held`);
  } finally {
    timer.cancel();
    state.holds.delete(name);
    if (!late) io?.resume();
  }
  const heldUs = (clock.now() - beganMs) * 1000;
  await onAll(of, (one) => flush(state, one));
  check(state, name, of);
  return { held_us: heldUs };
}

/** All of them end before the first failure is told. */
async function onAll(of: readonly SnapshotOf[], act: (one: SnapshotOf) => Promise<void>): Promise<void> {
  const outcomes = await Promise.allSettled(of.map(act));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw asRefusal(outcome.reason);
}

function asRefusal(error: unknown): unknown {
  // Over the wire a name that is taken is an Invalid Field.
  if (error instanceof Refused && error.code === engineErrorCodes.exists) return new Refused('invalid', error.message);
  if (!(error instanceof IoStatus)) return error;
  return new Refused((error.status & 0x7ff) === 0x083 ? 'fenced' : 'unreachable', error.message);
}

function flush(state: EngineState, { member }: SnapshotOf): Promise<void> {
  return named(member, state.bdev(member).flush());
}

async function cut(state: EngineState, { member, name }: SnapshotOf): Promise<void> {
  const found = state.members.get(member);
  if (found === undefined) throw new Refused('notFound', `bdev ${member} does not exist`);
  await named(member, found.snapshot(name));
}

async function named(member: string, done: Promise<void>): Promise<void> {
  try {
    await done;
  } catch (error) {
    if (error instanceof IoStatus) throw new IoStatus(error.status, `${member}: ${error.message}`);
    if (error instanceof Refused && error.code === engineErrorCodes.exists)
      throw new Refused('exists', `${member}: ${error.message}`);
    throw error;
  }
}

function check(state: EngineState, slot: string, of: readonly SnapshotOf[]): void {
  const present = membersBelow(state, slot).sort();
  if (present.length === 0) throw new Refused('busy', `${slot}: no leg backs it`);
  const named = of.map((one) => one.member).sort();
  if (JSON.stringify(present) !== JSON.stringify(named))
    throw new Refused('busy', `${slot}: the members in sync are others`);
}

function membersBelow(state: EngineState, name: string): string[] {
  return state.bdev(name).children.flatMap((child) => {
    const leg = state.legs.get(child);
    return leg === undefined ? membersBelow(state, child) : leg.io.equalMembers();
  });
}

export const snapshotMethods: Record<string, Handler> = {
  basalt_slot_snapshot: snapshotSlot,
  basalt_slot_snapshot_prepare: prepareSlot,
  basalt_slot_release: releaseSlot,
};
