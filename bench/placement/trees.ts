// SPDX-License-Identifier: Apache-2.0
// The clusters that placement is measured on.

import type { PgProblemDisk } from '../../src/placement/pg-problem.js';

const tib = 2 ** 40;

export interface Tree {
  readonly name: string;
  readonly disks: readonly PgProblemDisk[];
  readonly pgCount: number;
  readonly width: number;
  /** What is added to it. */
  readonly more: PgProblemDisk;
}

/** Sizes in TiB, node by node. */
function disksOf(nodes: readonly (readonly number[])[]): PgProblemDisk[] {
  return nodes.flatMap((sizes, node) =>
    sizes.map((size, at) => ({ id: `disk${node}.${at}`, domain: `node${node}`, capacityBytes: size * tib })),
  );
}

const times = <T>(count: number, make: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => make(at));
const more = (node: string, size: number): PgProblemDisk => ({ id: 'new', domain: node, capacityBytes: size * tib });

const even = disksOf(times(50, () => times(10, () => 8)));
const mixed = disksOf(times(50, (node) => times(10, (at) => [2, 4, 4, 8, 8, 16][(node * 7 + at * 5) % 6] ?? 4)));

export const trees: readonly Tree[] = [
  { name: '500-even', disks: even, pgCount: 4096, width: 3, more: more('node7', 8) },
  { name: '500-mixed', disks: mixed, pgCount: 4096, width: 3, more: more('node7', 8) },
  { name: '500-mixed-16384-pgs', disks: mixed, pgCount: 16_384, width: 3, more: more('node7', 8) },
  {
    name: '78-growing-nodes',
    disks: disksOf(times(12, (node) => times(node + 1, (at) => 4 + ((node + at) % 3) * 4))),
    pgCount: 4096,
    width: 3,
    more: more('node12', 16),
  },
  {
    name: '9-small',
    disks: disksOf([
      [1, 2, 4],
      [2, 2],
      [4, 1],
      [8, 1],
    ]),
    pgCount: 512,
    width: 2,
    more: more('node4', 4),
  },
];
