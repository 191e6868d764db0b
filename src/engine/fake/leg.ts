// SPDX-License-Identifier: Apache-2.0
//
// A leg of the fake: a mirror over members, with the rules that the control plane depends on: writes wait for the word
// about a failed member, a conflict fences, a joining member receives writes while it is copied.

import type { LegScrub } from '../descriptions.js';
import type { FakeBdev, FakeIo } from './bdev.js';
import { anaInaccessible, IoStatus, Refused } from './refusal.js';

export interface LegMember {
  readonly bdev: FakeBdev;
  state: 'in_sync' | 'joining' | 'copied';
  failed: boolean;
  syncedBlocks: number;
}

export interface LegEvents {
  memberFailed(member: string, reason: string): void;
  memberCopied(member: string): void;
  joiningFailed(member: string, reason: string): void;
  fenced(): void;
  clean(): void;
}

const isConflict = (error: unknown): boolean => error instanceof IoStatus && (error.status & 0x7ff) === 0x083;
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const noScrub: LegScrub = {
  state: 'idle',
  percent: 0,
  compared_blocks: 0,
  different_blocks: 0,
  unreadable_blocks: 0,
  repaired_blocks: 0,
};

function differingBlocks(one: Uint8Array, other: Uint8Array, blockBytes: number): number {
  let count = 0;
  for (let at = 0; at < one.length; at += blockBytes) {
    if (Buffer.compare(one.subarray(at, at + blockBytes), other.subarray(at, at + blockBytes)) !== 0) count += 1;
  }
  return count;
}

export class LegIo implements FakeIo {
  readonly #members = new Map<string, LegMember>();
  readonly #events: LegEvents;
  readonly #marks: { set(): void };
  readonly #settled: (() => void)[] = [];
  /** Blocks that may differ between members: all of them after an unclean takeover. */
  dirty: boolean;
  fenced = false;

  /** Of the leg; a tail behind them on each member is the leg's own. */
  numBlocks: number;
  scrub: LegScrub = noScrub;
  #paused = false;

  constructor(
    members: readonly FakeBdev[],
    { allDirty, numBlocks, marks }: { allDirty: boolean; numBlocks: number; marks: { set(): void } },
    events: LegEvents,
  ) {
    this.#marks = marks;
    this.numBlocks = numBlocks;
    for (const bdev of members)
      this.#members.set(bdev.name, { bdev, state: 'in_sync', failed: false, syncedBlocks: numBlocks });
    this.dirty = allDirty;
    this.#events = events;
  }

  get members(): readonly LegMember[] {
    return [...this.#members.values()];
  }

  get waiting(): boolean {
    return this.members.some((member) => member.failed && member.state !== 'joining');
  }

  async read(offset: number, count: number): Promise<Uint8Array> {
    await this.#equalize();
    for (;;) {
      if (this.fenced) throw anaInaccessible();
      const member = this.members.find((each) => each.state === 'in_sync' && !each.failed);
      if (member === undefined) {
        await this.#change();
        continue;
      }
      try {
        return await member.bdev.read(offset, count);
      } catch (error) {
        this.#broke(member, error);
      }
    }
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    const copy = data.slice();
    this.#marks.set();
    return this.#onAll((member) => member.bdev.write(offset, copy));
  }

  flush(): Promise<void> {
    return this.#onAll((member) => member.bdev.flush());
  }

  /** Flushed and equal. A member that fails is not waited for. */
  async settle(): Promise<boolean> {
    const members = this.members.filter((member) => member.state !== 'joining');
    if (this.fenced || members.some((member) => member.failed)) return false;
    const flush = (member: LegMember): Promise<void> =>
      member.bdev.flush().catch((error: unknown) => this.#broke(member, error));
    await Promise.all(members.map(flush));
    return !this.fenced && !this.dirty && members.every((member) => !member.failed);
  }

  /** A resync that has not begun waits. */
  pause(paused: boolean): void {
    this.#paused = paused;
    this.#wake();
  }

  /** All at once: nothing here takes long enough to be stopped. */
  startScrub(repair: boolean, tell: (scrub: LegScrub) => void): void {
    if (this.fenced) throw new Refused('fenced', 'the leg is fenced');
    if (this.scrub.state === 'running') throw new Refused('busy', 'the leg is being scrubbed');
    this.scrub = { ...noScrub, state: 'running' };
    tell(this.scrub);
    void this.#compare(repair).then((found) => {
      this.scrub = found;
      tell(found);
    });
  }

