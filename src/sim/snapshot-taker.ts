// SPDX-License-Identifier: Apache-2.0
//
// Somebody who makes and deletes snapshots of the volume that hosts use while everything else goes wrong, and who reads
// them afterwards, each through a volume that is made of it.
//
// Rules:  - a snapshot is one instant between its asking and its being made, over all legs (History.judgeSnapshot)
//         - it never changes: every volume that was made of it holds the same, whenever that was, whichever copy is asked,
//           also when one of them was written
//         - a volume that was made of it and written holds what was written there, and elsewhere what the snapshot holds
//         - copies of it that were begun are made, or given up
//         - one that was asked for is made in the end, or says that it failed; of one that was deleted nothing is left

import { cloneSnapshot, createSnapshot, deleteSnapshot } from '../api/snapshots.js';
import { attachVolume, deleteVolume, detachVolume, type VolumeDeps } from '../api/volumes.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { ClusterState } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, type VolumeObject } from '../model/objects.js';
import { copiesNeeded, type SnapshotObject } from '../model/snapshots.js';
import { copiesUp } from '../reconcile/snapshots.js';
import { askUntilAnswered, codeOf } from './asking.js';
import type { History } from './history.js';
import type { RareEvents } from './rare-events.js';
import type { BlockValue, Stamp } from './stamp.js';

const keptMax = 6;
/** Of volumes, in stamps: nobody else's. */
const clonesNumber = 1000;
const pollMs = 20;

interface Taken {
  readonly name: string;
  readonly askedNs: number;
  madeNs: number;
  /** Of its objects in the store, by volume: of one with several active controllers each part has one. */
  readonly ids: Map<string, string>;
  copies: number;
}

export interface SnapshotTakerOptions {
  readonly deps: VolumeDeps;
  readonly clock: VirtualClock;
  /** The volume that hosts use. */
  readonly volume: string;
  readonly history: History;
  readonly nowNs: () => number;
  readonly rareEvents: RareEvents;
}

/** A host's eyes: what every block of a volume holds, once for every pass, after `stamps` were written there. */
export type VolumeReader = (
  volume: VolumeObject,
  what: { readonly passes: number; readonly stamps: readonly Stamp[] },
) => Promise<BlockValue[][]>;

export interface SnapshotReading {
  readonly state: () => ClusterState;
  /** The name that the reader is admitted under. */
  readonly host: string;
  readonly read: VolumeReader;
}

export class SnapshotTaker {
  readonly #options: SnapshotTakerOptions;
  readonly #taken = new Map<string, Taken>();
  readonly #kept = new Set<string>();
  readonly #pending = new Set<string>();
  #count = 0;

  constructor(options: SnapshotTakerOptions) {
    this.#options = options;
  }

  /** A name that no snapshot had before; null: there are enough. */
  get freeName(): string | null {
    return this.#kept.size < keptMax ? `s${this.#count + 1}` : null;
  }

