// SPDX-License-Identifier: Apache-2.0

import { systemClock } from '../../env/clock.js';

/** On a machine that does much else at the same time. */
export const patientMs = 60_000;

export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const endMs = systemClock.now() + patientMs; !(await holds()); await systemClock.sleep(5))
    if (systemClock.now() > endMs) throw new Error(`never: ${what}`);
}
