// SPDX-License-Identifier: Apache-2.0
//
// Keys and tokens are in the memory of processes, so their memory has no business in core dumps.

import { writeFileSync } from 'node:fs';

/** In the environment of a process whose dumps somebody needs, with the keys that are in them. */
export const coreDumpsVariable = 'BASALT_CORE_DUMPS';

export function coreDumpsAreAllowed(environment: Readonly<Record<string, string | undefined>>): boolean {
  return environment[coreDumpsVariable] === '1';
}

/** From now on dumps of this process, and of those that it starts, hold no memory, only registers. That needs no addon. */
export function leaveMemoryOutOfCoreDumps(path = '/proc/self/coredump_filter'): void {
  try {
    writeFileSync(path, '0');
  } catch {
    // A kernel without dumps, or a machine without /proc.
  }
}
