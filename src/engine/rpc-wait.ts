// SPDX-License-Identifier: Apache-2.0
//
// Waiting for an answer with a deadline and a signal. Giving up never stops what the engine began.

import { setMaxListeners } from 'node:events';
import type { Clock } from '../env/clock.js';
import { EngineError, engineErrorCodes, type RpcOptions, rpcTimeoutMsDefault } from './engine.js';

export function waitForAnswer<T>(method: string, answer: Promise<T>, options: RpcOptions, clock: Clock): Promise<T> {
  const { signal, timeoutMs = rpcTimeoutMsDefault } = options;
  if (signal?.aborted) {
    answer.catch(() => undefined);
    return Promise.reject(signal.reason);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => finish(() => reject(signal?.reason));
    const timer = clock.setTimer(timeoutMs, () => {
      const message = `no answer within ${timeoutMs} ms; what it began may still happen`;
      finish(() => reject(new EngineError(engineErrorCodes.timedOut, method, message)));
    });
    const finish = (settle: () => void): void => {
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
      settle();
    };
    if (signal !== undefined) {
      // A wide volume waits for many members at once: Node.js would warn of a leak, but each wait takes its own away.
      setMaxListeners(0, signal);
      signal.addEventListener('abort', onAbort, { once: true });
    }
    answer.then(
      (value) => finish(() => resolve(value)),
      (error: unknown) => finish(() => reject(error)),
    );
  });
}