  async #compare(repair: boolean): Promise<LegScrub> {
    const members = this.members.filter((member) => member.state === 'in_sync' && !member.failed);
    const [first] = members;
    const blockBytes = first?.bdev.blockBytes ?? 1;
    let different = 0;
    try {
      const all = await Promise.all(members.map((member) => member.bdev.read(0, this.numBlocks)));
      const right = all[0] ?? new Uint8Array();
      for (const [index, bytes] of all.entries()) {
        const unlike = differingBlocks(right, bytes, blockBytes);
        different += unlike;
        if (unlike > 0 && repair) await members[index]?.bdev.write(0, right);
      }
    } catch {
      return { ...this.scrub, state: 'stopped' };
    }
    const repaired = repair ? different : 0;
    const counts = { compared_blocks: this.numBlocks, different_blocks: different, repaired_blocks: repaired };
    return { ...noScrub, ...counts, state: 'finished', percent: 100 };
  }

  fence(): void {
    this.fenced = true;
    this.#wake();
  }

  /** What the member's own connection found out. */
  memberLost(name: string, reason: string): void {
    const member = this.#members.get(name);
    if (member !== undefined) this.#broke(member, new Error(reason));
  }

  remove(name: string): LegMember {
    const member = this.need(name);
    if (this.members.filter((each) => each.state === 'in_sync').length === 1 && member.state === 'in_sync')
      throw new Refused('invalid', `member ${name} is the last one of the set`);
    this.#members.delete(name);
    this.#wake();
    return member;
  }

  /** What stands in its way is what stands in a native leg's. */
  grow(numBlocks: number, tailBlocks: number): void {
    if (numBlocks === this.numBlocks) return;
    if (this.fenced) throw new Refused('fenced', 'the leg is fenced');
    if (numBlocks < this.numBlocks)
      throw new Refused('invalid', `num_blocks: the leg has ${this.numBlocks} blocks and does not shrink`);
    if (numBlocks - this.numBlocks < tailBlocks)
      throw new Refused('invalid', 'num_blocks: the leg grows by at least 1 MiB');
    for (const { bdev, state, failed } of this.members) {
      if (state !== 'in_sync') throw new Refused('busy', `${bdev.name} is joining`);
      if (bdev.numBlocks < numBlocks + tailBlocks)
        throw new Refused('noSpace', `${bdev.name} has ${bdev.numBlocks} blocks, needs ${numBlocks + tailBlocks}`);
      if (failed) throw new Refused('busy', 'a member failed');
    }
    if (this.dirty) throw new Refused('busy', 'regions are being made equal');
    this.numBlocks = numBlocks;
  }

  /** The members of the set, when all of them hold the same. */
  equalMembers(): string[] {
    if (this.fenced) throw new Refused('fenced', 'the leg is fenced');
    if (this.members.some((member) => member.failed)) throw new Refused('busy', 'a member failed');
    if (this.members.some((member) => member.state === 'copied'))
      throw new Refused('busy', 'a member is joining the set');
    if (this.dirty) throw new Refused('busy', 'regions are being made equal');
    return this.members.filter((member) => member.state === 'in_sync').map((member) => member.bdev.name);
  }

  add(bdev: FakeBdev): void {
    if (this.fenced) throw new Refused('fenced', 'the leg is fenced');
    const member: LegMember = { bdev, state: 'joining', failed: false, syncedBlocks: 0 };
    this.#members.set(bdev.name, member);
    void this.#copy(member);
  }

  commit(name: string): void {
    const member = this.need(name);
    if (member.state !== 'copied') throw new Refused('invalid', `member ${name} is not copied yet`);
    member.state = 'in_sync';
    this.#wake();
  }

  abandon(name: string): LegMember {
    const member = this.need(name);
    if (member.state === 'in_sync') throw new Refused('invalid', `member ${name} is in the set`);
    this.#members.delete(name);
    this.#wake();
    return member;
  }

  need(name: string): LegMember {
    const member = this.#members.get(name);
    if (member === undefined) throw new Refused('notFound', `member ${name} is none of this leg's`);
    return member;
  }

  /** Makes what may differ equal, as the native leg does in the background. */
  async clean(): Promise<void> {
    const was = this.dirty;
    await this.#equalize();
    if (was && !this.dirty && !this.fenced) this.#events.clean();
  }

  #equalizing: Promise<void> | null = null;
  async #equalize(): Promise<void> {
    if (!this.dirty) return;
    this.#equalizing ??= this.#makeEqual().finally(() => {
      this.#equalizing = null;
    });
    await this.#equalizing;
  }

  async #makeEqual(): Promise<void> {
    const source = this.members.find((member) => member.state === 'in_sync' && !member.failed);
    if (source === undefined || this.fenced) return;
    try {
      const all = await source.bdev.read(0, this.numBlocks);
      for (const member of this.members) if (member !== source && !member.failed) await member.bdev.write(0, all);
      this.dirty = false;
    } catch (error) {
      this.#broke(source, error);
    }
  }

  async #onAll(act: (member: LegMember) => Promise<void>): Promise<void> {
    const done = new Set<LegMember>();
    for (;;) {
      if (this.fenced) throw anaInaccessible();
      const wanted = this.members.filter((member) => !done.has(member) && !member.failed);
      await Promise.all(
        wanted.map((member) =>
          act(member).then(
            () => void done.add(member),
            (error: unknown) => this.#broke(member, error),
          ),
        ),
      );
      if (this.fenced) throw anaInaccessible();
      const missing = this.members.filter((member) => member.state !== 'joining' && !done.has(member));
      if (missing.length === 0) return;
      if (missing.every((member) => member.failed)) await this.#change();
    }
  }

  async #copy(member: LegMember): Promise<void> {
    try {
      while (this.#paused && !this.fenced && this.#members.get(member.bdev.name) === member) await this.#change();
      const source = this.members.find((each) => each.state === 'in_sync' && !each.failed);
      if (source === undefined) throw new Error('no member to copy from');
      const all = await source.bdev.read(0, this.numBlocks);
      await member.bdev.write(0, all);
      await member.bdev.flush();
      if (this.#members.get(member.bdev.name) !== member || member.failed || this.fenced) return;
      member.state = 'copied';
      member.syncedBlocks = this.numBlocks;
      this.#events.memberCopied(member.bdev.name);
    } catch (error) {
      this.#broke(member, error);
    }
  }

  #broke(member: LegMember, error: unknown): void {
    if (this.fenced || member.failed || this.#members.get(member.bdev.name) !== member) return;
    if (isConflict(error)) {
      this.fence();
      this.#events.fenced();
      return;
    }
    member.failed = true;
    if (member.state === 'in_sync') this.#events.memberFailed(member.bdev.name, textOf(error));
    else this.#events.joiningFailed(member.bdev.name, textOf(error));
    this.#wake();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#settled.push(resolve));
  }

  #wake(): void {
    for (const go of this.#settled.splice(0)) go();
  }
}
