// SPDX-License-Identifier: Apache-2.0

import type { ScrubChoice, ScrubReport } from '../cli/launch.js';
import { attachEngine } from '../engine/attached/attached-engine.js';
import { isEngineError } from '../engine/engine.js';
import { scrubBdev } from '../engine/scrub.js';
import { systemClock } from '../env/clock.js';
import { BasaltError } from '../model/errors.js';

/** The first interrupt asks for its end. */
export async function runScrub(
  choice: ScrubChoice,
  progress: (percent: number, counts: Readonly<Record<string, number>>) => void,
): Promise<ScrubReport> {
  const ending = new AbortController();
  const interrupted = (): void => ending.abort();
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  try {
    const engine = await attachEngine({ rpcPath: choice.rpcPath });
    try {
      return await scrubBdev(engine, choice, { clock: systemClock, signal: ending.signal, progress });
    } finally {
      await engine.close();
    }
  } catch (error) {
    if (isEngineError(error)) throw new BasaltError('INVALID_ARGUMENT', { field: 'name', problem: error.message });
    throw error;
  } finally {
    process.off('SIGINT', interrupted);
    process.off('SIGTERM', interrupted);
  }
}
