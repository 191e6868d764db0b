// SPDX-License-Identifier: Apache-2.0
//
// What every agent is given: the world outside, and who it is.

import type { Engine } from '../engine/engine.js';
import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import type { KeySource } from '../model/cluster-key.js';
import type { DiskSource } from './disks.js';
import type { Identity } from './node-identity.js';
import type { PlantedBugs } from './planted-bugs.js';

export { RateLimitedLog } from '../env/rate-limited-log.js';

/** A pino logger is one. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface AgentContext {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** For encrypted volumes; absent: they are refused. */
  readonly keys?: KeySource | null;
  /** How this node proves to others that it is one; absent: nodes go by their names. */
  readonly identity?: Identity;
  /** Where the disks come from, and how a node that has them so is described; absent: the engine opens them itself. */
  readonly disks?: { readonly source: DiskSource; readonly description: string };
  /** Which boot of the machine this is (src/env/boot.ts); absent: one that nobody knows. */
  readonly boot?: string | null;
  /** For simulations only. */
  readonly planted?: PlantedBugs;
}

export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
