// SPDX-License-Identifier: Apache-2.0
//
// Asking the API again until there is an answer, while the store comes and goes.

import type { VirtualClock } from '../env/virtual-clock.js';
import { BasaltError } from '../model/errors.js';

const retryMs = 200;

export interface Words {
  /** Answers that tell that no earlier question was carried out, nor will be. */
  readonly last?: readonly string[];
  /** Answers that refuse, unless an earlier question may be carried out yet. */
  readonly refusals?: readonly string[];
}

/** `refused`: nothing was changed, nor will be. */
export async function askUntilAnswered(
  clock: Pick<VirtualClock, 'sleep'>,
  words: Words,
  act: () => Promise<void>,
): Promise<'done' | 'refused'> {
  // An earlier question may be carried out yet: then a later refusal is not the last word.
  for (let mayBeDone = false; ; await clock.sleep(retryMs)) {
    try {
      await act();
      return 'done';
    } catch (error) {
      const code = codeOf(error);
      if (code === null) throw error;
      if (words.refusals?.includes(code) === true && !mayBeDone) return 'refused';
      if (words.last?.includes(code) === true) return 'refused';
      mayBeDone ||= code === 'STORE_UNKNOWN_OUTCOME';
    }
  }
}

export function codeOf(error: unknown): string | null {
  return error instanceof BasaltError ? error.code : null;
}