  /** Those that were asked for, and were not asked to go. */
  get kept(): string[] {
    return [...this.#kept].filter((name) => !this.#pending.has(name));
  }

  make(name: string): void {
    const { deps, clock, volume, nowNs } = this.#options;
    this.#count++;
    this.#kept.add(name);
    this.#taken.set(name, { name, askedNs: nowNs(), madeNs: Number.POSITIVE_INFINITY, ids: new Map(), copies: 0 });
    this.#ask(name, { refusals: ['VOLUME_UNAVAILABLE'] }, async () => {
      await createSnapshot(deps, clock, { volume, request: { name } });
    });
  }

  delete(name: string): void {
    const { deps, volume, rareEvents } = this.#options;
    this.#ask(name, {}, async () => {
      await deleteSnapshot(deps, { volume, snapshot: name }).catch((error: unknown) => {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
      });
      this.#kept.delete(name);
      rareEvents.reach('snapshot_deleted');
    });
  }

  /** Every object that the store takes. */
  saw(key: string, text: string): void {
    if (!key.startsWith(keys.snapshots)) return;
    const { nowNs, rareEvents } = this.#options;
    const snapshot = codecs.snapshot.decode(text, key);
    const taken = this.#taken.get(snapshot.name);
    if (taken === undefined) return;
    taken.ids.set(snapshot.volumeId, snapshot.id);
    if (snapshot.failedCount === 1 && snapshot.phase === 'wanted') rareEvents.reach('snapshot_tried_again');
    const copies = snapshot.phase === 'ready' ? (snapshot.cut?.copies.length ?? 0) : 0;
    if (taken.copies > 0 && copies > taken.copies) rareEvents.reach('snapshot_copied');
    taken.copies = copies;
    if (snapshot.phase !== 'ready' || taken.madeNs !== Number.POSITIVE_INFINITY) return;
    taken.madeNs = nowNs();
    rareEvents.reach('snapshot_made');
  }

  /** What is not as it was asked for, or null. Every node is up. */
  unrest(state: ClusterState): string | null {
    if (this.#pending.size > 0) return `no answer about ${[...this.#pending].join(', ')}`;
    for (const snapshot of state.all('snapshots')) {
      const { name, phase, problem } = snapshot;
      if (phase === 'wanted' || phase === 'cutting') return `snapshot ${name} is ${phase}: ${problem ?? 'no problem'}`;
      if (snapshot.making !== undefined) return `copies of ${name} are being made`;
      // What a try left that may yet be carried out goes when the next controller has taken over.
      if (phase === 'deleting' && snapshot.leftovers.every(({ epoch }) => epoch === 0)) return `${name} is deleting`;
    }
    return null;
  }

  /** What is wrong with a snapshot, or null. Reads every volume that was made of one, and makes one more of each. */
  async judge(reading: SnapshotReading): Promise<string | null> {
    for (const taken of this.#taken.values()) {
      const wrote = await this.#judgeWritten(taken, reading);
      if (wrote !== null) return `snapshot ${taken.name}: ${wrote}`;
      const seen = [...(await this.#readClones(taken, reading)), ...(await this.#readFresh(taken, reading))];
      const problem = seen.map(({ values }) => this.#judgeOne(taken, values)).find((found) => found !== null);
      if (problem !== undefined) return `snapshot ${taken.name}: ${problem}`;
      const first = seen[0];
      const other = seen.find(({ values }) => JSON.stringify(values) !== JSON.stringify(first?.values));
      if (other !== undefined)
        return `snapshot ${taken.name}: it changed: ${first?.volume} and ${other.volume} differ at ${differences(first?.values ?? [], other.values)}`;
    }
    return null;
  }

  #judgeOne(taken: Taken, values: readonly BlockValue[]): string | null {
    return this.#options.history.judgeSnapshot(taken, values);
  }

  async #readClones(taken: Taken, reading: SnapshotReading): Promise<{ volume: string; values: BlockValue[] }[]> {
    const clones = reading.state().all('volumes');
    const isMine = ({ origin, phase, partOf }: VolumeObject): boolean =>
      partOf === undefined && phase === 'live' && [...taken.ids.values()].includes(origin?.snapshotId ?? '');
    const mine = clones.filter(isMine);
    const seen: { volume: string; values: BlockValue[] }[] = [];
    for (const { name } of mine) {
      seen.push(...(await this.#readVolume(name, reading)));
      this.#options.rareEvents.reach('clone_read');
    }
    return seen;
  }

  /** Of what is read afterwards: the snapshot is as it was. */
  async #judgeWritten(taken: Taken, reading: SnapshotReading): Promise<string | null> {
    const name = `write-${taken.name}`;
    if (!(await this.#cloneFresh(name, taken, reading))) return null;
    const [before] = await this.#readVolume(name, reading);
    const stamps = stampsOf(before?.values ?? []);
    const after = await this.#readVolume(name, reading, stamps);
    await this.#remove(name, reading);
    this.#options.rareEvents.reach('clone_written');
    const right = (before?.values ?? []).map((value, lba) => stamps.find((stamp) => stamp.lba === lba) ?? value);
    const wrong = after.find(({ values }) => JSON.stringify(values) !== JSON.stringify(right));
    return wrong === undefined
      ? null
      : `a volume that is made of it loses writes at ${differences(right, wrong.values)}`;
  }

  async #readFresh(taken: Taken, reading: SnapshotReading): Promise<{ volume: string; values: BlockValue[] }[]> {
    const name = `read-${taken.name}`;
    if (!(await this.#cloneFresh(name, taken, reading))) return [];
    const seen = await this.#readVolume(name, reading);
    await this.#remove(name, reading);
    return seen;
  }

  /** False: it cannot be had. */
  async #cloneFresh(name: string, taken: Taken, reading: SnapshotReading): Promise<boolean> {
    const { deps, volume } = this.#options;
    const state = reading.state();
    const snapshots = [...taken.ids.values()].map((id) => state.get('snapshots', id));
    if (snapshots.length === 0) return false;
    for (const snapshot of snapshots) if (snapshot === null || !isWhole(snapshot, state)) return false;
    // By name: all of them may be cordoned.
    const controllers = reading.state().volumeByName(volume)?.controllers ?? [];
    await this.#done(() => cloneSnapshot(deps, { volume, snapshot: taken.name, request: { name, controllers } }));
    return true;
  }

  /** Until its space is free again: many are made, one after another. */
  async #remove(name: string, { state }: SnapshotReading): Promise<void> {
    await this.#done(() => deleteVolume(this.#options.deps, name));
    while (
      state()
        .all('volumes')
        .some(({ phase }) => phase === 'deleting')
    )
      await this.#options.clock.sleep(pollMs);
  }

  async #readVolume(
    name: string,
    reading: SnapshotReading,
    stamps: readonly Stamp[] = [],
  ): Promise<{ volume: string; values: BlockValue[] }[]> {
    const { deps, clock } = this.#options;
    const { state, host, read } = reading;
    await this.#done(() => attachVolume(deps, name, { host }));
    const find = (): VolumeObject | null => state().volumeByName(name);
    const isLed = (id: string): boolean => state().get('leaderships', id)?.controller != null;
    const driven = (volume: VolumeObject | null): string[] => [
      ...(volume?.fronts ?? [volume?.id ?? '']),
      ...(volume?.parts ?? []),
    ];
    while (!driven(find()).every(isLed)) await clock.sleep(pollMs);
    const volume = find();
    if (volume === null) throw new Error(`volume ${name} is gone`);
    const parts = (volume.parts ?? []).flatMap((id) => state().get('volumes', id) ?? []);
    const passes = 1 + Math.max(...[volume, ...parts].flatMap(({ legs }) => legs.map((leg) => leg.replicas.length)));
    const seen = await read(volume, { passes, stamps });
    await this.#done(() => detachVolume(deps, name, { host }));
    return seen.map((values) => ({ volume: name, values }));
  }

  /** Until it is done: nothing goes wrong any more, but a clone may have to wait for its disks. */
  async #done(act: () => Promise<unknown>): Promise<void> {
    await askUntilAnswered(this.#options.clock, {}, async () => {
      await act();
    });
  }

  #ask(name: string, words: { refusals?: readonly string[] }, act: () => Promise<void>): void {
    this.#pending.add(name);
    void askUntilAnswered(this.#options.clock, words, act).then((answer) => {
      if (answer === 'refused') this.#kept.delete(name);
      this.#pending.delete(name);
    });
  }
}

/** It was made, and every leg can be had from its copies. */
function isWhole(snapshot: SnapshotObject, state: ClusterState): boolean {
  const volume = state.get('volumes', snapshot.volumeId);
  if (volume === null) return false;
  const up = copiesUp(snapshot, volume.legs.length, () => true);
  return up.every((copies) => copies.length >= copiesNeeded(volume));
}

/** For a volume that holds this: some blocks apart and some in a row, of what was written there before and of what was not. */
function stampsOf(values: readonly BlockValue[]): Stamp[] {
  const chosen = values.map((_, lba) => lba).filter((lba) => lba % 11 === 0 || lba % 40 < 3);
  return chosen.map((lba) => ({ volume: clonesNumber, lba, writer: 1, sequence: lba + 1 }));
}

function differences(one: readonly BlockValue[], other: readonly BlockValue[]): string {
  const at = one.flatMap((value, lba) => (JSON.stringify(value) === JSON.stringify(other[lba]) ? [] : [lba]));
  return at.slice(0, 8).join(', ');
}
