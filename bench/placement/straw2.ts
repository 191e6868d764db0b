// SPDX-License-Identifier: Apache-2.0
// What placement by hashing gives, to compare with: straw2 draws, as CRUSH makes them, over the same two levels of a tree
// (domains, then disks in a domain). Every item draws ln(u) / weight with u hashed from (PG, item, try); the highest wins.

import type { PgProblemDisk } from '../../src/placement/pg-problem.js';
import { mix32 } from '../../src/placement/route.js';

interface Item {
  readonly key: number;
  readonly weight: number;
}

interface Domain extends Item {
  readonly disks: readonly (Item & { readonly id: string })[];
}

const triesMax = 100;

/** Of each PG, its disks by id. PGs for which no domain was left after all tries have fewer. */
export function straw2Map(disks: readonly PgProblemDisk[], at: { pgCount: number; width: number }): string[][] {
  const domains = treeOf(disks);
  return Array.from({ length: at.pgCount }, (_, pg) => {
    const chosen: string[] = [];
    const taken = new Set<number>();
    for (let attempt = 0; chosen.length < at.width && attempt < triesMax; attempt++) {
      const domain = draw(domains, pg, attempt);
      if (taken.has(domain.key)) continue;
      taken.add(domain.key);
      chosen.push(draw(domain.disks, pg, attempt).id);
    }
    return chosen;
  });
}

function treeOf(disks: readonly PgProblemDisk[]): Domain[] {
  const byDomain = new Map<string, PgProblemDisk[]>();
  for (const disk of disks) byDomain.set(disk.domain, [...(byDomain.get(disk.domain) ?? []), disk]);
  return [...byDomain].map(([name, members]) => ({
    key: keyOf(name),
    weight: members.reduce((sum, disk) => sum + disk.capacityBytes, 0),
    disks: members.map((disk) => ({ id: disk.id, key: keyOf(disk.id), weight: disk.capacityBytes })),
  }));
}

function draw<T extends Item>(items: readonly T[], pg: number, attempt: number): T {
  let best = items[0] as T;
  let highest = Number.NEGATIVE_INFINITY;
  for (const item of items) {
    const hashed = mix32(mix32(mix32(pg) ^ item.key) ^ mix32(attempt + 0x5bd1));
    const value = Math.log((hashed + 1) / 0x1_0000_0000) / item.weight;
    if (value <= highest) continue;
    highest = value;
    best = item;
  }
  return best;
}

/** From the name alone: an item draws the same whatever else is in the tree. */
function keyOf(name: string): number {
  let key = 0x811c_9dc5;
  for (const letter of name) key = mix32(key ^ (letter.codePointAt(0) ?? 0));
  return key;
}
