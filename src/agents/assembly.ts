// SPDX-License-Identifier: Apache-2.0
//
// What one epoch of a volume consists of in this process' engine: members → legs → raid0 (→ crypto, when the volume is
// encrypted), and the slot that hosts see.
// Names carry the epoch's sequence, so that what is left of an earlier one is never mistaken for the present one.
//
// Invariants:  - torn down in the reverse order; a failed step does not keep the later ones from being tried
//              - an encrypted volume is never behind its slot without its crypto bdev
//              - the slot outlives assemblies: hosts keep their namespace while its backing changes

import { type Engine, isEngineError } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import { nqns } from '../model/keys.js';
import type { GrowingSize, Leadership, VolumeObject } from '../model/objects.js';
import { hasTails, legDataBytesAt, replicaBytesAt } from '../placement/leg-size.js';
import type { MemberRef } from '../reconcile/membership.js';
import { type Logger, reason } from './context.js';
import type { AttachedMember } from './takeover.js';

export function slotName(volumeId: string): string {
  return `slot-${volumeId}`;
}

/** It is there, and has at least that size. */
export async function ensureSlot(
  engine: Engine,
  volume: VolumeObject,
  sizeBytes: number = volume.sizeBytes,
): Promise<string> {
  const name = slotName(volume.id);
  const [present] = await engine.rpc('bdev_get_bdevs', { name }).catch((error: unknown) => {
    if (isEngineError(error, 'noDevice')) return [];
    throw error;
  });
  const shape = { num_blocks: sizeBytes / volume.blockSizeBytes, block_size: volume.blockSizeBytes };
  if (present !== undefined) {
    if (present.num_blocks < shape.num_blocks)
      await engine.rpc('basalt_slot_resize', { name, num_blocks: shape.num_blocks });
    return name;
  }
  await engine.rpc('basalt_slot_create', { name, ...shape, uuid: volume.id }).catch((error: unknown) => {
    // Someone else of this process made it in between.
    if (!isEngineError(error, 'exists')) throw error;
  });
  return name;
}

export interface AssemblyOptions {
  readonly engine: Engine;
  readonly log: Logger;
  readonly volume: VolumeObject;
  readonly epoch: number;
  /** Distinguishes assemblies of one process, also two of the same epoch. */
  readonly sequence: string;
}

export interface AssemblyShape {
  readonly members: readonly AttachedMember[];
  readonly allDirty: boolean;
  readonly leaseMs: number;
  readonly size: GrowingSize;
  readonly begun: Leadership['begun'];
  /** Of an encrypted volume: AES-256-XTS, 32 bytes for the data and 32 for the tweak. */
  readonly dataKey: Buffer | null;
}

interface LegBlocks {
  readonly num_blocks: number;
  readonly grown_num_blocks?: number;
}

function replicasOf(volume: VolumeObject, leg: number): string[] {
  return (volume.legs[leg]?.replicas ?? []).map(({ replica }) => nqns.replica(replica));
}

export class Assembly {
  readonly epoch: number;
  readonly raidName: string;
  readonly cryptoName: string;
  readonly #options: AssemblyOptions;
  readonly #members = new Map<string, MemberRef>();
  readonly #legs: string[] = [];
  #raid = false;
  #crypto = false;
  #backing = false;

  constructor(options: AssemblyOptions) {
    this.#options = options;
    this.epoch = options.epoch;
    this.raidName = `volume-${options.volume.id}-${options.sequence}`;
    this.cryptoName = `crypto-${options.volume.id}-${options.sequence}`;
  }

  legName(leg: number): string {
    return `leg-${this.#options.volume.id}-${leg}-${this.#options.sequence}`;
  }

  /** `attempt` distinguishes attachments of one member. */
  memberName(member: MemberRef, attempt: string): string {
    return `member-${member.replica}-${this.#options.sequence}-${attempt}`;
  }

  /** The leg's index, or null when the leg is none of this assembly's. */
  legIndex(name: string): number | null {
    const index = this.#legs.indexOf(name);
    return index < 0 ? null : index;
  }

  memberNamed(name: string): MemberRef | null {
    return this.#members.get(name) ?? null;
  }

