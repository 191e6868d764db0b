// SPDX-License-Identifier: Apache-2.0
//
// The disks that a leg belongs on: those of its PG, but for replicas that were moved to another disk by hand. Pure.
//
// Invariants:  - as many disks as the PG has, in its order, no two in one failure domain
//              - a move by hand counts for as long as the PG names the disk that it was moved from, and the pool uses the
//                other one; then the PG's word holds again, without anybody asking

import type { LegPlacement } from '../model/objects.js';

/** `domainOf`: of a disk that the pool uses; undefined: it does not. */
export function homesOf(
  pgDisks: readonly string[],
  leg: LegPlacement,
  domainOf: (disk: string) => string | undefined,
): string[] {
  const homes = [...pgDisks];
  for (const { disk, insteadOf, leaving } of leg.replicas) {
    if (insteadOf === undefined || leaving === true) continue;
    const at = homes.indexOf(insteadOf);
    if (at >= 0 && standsApart(homes, { at, disk, domainOf })) homes[at] = disk;
  }
  return homes;
}

function standsApart(
  homes: readonly string[],
  to: { at: number; disk: string; domainOf: (disk: string) => string | undefined },
): boolean {
  const domain = to.domainOf(to.disk);
  if (domain === undefined || homes.includes(to.disk)) return false;
  return homes.every((other, index) => index === to.at || to.domainOf(other) !== domain);
}

/** The disk that the PG names for what is on `disk`, when that is another one. */
export function insteadOf(leg: LegPlacement, disk: string): { insteadOf?: string } {
  const known = leg.replicas.find((entry) => entry.disk === disk && entry.insteadOf !== undefined)?.insteadOf;
  return known === undefined ? {} : { insteadOf: known };
}
