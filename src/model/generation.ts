// SPDX-License-Identifier: Apache-2.0
//
// Generations of the store. An epoch counts takeovers in its lower 40 bits; above them stands the generation of the store
// that it was drawn in. A store that was rebuilt from the disks is of a higher one than any that the disks have seen: so
// replicas refuse whoever drives under the store that was lost, should that come back.
//
// Invariants:  - an epoch of a higher generation is higher than every one of a lower generation
//              - every epoch is a number that JSON and JavaScript hold exactly
//              - nobody draws an epoch of a generation that his store is not of

const countBits = 40;
const generationSize = 2 ** countBits;

export const generationMax = 2 ** (53 - countBits) - 1;

export function generationOf(epoch: number): number {
  return Math.floor(epoch / generationSize);
}

/** How often volumes of that generation changed hands before. */
export function countOf(epoch: number): number {
  return epoch % generationSize;
}

/** Of volumes that nobody has driven yet. */
export function firstEpoch(generation: number): number {
  return generation * generationSize;
}

/** Nobody has driven the volume yet. */
export function isUndriven(epoch: number): boolean {
  return countOf(epoch) === 0;
}

/** For people: `17`, or `2.17` in the second generation after the first. */
export function epochText(epoch: number): string {
  const generation = generationOf(epoch);
  return generation === 0 ? String(epoch) : `${generation}.${countOf(epoch)}`;
}