  nameOfMember(replica: string): string | null {
    for (const [name, member] of this.#members) if (member.replica === replica) return name;
    return null;
  }

  /** From now on `tearDown` detaches it. */
  adopt(member: AttachedMember): void {
    this.#members.set(member.name, { leg: member.leg, replica: member.replica });
  }

  async detach(name: string): Promise<void> {
    this.#members.delete(name);
    await this.#try('member detach', () => this.#options.engine.rpc('basalt_member_detach', { name }));
  }

  async build(shape: AssemblyShape): Promise<void> {
    const { engine, volume } = this.#options;
    // Known before they are made: their first events may come before the answers.
    this.#legs.push(...volume.legs.map((_, leg) => this.legName(leg)));
    const made = await Promise.allSettled(volume.legs.map((_, leg) => this.#createLeg(leg, shape)));
    // All have ended by now: what is torn down after a failure is all there is.
    for (const outcome of made) if (outcome.status === 'rejected') throw outcome.reason;
    await engine.rpc('bdev_raid_create', {
      name: this.raidName,
      raid_level: 'raid0',
      base_bdevs: [...this.#legs],
      strip_size_kb: volume.stripeSizeBytes / 1024,
    });
    this.#raid = true;
    await this.#encrypt(shape.dataKey);
    await engine.rpc('basalt_slot_set', { name: slotName(volume.id), bdev_name: this.#top });
    this.#backing = true;
  }

  async #createLeg(leg: number, shape: AssemblyShape): Promise<void> {
    const members = shape.members.filter((entry) => entry.leg === leg);
    await this.#options.engine.rpc('basalt_leg_create', {
      name: this.legName(leg),
      epoch: this.#options.epoch,
      members: members.map((entry) => ({ name: entry.name, in_sync: true })),
      all_dirty: shape.allDirty && members.length > 1,
      lease_ms: shape.leaseMs,
      ...(this.#parity(leg, shape) ?? this.#tails(leg, shape.size) ?? {}),
    });
  }

  /** What the slot stands on. */
  get #top(): string {
    return this.#crypto ? this.cryptoName : this.raidName;
  }

  async #encrypt(dataKey: Buffer | null): Promise<void> {
    const { engine, volume } = this.#options;
    if ((volume.encryption === undefined) !== (dataKey === null))
      throw new BasaltError('INTERNAL', { detail: `volume ${volume.name} and its key do not fit together` });
    if (dataKey === null) return;
    const half = dataKey.length / 2;
    const [key, key2] = [dataKey.toString('hex', 0, half), dataKey.toString('hex', half)];
    await engine.rpc('accel_crypto_key_create', { name: this.cryptoName, cipher: 'AES_XTS', key, key2 });
    try {
      await engine.rpc('bdev_crypto_create', {
        base_bdev_name: this.raidName,
        name: this.cryptoName,
        key_name: this.cryptoName,
      });
      this.#crypto = true;
    } finally {
      // The bdev has made its own of it.
      await engine.rpc('accel_crypto_key_destroy', { key_name: this.cryptoName });
    }
  }

  #legBlocks(sizeBytes: number): number {
    const { volume } = this.#options;
    return legDataBytesAt(volume, sizeBytes) / volume.blockSizeBytes;
  }

  /** Of a leg with parity, which keeps no marks: its members have a log. */
  #parity(
    leg: number,
    { size, begun }: AssemblyShape,
  ): (LegBlocks & { identity: string; origin?: string; data_members: number; parity_members: number }) | null {
    const { id, erasure } = this.#options.volume;
    if (erasure === undefined) return null;
    const { data, parity } = erasure;
    const identity = `${begun?.identity ?? id}/${leg}`;
    const origin = begun === undefined ? {} : { origin: `${begun.origin}/${leg}` };
    return { ...this.#blocksOf(size), identity, ...origin, data_members: data, parity_members: parity };
  }

  /** Where the replicas have room for them, the leg keeps its marks in tails behind its data. */
  #tails(leg: number, size: GrowingSize): (LegBlocks & { identity: string; replicas: string[] }) | null {
    const { volume } = this.#options;
    if (!hasTails(volume)) return null;
    return { ...this.#blocksOf(size), identity: `${volume.id}/${leg}`, replicas: replicasOf(volume, leg) };
  }

  /** What the leg is surely long enough for, and what it may have been lengthened to already. */
  #blocksOf(size: GrowingSize): LegBlocks {
    const num_blocks = this.#legBlocks(size.servedBytes);
    const grown_num_blocks = size.growing ? this.#legBlocks(size.wantedBytes) : num_blocks;
    return { num_blocks, ...(grown_num_blocks > num_blocks ? { grown_num_blocks } : {}) };
  }

