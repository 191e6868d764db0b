// SPDX-License-Identifier: Apache-2.0
//
// Incarnation: one life of a replica's process, as its subsystem's serial number (20 characters). The first eight name
// the boot of its machine: a process that ended has left what it wrote with the machine, a boot that ended has not.

/** `boot`: 8 hexadecimal digits, or null when the machine does not tell: then no two lives count as of one boot. */
export function makeIncarnation(boot: string | null, random: { bytes(count: number): Buffer }): string {
  return (boot ?? random.bytes(4).toString('hex')) + random.bytes(6).toString('hex');
}

/** Null: the member was never taken over. */
export function sameMachineBoot(one: string | null, other: string | null): boolean {
  return one !== null && other !== null && one.length === 20 && one.slice(0, 8) === other.slice(0, 8);
}
