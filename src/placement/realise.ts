// SPDX-License-Identifier: Apache-2.0
//
// From numbers of PGs per disk to the PGs themselves: keeps what is there, fills what is missing, and takes from disks
// that have too many. Deterministic; no randomness, no clock.
//
// Invariants:  - a PG never has two disks of one domain
//              - no disk is given more bytes than it has room for
//              - the members of a PG that stay keep their places in its order

import { mix32 } from './route.js';

export interface RealiseRequest {
  /** Of each PG, disks by number; -1 where one is missing. Changed in place. */
  readonly pgs: number[][];
  readonly domainOf: readonly number[];
  readonly domainCount: number;
  readonly targets: readonly number[];
  readonly capacityBytes: readonly number[];
  readonly pgBytes: readonly number[];
  /** Disks that get nothing, by number. */
  readonly full?: ReadonlySet<number>;
}

/** PGs that still miss a disk, because nothing that has room is in another domain. */
export function realise(request: RealiseRequest): number[] {
  const board = new Board(request);
  const unfilled = fillHoles(board);
  levelOut(board);
  return unfilled;
}

interface Move {
  readonly pg: number;
  readonly from: number;
  readonly to: number;
}

/** Who has what, and what a change would mean. */
class Board {
  readonly pgs: number[][];
  readonly on: Set<number>[];
  readonly diskCount: number;
  readonly #request: RealiseRequest;
  readonly #loadBytes: Float64Array;
  /** How many PGs two disks share: rebuilding reads from many disks when these are even. */
  readonly #pairs: Uint16Array | null;

  constructor(request: RealiseRequest) {
    this.#request = request;
    this.pgs = request.pgs;
    this.diskCount = request.targets.length;
    this.on = request.targets.map(() => new Set());
    this.#loadBytes = new Float64Array(this.diskCount);
    this.#pairs = this.diskCount <= pairedDisksMax ? new Uint16Array(this.diskCount ** 2) : null;
    this.pgs.forEach((members, pg) => {
      for (const disk of members) if (disk >= 0) this.#note(pg, disk, 1);
    });
  }

  target(disk: number): number {
    return this.#request.targets[disk] ?? 0;
  }

  /** Below 0: it has too many. */
  deficit(disk: number): number {
    return this.target(disk) - (this.on[disk]?.size ?? 0);
  }

  domain(disk: number): number {
    return this.#request.domainOf[disk] ?? 0;
  }