  /** What members lack the room for a volume of that size; none: null. */
  async lacksRoomFor(sizeBytes: number): Promise<string | null> {
    const { engine, volume } = this.#options;
    const needed = replicaBytesAt(volume, sizeBytes);
    const bdevs = await engine.rpc('bdev_get_bdevs', {});
    const small = bdevs.flatMap((bdev) => {
      const member = this.#members.get(bdev.name);
      const bytes = bdev.num_blocks * bdev.block_size;
      if (member === undefined || bytes >= needed) return [];
      return [`replica ${member.replica} has ${bytes} of ${needed} bytes`];
    });
    return small.length === 0 ? null : small.join('; ');
  }

  /** Every leg holds its share of a volume of that size, and nothing of it has moved. */
  async lengthenLegs(sizeBytes: number): Promise<void> {
    const num_blocks = this.#legBlocks(sizeBytes);
    await Promise.all(this.#legs.map((name) => this.#options.engine.rpc('basalt_leg_resize', { name, num_blocks })));
  }

  /** Marks are kept for the replicas that the volume has now: one that was replaced needs them no more. */
  async keepMarks(volume: VolumeObject): Promise<void> {
    await Promise.all(
      this.#legs.map(async (name, leg) => {
        const replicas = replicasOf(volume, leg);
        if (!hasTails(this.#options.volume) || replicas.length === 0) return;
        await this.#try('marks', () => this.#options.engine.rpc('basalt_leg_keep_marks', { name, replicas }));
      }),
    );
  }

  /** After this nothing of this epoch reaches a replica from here, whatever is still queued. */
  async fence(): Promise<void> {
    await Promise.all(
      this.#legs.map((name) => this.#try('leg fence', () => this.#options.engine.rpc('basalt_leg_fence', { name }))),
    );
  }

  /** Of legs with parity: which strips each replica has. */
  async places(): Promise<ReadonlyMap<string, number>> {
    const legs = await Promise.all(this.#legs.map((name) => this.#options.engine.rpc('basalt_leg_get', { name })));
    const found = new Map<string, number>();
    for (const { name, place } of legs.flatMap(({ members }) => members)) {
      const member = this.#members.get(name);
      if (member !== undefined && place !== undefined) found.set(member.replica, place);
    }
    return found;
  }

  /** Nothing is dirty and every member present is in sync. */
  async isClean(): Promise<boolean> {
    const legs = await Promise.all(this.#legs.map((name) => this.#options.engine.rpc('basalt_leg_get', { name })));
    return legs.every(
      (leg) =>
        leg.state === 'active' && leg.dirty_regions === 0 && leg.members.every((member) => member.state !== 'failed'),
    );
  }

  /**
   * Flushes all members. `clean`: every leg's are equal, and what was written before is stable on them. `unmarked`: whoever
   * takes them over next finds nothing that may differ.
   */
  async settle(): Promise<{ clean: boolean; unmarked: boolean }> {
    const { engine, volume } = this.#options;
    const legs = await Promise.all(this.#legs.map((name) => engine.rpc('basalt_leg_settle', { name })));
    const clean = legs.every((leg) => leg.clean);
    return { clean, unmarked: clean && hasTails(volume) && legs.every((leg) => leg.marked_regions === 0) };
  }

  /** A replica is known to obey a later epoch. */
  isFenced(): Promise<boolean> {
    return this.#isSome('fenced');
  }

  /** A member failed, and is in the set. */
  isWaiting(): Promise<boolean> {
    return this.#isSome('waiting');
  }

  async #isSome(state: 'fenced' | 'waiting'): Promise<boolean> {
    const legs = await Promise.all(this.#legs.map((name) => this.#options.engine.rpc('basalt_leg_get', { name })));
    return legs.some((leg) => leg.state === state);
  }

  async tearDown(): Promise<void> {
    const { engine, volume } = this.#options;
    if (this.#backing) {
      await this.#try('slot clear', () =>
        engine.rpc('basalt_slot_set', { name: slotName(volume.id), bdev_name: null }),
      );
      this.#backing = false;
    }
    if (this.#crypto) {
      await this.#try('crypto delete', () => engine.rpc('bdev_crypto_delete', { name: this.cryptoName }));
      this.#crypto = false;
    }
    if (this.#raid) {
      await this.#try('raid delete', () => engine.rpc('bdev_raid_delete', { name: this.raidName }));
      this.#raid = false;
    }
    for (const name of this.#legs.splice(0))
      await this.#try('leg delete', () => engine.rpc('basalt_leg_delete', { name }));
    const names = [...this.#members.keys()];
    await Promise.all(names.map((name) => this.detach(name)));
  }

  async #try(step: string, act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#options.log.warn(
        { volume: this.#options.volume.name, step, error: reason(error) },
        'engine refused a step',
      );
    }
  }
}
