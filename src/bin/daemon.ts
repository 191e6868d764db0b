// SPDX-License-Identifier: Apache-2.0
//
// What every daemon does alike: logs, says once that it is ready, drains on the first signal, ends on the second.

import { constants } from 'node:os';
import { type Logger as PinoLogger, pino } from 'pino';
import type { DaemonOutput } from '../cli/launch.js';
import { systemClock } from '../env/clock.js';
import { coreDumpsAreAllowed, coreDumpsVariable } from '../env/core-dumps.js';
import type { CompiledConfig } from '../model/config.js';

export type { PinoLogger };

export const drainMsMax = 10_000;

/** In the environment of a daemon whose standard input is a pipe from its supervisor. */
export const supervisedByStdin = 'BASALT_SUPERVISED_BY_STDIN';

export function daemonLog(config: CompiledConfig, name: string): PinoLogger {
  // Standard error: standard output belongs to the line that says "ready".
  const destination = pino.destination({ dest: 2, sync: true });
  // Whoever read the log went away: that ends the log, not the daemon.
  destination.on('error', () => {});
  return pino({ name, level: config.logLevel }, destination);
}

export interface Daemon {
  /** Shown when ready. */
  readonly ready: Record<string, unknown>;
  readonly text: string;
  /** Resolves when the daemon cannot go on: it drains, and ends with exit code 1 for its supervisor. */
  readonly failed?: Promise<string>;
  /** Hands over what others may be waiting for. Cut off after `drainMsMax`. */
  drain(): Promise<void>;
  close(): Promise<void>;
}

/** Starts, waits for a signal, drains, and gives the exit code. The second signal ends the process at once. */
export async function runDaemon(
  log: PinoLogger,
  output: DaemonOutput,
  start: (signal: AbortSignal) => Promise<Daemon>,
): Promise<number> {
  if (coreDumpsAreAllowed(process.env)) log.warn(`core dumps are allowed, by ${coreDumpsVariable}: they hold keys`);
  const starting = new AbortController();
  const stopped = stopSignal(log, () => starting.abort(new Error('stopped by a signal')));
  let daemon: Daemon;
  try {
    daemon = await start(starting.signal);
  } catch (error) {
    if (starting.signal.aborted) return 0;
    throw error;
  }
  process.stdout.write(`${output.json ? JSON.stringify(daemon.ready) : daemon.text}\n`);
  // An engine alone holds nothing that keeps the process from ending.
  const alive = systemClock.setTimer(Number.MAX_SAFE_INTEGER, () => {});
  const failure = await Promise.race([stopped, ...(daemon.failed === undefined ? [] : [daemon.failed])]);
  alive.cancel();
  if (failure !== undefined) log.error({ problem: failure }, 'cannot go on; handing over');
  const deadline = systemClock.sleep(drainMsMax).then(() => 'late' as const);
  const drained = (async () => {
    await daemon.drain();
    await daemon.close();
    return 'drained' as const;
  })().catch((error: unknown) => {
    log.warn({ error: String(error) }, 'could not end in good order');
    return 'failed' as const;
  });
  const outcome = await Promise.race([drained, deadline]);
  log.info({ outcome }, 'ended');
  // Whatever still holds the event loop has had its time.
  process.exit(outcome === 'drained' && failure === undefined ? 0 : 1);
}

function stopSignal(log: PinoLogger, onFirst: () => void): Promise<void> {
  return new Promise((resolve) => {
    let signals = 0;
    const onSignal = (name: NodeJS.Signals): void => {
      signals++;
      if (signals > 1) process.exit(128 + constants.signals[name]);
      log.info({ signal: name }, 'handing over; a second signal ends at once');
      onFirst();
      resolve();
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    // The terminal was closed.
    process.on('SIGHUP', onSignal);
    if (process.env[supervisedByStdin] === undefined) return;
    // Nobody writes to it: it ends when the supervisor does, however that one ended.
    process.stdin.once('close', () => onSignal('SIGTERM')).resume();
  });
}
