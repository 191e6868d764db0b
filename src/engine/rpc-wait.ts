// SPDX-License-Identifier: Apache-2.0
//
// Waiting for an answer with a deadline and a signal. Giving up never stops what the engine began.

import { EngineError, engineErrorCodes, type RpcOptions, rpcTimeoutMsDefault } from './engine.js';

/** Timers as this folder needs them; env/clock's real and test clocks fit. */
export interface RpcTimers {
  setTimeout(run: () => void, afterMs: number): () => void;
}

export const processTimers: RpcTimers = {
  setTimeout(run, afterMs) {
    const timer = setTimeout(run, afterMs);
    return () => clearTimeout(timer);
  },
};

export function waitForAnswer<T>(
  method: string,
  answer: Promise<T>,
  options: RpcOptions,
  timers: RpcTimers,
): Promise<T> {
  const { signal, timeoutMs = rpcTimeoutMsDefault } = options;
  if (signal?.aborted) {
    answer.catch(() => undefined);
    return Promise.reject(signal.reason);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => finish(() => reject(signal?.reason));
    const cancelTimer = timers.setTimeout(() => {
      const message = `no answer within ${timeoutMs} ms; what it began may still happen`;
      finish(() => reject(new EngineError(engineErrorCodes.timedOut, method, message)));
    }, timeoutMs);
    const finish = (settle: () => void): void => {
      cancelTimer();
      signal?.removeEventListener('abort', onAbort);
      settle();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    answer.then(
      (value) => finish(() => resolve(value)),
      (error: unknown) => finish(() => reject(error)),
    );
  });
}
