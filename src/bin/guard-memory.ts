// SPDX-License-Identifier: Apache-2.0
//
// Every command may hold a token or a key: none leaves them behind in a core dump, not even in registers, where a copy of a
// string may stand for a while.

import { refuseCoreDumps } from '../engine/native/core-dumps.js';
import { coreDumpsAreAllowed, leaveMemoryOutOfCoreDumps } from '../env/core-dumps.js';

/** Before anything is read that is worth keeping. */
export function guardMemory(environment: NodeJS.ProcessEnv): void {
  if (coreDumpsAreAllowed(environment)) return;
  try {
    refuseCoreDumps();
  } catch {
    // Where the addon is missing, most commands work all the same.
    leaveMemoryOutOfCoreDumps();
  }
}
