// SPDX-License-Identifier: Apache-2.0
//
// Which disks hold the replicas of a new volume. Pure and deterministic: the same disks and the same
// request give the same answer, whatever order the disks come in.
//
// Invariants:  - the replicas of one leg are on distinct nodes
//              - no disk is promised more than it has

import { BasaltError } from '../model/errors.js';

export interface PlacementDisk {
  readonly id: string;
  readonly node: string;
  /** What is not yet promised to any replica. */
  readonly availableBytes: number;
}

export interface PlacementRequest {
  readonly legs: number;
  readonly copies: number;
  readonly legSizeBytes: number;
}

export interface PlacedReplica {
  readonly disk: string;
  readonly node: string;
}

/**
 * One list of `copies` disks per leg.
 * @throws PLACEMENT_IMPOSSIBLE with the reason and the smallest change that would do
 */
export function place(disks: readonly PlacementDisk[], request: PlacementRequest): PlacedReplica[][] {
  const nodes = new Set(disks.map((disk) => disk.node)).size;
  if (nodes < request.copies) throw tooFewNodes(nodes, request.copies);
  const placed = tryPlace(disks, request);
  if (placed === null) throw tooLittleSpace(disks, request);
  return placed;
}

function tryPlace(disks: readonly PlacementDisk[], request: PlacementRequest): PlacedReplica[][] | null {
  const free = new Map(disks.map((disk) => [disk.id, disk.availableBytes]));
  const legs: PlacedReplica[][] = [];
  for (let leg = 0; leg < request.legs; leg++) {
    const chosen = chooseDisks(disks, free, request);
    if (chosen === null) return null;
    for (const disk of chosen) free.set(disk.id, (free.get(disk.id) ?? 0) - request.legSizeBytes);
    legs.push(chosen.map((disk) => ({ disk: disk.id, node: disk.node })));
  }
  return legs;
}

/** The emptiest disk of each node, then the emptiest nodes: keeps the most nodes usable for later legs. */
function chooseDisks(
  disks: readonly PlacementDisk[],
  free: ReadonlyMap<string, number>,
  request: PlacementRequest,
): PlacementDisk[] | null {
  const roomiest = (a: PlacementDisk, b: PlacementDisk): number =>
    (free.get(b.id) ?? 0) - (free.get(a.id) ?? 0) || compareText(a.node, b.node) || compareText(a.id, b.id);
  const best = new Map<string, PlacementDisk>();
  for (const disk of disks) {
    const known = best.get(disk.node);
    if (known === undefined || roomiest(disk, known) < 0) best.set(disk.node, disk);
  }
  const fitting = [...best.values()].filter((disk) => (free.get(disk.id) ?? 0) >= request.legSizeBytes).sort(roomiest);
  return fitting.length < request.copies ? null : fitting.slice(0, request.copies);
}

function tooFewNodes(nodes: number, copies: number): BasaltError {
  const missing = copies - nodes;
  const fewer = nodes > 0 ? `, or ask for ${nodes} ${nodes === 1 ? 'copy' : 'copies'}` : '';
  const problem =
    `${copies} ${copies === 1 ? 'copy needs' : 'copies need'} a disk on ${copies} nodes, ${nodes} of the nodes that are up ${nodes === 1 ? 'has' : 'have'} one: ` +
    `add a disk on ${missing} more ${missing === 1 ? 'node' : 'nodes'}${fewer}`;
  return new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'copies', problem });
}

const mib = 1024 * 1024;

function tooLittleSpace(disks: readonly PlacementDisk[], request: PlacementRequest): BasaltError {
  let [fits, fails] = [0, Math.ceil(request.legSizeBytes / mib)];
  while (fails - fits > 1) {
    const middle = Math.floor((fits + fails) / 2);
    if (tryPlace(disks, { ...request, legSizeBytes: middle * mib }) === null) fails = middle;
    else fits = middle;
  }
  const most = Math.max(0, ...disks.map((disk) => disk.availableBytes));
  const change =
    fits > 0
      ? `ask for at most ${fits * request.legs * mib} bytes, or add larger disks`
      : `add disks on ${request.copies} nodes with ${request.legSizeBytes} bytes free for each leg`;
  const problem =
    `${request.legs * request.copies} replicas of ${request.legSizeBytes} bytes do not fit on distinct nodes ` +
    `(the emptiest disk has ${most} bytes left): ${change}`;
  return new BasaltError('PLACEMENT_IMPOSSIBLE', { field: 'sizeBytes', problem });
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
