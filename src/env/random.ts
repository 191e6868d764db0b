// SPDX-License-Identifier: Apache-2.0
//
// Randomness as TypeScript code sees it. Everything that draws takes a Random, so that a simulator
// can repeat a run from its seed.

import { randomBytes, randomUUID } from 'node:crypto';

export interface Random {
  /** `count` fresh random bytes. */
  bytes(count: number): Buffer;
  /** A version 4 UUID in lower case. */
  uuid(): string;
  /** A number in [0, 1), for jitter; never for secrets. */
  fraction(): number;
}

export const systemRandom: Random = Object.freeze({
  bytes: (count: number) => randomBytes(count),
  uuid: () => randomUUID(),
  fraction: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
});
