// SPDX-License-Identifier: Apache-2.0
//
// Goal: members keep the set that is in force, as soon as it is, and nothing is written while it stays the same. Method: an
// engine whose members are a map of notes.

import { beforeEach, describe, expect, it } from 'vitest';
import { EngineError, type EngineErrorName, engineErrorCodes } from '../engine/errors.js';
import { firstEpoch } from '../model/generation.js';
import type { Leadership } from '../model/objects.js';
import { decodeSetNote, encodeSetNote, type SetNote } from '../model/set-note.js';
import type { Versioned } from './leadership-register.js';
import { noIdentity } from './node-identity.js';
import { type KeeperOptions, SetKeeper } from './set-keeper.js';
import { quietLog } from './testing/cluster-bed.js';

const uuid = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
const [a, b, c] = [uuid(1), uuid(2), uuid(3)] as const;
const volumeId = uuid(9);
const { signal } = new AbortController();

/** By member: what it keeps, as hexadecimal digits. */
let notes: Map<string, string>;
let written: string[];
let refuses: Map<string, EngineErrorName>;

function keeper(): SetKeeper {
  const engine = {
    rpc: async (method: string, { name, note }: { name: string; note?: string }): Promise<unknown> => {
      const refused = refuses.get(name);
      if (refused !== undefined) throw new EngineError(engineErrorCodes[refused], method, 'refused');
      if (note === undefined) return { note: notes.get(name) ?? '' };
      notes.set(name, note);
      written.push(name);
      return true;
    },
  };
  const options = {
    context: { engine, log: quietLog },
    volume: () => ({ name: 'v' }),
    assembly: { nameOfMember: (replica: string) => replica },
  };
  return new SetKeeper(options as unknown as KeeperOptions);
}

function led(inSync: readonly string[], revision: number, over: Partial<Leadership> = {}): Versioned<Leadership> {
  const legs = [{ inSync: inSync.map((replica) => ({ replica, incarnation: 'i' })) }];
  const holder = { controller: 'c', instance: uuid(8) };
  return { revision, value: { format: 1, volumeId, epoch: 4, ...holder, clean: false, leaseMs: 300, legs, ...over } };
}

function keptBy(name: string): SetNote | null {
  const found = decodeSetNote(notes.get(name) ?? '', noIdentity.signer);
  return found.is === 'note' ? found.note : null;
}

const membersOf = (name: string): string[] | undefined => keptBy(name)?.inSync.map(({ replica }) => replica);

beforeEach(() => {
  notes = new Map();
  written = [];
  refuses = new Map();
});

describe('a keeper of sets', () => {
  it('has all members keep what is in force, and writes it once', async () => {
    const one = keeper();
    expect(await one.begin(led([a, b], 20), signal)).toEqual({ failed: [], fenced: false });
    expect([keptBy(a), keptBy(b)]).toMatchObject([{ volumeId, leg: 0, epoch: 4, revision: 20, coming: [] }, {}]);
    expect(membersOf(b)).toEqual([a, b]);
    await one.keep(led([b, a], 25), signal);
    // The next controller finds what it would write.
    await keeper().begin(led([a, b], 30, { epoch: 5 }), signal);
    expect(written).toEqual([a, b]);
  });

  it('writes it anew when somebody is gone, has another incarnation, or the volume another size', async () => {
    const one = keeper();
    await one.begin(led([a, b], 20), signal);
    await one.keep(led([a], 21), signal);
    expect([membersOf(a), keptBy(a)?.revision]).toEqual([[a], 21]);
    const size = { servedBytes: 1, wantedBytes: 2, growing: true };
    await one.keep(led([a], 22, { size }), signal);
    expect(keptBy(a)).toMatchObject({ size, revision: 22 });
    const restarted = led([a], 23, { size });
    restarted.value.legs[0]?.inSync.splice(0, 1, { replica: a, incarnation: 'j' });
    await one.keep(restarted, signal);
    expect(keptBy(a)?.inSync).toEqual([{ replica: a, incarnation: 'j' }]);
    expect(written).toEqual([a, b, a, a, a]);
  });

  it('writes it anew for all when one of them keeps another one, or the same one of another time', async () => {
    await keeper().begin(led([a, b], 20), signal);
    notes.set(b, encodeSetNote({ ...(keptBy(b) as SetNote), revision: 7 }, noIdentity.signer));
    await keeper().begin(led([a, b], 30), signal);
    expect([keptBy(a)?.revision, keptBy(b)?.revision]).toEqual([30, 30]);
    notes.set(a, '00');
    await keeper().begin(led([a, b], 40), signal);
    expect([keptBy(a)?.revision, keptBy(b)?.revision]).toEqual([40, 40]);
  });

  it('names members that do not keep it, and tells when a later epoch is obeyed', async () => {
    const one = keeper();
    refuses.set(b, 'io');
    expect(await one.begin(led([a, b], 20), signal)).toEqual({ failed: [{ leg: 0, replica: b }], fenced: false });
    // Not taken for kept.
    refuses.clear();
    await one.keep(led([a, b], 20), signal);
    expect(membersOf(b)).toEqual([a, b]);
    refuses.set(a, 'fenced');
    expect(await one.keep(led([a], 21), signal)).toEqual({ failed: [{ leg: 0, replica: a }], fenced: true });
  });

  it('does without members of versions that keep nothing', async () => {
    refuses.set(b, 'unsupported');
    expect(await keeper().begin(led([a, b], 20), signal)).toEqual({ failed: [], fenced: false });
    expect(membersOf(a)).toEqual([a, b]);
  });

  it('announces who comes, and has that forgotten with the next set', async () => {
    const one = keeper();
    await one.begin(led([a, b], 20), signal);
    await one.announce(led([a, b], 20), { leg: 0, replica: c }, signal);
    expect(keptBy(a)).toMatchObject({ revision: 20, coming: [c] });
    await one.keep(led([b, c], 21), signal);
    expect([membersOf(c), keptBy(c)?.coming]).toEqual([[b, c], []]);
  });

  it('forgets the announcement also when nobody was let in', async () => {
    const one = keeper();
    await one.begin(led([a, b], 20), signal);
    await one.announce(led([a, b], 20), { leg: 0, replica: c }, signal);
    await keeper().begin(led([a, b], 22), signal);
    expect([keptBy(a)?.coming, keptBy(b)?.coming]).toEqual([[], []]);
  });

  it('refuses members that were driven under the old store after they were asked for a new one', async () => {
    await keeper().begin(led([a, b], 50, { epoch: 9 }), signal);
    const rebuilt = (revision: number) => ({ epoch: firstEpoch(1) + 2, rebuilt: [{ epoch: 9, revision }] });
    await expect(keeper().begin(led([a, b], 3, rebuilt(40)), signal)).rejects.toMatchObject({ code: 'STORE_OUTDATED' });
    expect(keptBy(a)?.epoch).toBe(9);
    await keeper().begin(led([a, b], 3, rebuilt(50)), signal);
    // Of another generation, and so not the same: written anew the first time that something changes.
    await keeper().begin(led([a], 4, rebuilt(50)), signal);
    expect(keptBy(a)).toMatchObject({ epoch: firstEpoch(1) + 2, revision: 4 });
  });
});