  /** `leaving`: a member that would go; -1 when a place is free. */
  fits(pg: number, disk: number, leaving: number): boolean {
    const bytes = this.#request.pgBytes[pg] ?? 0;
    if (this.#request.full?.has(disk) === true) return false;
    if ((this.#loadBytes[disk] ?? 0) + bytes > (this.#request.capacityBytes[disk] ?? 0)) return false;
    return this.apart(pg, disk, leaving);
  }

  /** The domains alone. */
  apart(pg: number, disk: number, leaving: number): boolean {
    const domain = this.domain(disk);
    for (const member of this.pgs[pg] ?? [])
      if (member >= 0 && member !== leaving && this.domain(member) === domain) return false;
    return leaving !== disk;
  }

  /** How much the PG's other disks have in common with `disk` already. */
  shared(pg: number, disk: number, leaving: number): number {
    if (this.#pairs === null) return 0;
    let sum = 0;
    for (const member of this.pgs[pg] ?? [])
      if (member >= 0 && member !== leaving) sum += this.#pairs[member * this.diskCount + disk] ?? 0;
    return sum;
  }

  move({ pg, from, to }: Move): void {
    const members = this.pgs[pg] ?? [];
    const place = members.indexOf(from);
    if (from >= 0) this.#note(pg, from, -1);
    members[place] = to;
    if (to >= 0) this.#note(pg, to, 1);
  }

  /** `by` 1: the disk is among the members now; -1: it is about to leave them. */
  #note(pg: number, disk: number, by: 1 | -1): void {
    if (by > 0) this.on[disk]?.add(pg);
    else this.on[disk]?.delete(pg);
    this.#loadBytes[disk] = (this.#loadBytes[disk] ?? 0) + by * (this.#request.pgBytes[pg] ?? 0);
    if (this.#pairs === null) return;
    for (const other of this.pgs[pg] ?? []) {
      if (other < 0 || other === disk) continue;
      const [there, back] = [other * this.diskCount + disk, disk * this.diskCount + other];
      this.#pairs[there] = (this.#pairs[there] ?? 0) + by;
      this.#pairs[back] = (this.#pairs[back] ?? 0) + by;
    }
  }
}

const pairedDisksMax = 4096;
/** Disks that miss nearly as large a part of their number as the neediest one are as good as it. */
const nearly = 0.9;

function fillHoles(board: Board): number[] {
  const open = board.pgs.flatMap((members, pg) => (members.includes(-1) ? [pg] : []));
  const unfilled: number[] = [];
  const need = domainNeeds(board);
  open.forEach((pg, done) => {
    while (board.pgs[pg]?.includes(-1)) {
      const disk = neediest(board, pg, need, open.length - done);
      if (disk >= 0) {
        board.move({ pg, from: -1, to: disk });
        need[board.domain(disk)] = (need[board.domain(disk)] ?? 0) - 1;
      } else if (!chain(board, { pg, disk: -1 })) {
        const spare = leastOver(board, pg);
        if (spare < 0) {
          unfilled.push(pg);
          return;
        }
        board.move({ pg, from: -1, to: spare });
      }
    }
  });
  return unfilled;
}

/** Where the numbers per disk cannot be had with the domains and the full disks as they are: beyond the number of one. */
function leastOver(board: Board, pg: number): number {
  let best = -1;
  for (let disk = 0; disk < board.diskCount; disk++) {
    if (!board.fits(pg, disk, -1)) continue;
    if (best < 0 || board.deficit(disk) > board.deficit(best)) best = disk;
  }
  return best;
}

/** How many places the disks of each domain still miss. */
function domainNeeds(board: Board): number[] {
  const need: number[] = [];
  for (let disk = 0; disk < board.diskCount; disk++) {
    const domain = board.domain(disk);
    need[domain] = (need[domain] ?? 0) + Math.max(0, board.deficit(disk));
  }
  return need;
}

/** The disk for a free place of the PG, or -1. A domain that every open PG must have from now on comes first. */
function neediest(board: Board, pg: number, need: readonly number[], openCount: number): number {
  const wish = (disk: number): number => board.deficit(disk) / board.target(disk);
  const candidates: number[] = [];
  let highest = 0;
  let anyForced = false;
  for (let disk = 0; disk < board.diskCount; disk++) {
    if (board.deficit(disk) <= 0 || !board.fits(pg, disk, -1)) continue;
    candidates.push(disk);
    highest = Math.max(highest, wish(disk));
    anyForced ||= (need[board.domain(disk)] ?? 0) >= openCount;
  }
  let best = -1;
  let [leastShared, highestHash] = [0, 0];
  for (const disk of candidates) {
    if (anyForced ? (need[board.domain(disk)] ?? 0) < openCount : wish(disk) < highest * nearly) continue;
    const shared = board.shared(pg, disk, -1);
    if (best >= 0 && shared > leastShared) continue;
    const hash = mix32(pg * 65_537 + disk);
    if (best >= 0 && shared === leastShared && hash <= highestHash) continue;
    [best, leastShared, highestHash] = [disk, shared, hash];
  }
  return best;
}

function above(a: readonly number[], b: readonly number[]): boolean {
  for (let at = 0; at < a.length; at++) {
    const [left = 0, right = 0] = [a[at], b[at]];
    if (left !== right) return left > right;
  }
  return false;
}

/** Takes PGs from disks that have too many, until none can be taken. */
function levelOut(board: Board): void {
  const stuck = new Set<number>();
  for (;;) {
    const from = fullest(board, stuck);
    if (from < 0) return;
    const move = bestMove(board, from);
    if (move !== null) board.move(move);
    else if (!chain(board, { pg: -1, disk: from })) stuck.add(from);
  }
}

function fullest(board: Board, stuck: ReadonlySet<number>): number {
  let best = -1;
  let most = 0;
  for (let disk = 0; disk < board.diskCount; disk++) {
    const excess = -board.deficit(disk) / Math.max(1, board.target(disk));
    if (excess <= most || stuck.has(disk)) continue;
    best = disk;
    most = excess;
  }
  return best;
}

/** One PG from `from` to a disk that misses some. */
function bestMove(board: Board, from: number): Move | null {
  let best: Move | null = null;
  let bestKey = [0, 0, 0];
  for (let to = 0; to < board.diskCount; to++) {
    const missing = board.deficit(to);
    if (missing <= 0) continue;
    const wish = missing / board.target(to);
    for (const pg of board.on[from] ?? []) {
      if (!board.fits(pg, to, from)) continue;
      const key = [Math.ceil(wish * 10), -board.shared(pg, to, from), mix32(pg * 65_537 + to)];
      if (best !== null && !above(key, bestKey)) continue;
      best = { pg, from, to };
      bestKey = key;
    }
  }
  return best;
}

/**
 * When no disk that misses PGs fits directly: a row of disks, each giving one PG to the next, the last of which misses one.
 * Starts at a free place of `pg`, or at `disk`, which has too many. Shortest first. False: there is none.
 */
function chain(board: Board, start: { pg: number; disk: number }): boolean {
  const cameBy = new Map<number, Move>();
  const queue: number[] = [];
  const reach = (move: Move): void => {
    if (cameBy.has(move.to)) return;
    cameBy.set(move.to, move);
    queue.push(move.to);
  };
  if (start.disk >= 0) {
    queue.push(start.disk);
    cameBy.set(start.disk, { pg: -1, from: -1, to: start.disk });
  } else {
    for (let disk = 0; disk < board.diskCount; disk++)
      if (board.apart(start.pg, disk, -1)) reach({ pg: start.pg, from: -1, to: disk });
  }
  for (let at = 0; at < queue.length; at++) {
    const from = queue[at] ?? 0;
    const last = bestMove(board, from);
    if (last !== null && applyChain(board, last, cameBy)) return true;
    for (const pg of board.on[from] ?? [])
      for (let to = 0; to < board.diskCount; to++) if (board.apart(pg, to, from)) reach({ pg, from, to });
  }
  return false;
}

/** From the last move to the first, each only while it is allowed; all of them or none. */
function applyChain(board: Board, last: Move, cameBy: ReadonlyMap<number, Move>): boolean {
  const done: Move[] = [];
  for (let move: Move | undefined = last; move !== undefined && move.pg >= 0; move = cameBy.get(move.from)) {
    if (!board.pgs[move.pg]?.includes(move.from) || !board.fits(move.pg, move.to, move.from)) {
      for (const undo of done.reverse()) board.move({ pg: undo.pg, from: undo.to, to: undo.from });
      return false;
    }
    board.move(move);
    done.push(move);
    if (move.from < 0) break;
  }
  return true;
}
